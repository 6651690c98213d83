"""Runs that batchd does not execute: a script or a command under cron reports them, and the ledger has them.

    monitor, exec ──► Recorder (a thread) ──► store: a run row, a heartbeat every 10 s, the ending

Whatever happens to the store, the work goes on: what could not be recorded is said on stderr and nothing else. A script
that is killed says nothing any more; its lease ends, and a daemon's reaper records the run as failed, reason `lost`.
"""
