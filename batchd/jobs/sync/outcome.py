"""What a run came to: its result, its progress, and when too much did not fit."""

from __future__ import annotations

from batchd.clock import SystemClock
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.params import SyncParams
from batchd.jobs.sync.state import Phase, SyncState


class Lap:
    """A stopwatch."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._began = self._clock.monotonic()

    def __call__(self) -> float:
        """Return the seconds since the last call."""
        now = self._clock.monotonic()
        seconds, self._began = now - self._began, now
        return seconds


def report(context: JobContext, state: SyncState, total: int | None) -> None:
    """Report the progress; a fetch that began anew goes on from where the one before it had come to."""
    done = state.floor + state.fetched + state.done
    note = "comparing and writing" if state.phase is Phase.WRITE else f"page {state.pages}"
    context.progress(done, None if total is None else max(total, done), note)


def check_rejects(state: SyncState, params: SyncParams) -> None:
    """Raise JobError when more records were rejected than may be."""
    if state.rejected > params.max_rejects:
        raise JobError(
            f"{state.rejected:,} records do not fit {params.table}, more than `max_rejects` ({params.max_rejects:,})",
            hint="`batchd show RUN` prints the first of them with the reasons",
            retryable=False,
            result=result_of(state, dry_run=params.dry_run),
        )


def result_of(state: SyncState, *, dry_run: bool) -> JsonObject:
    """Return the run's result."""
    planned: JsonObject = {name: state.planned.get(name, 0) for name in ("add", "change", "remove")}
    distinct = state.fetched - state.rejected - state.duplicates
    result: JsonObject = {
        "mode": "not_modified" if state.is_not_modified else "full" if state.is_full else "incremental",
        "fetched": state.fetched,
        "added": 0 if dry_run else state.added,
        "changed": 0 if dry_run else state.changed,
        "columns": state.columns,
        "removed": 0 if dry_run else state.removed,
        "unchanged": max(0, distinct - counted(planned["add"]) - counted(planned["change"])),
        "rejected": state.rejected,
        "duplicates": state.duplicates,
        "pages": state.pages,
        "requests": state.requests,
        "retries": state.retries,
        "bytes": state.bytes,
        "seconds": round(state.seconds, 3),
        "dry_run": dry_run,
    }
    if dry_run:
        result["would"] = planned
        result["examples"] = state.examples
    return result


def counted(value: object) -> int:
    """Return a number of a JSON object, 0 for none."""
    return value if isinstance(value, int) else 0
