"""Moving in: schedules of other systems, read and written anew as a config of batchd. Nothing that is read is ever run.

    files ──► sources (name, text) ──► detect: which system? ──► one reader each ──► Findings ──► TOML, or --explain
                                                                  │
              crontab · systemd · whenever · sidekiq · solid_queue · good_job
              vercel · javascript (BullMQ, node-cron, …) · celery · apscheduler

Three promises hold for every reader.

Nothing is executed, imported, evaluated or unpickled. Ruby, JavaScript and Python sources are taken apart into tokens
or a syntax tree, and only literals are believed; YAML is composed, never constructed into objects; of a pickle only the
texts in it are listed.

Nothing is dropped. What a reader understands becomes a job, a queue or a setting; every other line becomes a comment
with the reason beside it (`Findings.keep`).

Nothing changes silently. Where the other system means something else by the same words (which days match, whose
midnight, what becomes of missed fires), the schedule is written so that it means the same here, and the difference is
said: once for the system (`Findings.remark`), or at the job (`FoundJob.changes`). What only a person can know is one of
its `checks`.
"""
