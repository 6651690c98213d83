"""Runs in processes of their own, which can be killed: parent and child talk over a socket.

    attempt's thread ── order, stop, cancel, answers ──►  worker process (a group of its own)
                     ◄── log, progress, calls, ending ──   reader thread │ main thread: the function
                     ◄── everything printed ───────────    stdout, stderr

A worker is a clean interpreter, started by exec: a fork of a process with threads may deadlock in any lock that another
thread held. It serves one run after another, until it has served enough of them or grown too large. It is killed with
its whole group when its run must end and does not within a second.

Nothing outlives the daemon, however it dies. The kernel kills the worker when the thread that started it ends
(PR_SET_PDEATHSIG), which is a thread that lives as long as the daemon; and what a worker has started is killed by the
guardian, a small process that holds the list of groups and reads a pipe until the daemon is gone.
"""
