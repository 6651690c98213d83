"""Programs that runs start, and what keeps them from outliving their runs.

    daemon, attempt's thread                keeper (a small Python process)          the command
    ────────────────────────                ───────────────────────────────          ───────────
    starts the keeper, sends the order ──►  starts the command ────────────────────► runs in a session of its own
    reads stdout and stderr ◄───────────────────────────────────────────────────────  writes
    "stop" ──────────────────────────────►  TERM to its group, after the grace KILL
    reads the report ◄────────────────────  waits for it and for all it left behind

The keeper is there for what the daemon cannot do. It notices the daemon's death, by whatever cause, as the end of the
pipe between them, and kills the command at once: the next daemon may take the run back the next moment, and two at once
would be worse than one that could not tidy up. As a child subreaper (Linux) it is the parent of everything the command
starts, also of what leaves the process group. And should the keeper be killed, the kernel kills the command
(PR_SET_PDEATHSIG, which the daemon could not use itself: it is bound to the thread that starts a process).
"""
