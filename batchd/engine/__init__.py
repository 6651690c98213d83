"""How runs are executed.

    dispatcher ──claims──► waiting ──► worker threads ──endings──► finisher ──fenced write──► store
        ▲                                   ▲   │
        └── wake: NOTIFY, a free thread     │   └─ checkpoint, progress, "am I told to stop?"
                                            │
    lease keeper: renews every lease, hears of cancel requests, writes progress
    stopper:      timeouts, leases not to be trusted, cancelled SQL, stuck threads; never asks the store
    reaper:       takes back the runs of workers that fell silent
    fan-in:       counts the children of runs that queued some, and queues what is to follow when all are final
    sweepers:     remove checkpoints that nobody will resume from, one for each database of the jobs

Claim, lease, fence, trust. A claim is one transaction: the run becomes `running`, its fence grows by one, its
lease ends 30 s from now by the database's clock, and an attempt row appears. From then on two rules keep two attempts
of one run apart:

1. *Trust.* An attempt believes in its lease only until a margin before it ends, by the monotonic clock, counted from
   before the renewal was asked for (`domain.lease`). When the store cannot be reached for so long, the attempt is told
   to stop before anybody else may claim the run.
2. *Fence.* Clocks and threads can be late all the same (a frozen process, a stuck statement). So every write that
   matters names the fence: finishing in the store, and saving a checkpoint in the job's own database, where a new
   attempt has raised the fence before its first chunk. A write of an older attempt matches no row and rolls back.

        claimed ──────────► running ───────► ended ───────► recorded
           │  lease, fence     │ renew, renew    │ in memory    │ WHERE id AND fence AND running
           │                   │                 │              └─ no row: lease lost, nothing is written
           │                   └─ not renewed in time: told to stop; given back if the fence still matches
           └─ not started within a second: given back, no attempt used up

An ending waits in memory while the store is away and is written when it is back; the fence decides whether it counts.
"""
