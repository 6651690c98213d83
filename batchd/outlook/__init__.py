"""Looking ahead: what will fire (`plan`), what one job would do (`explain`), how a month would go (`simulate`).

A simulation is a *world* with one true time and a list of what happens next. In it live daemons made of the real
parts: the planner, the dispatcher, the finisher, the lease keeper, the stopper and the reaper of `batchd.scheduler` and
`batchd.engine`, each turned by hand instead of by a thread, over a real store whose clock is the world's.

    world ──► turn of a daemon's loop ──► store (SQLite in memory)          true time jumps from one event
      ▲            │                                                        to the next, so a month of waiting
      └── when ────┘  "again in 10 s", "this attempt ends in 4 min"         costs nothing

What is not real: threads (one turn at a time, in an order that the seed decides), the time that a turn itself takes
(none), and the work of the jobs, whose length and ending a `Workload` says. So a seed and a scenario always come to
the same ledger, and a failure that one has found can be looked at as often as one likes.
"""
