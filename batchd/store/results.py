"""What earlier runs of a job came to."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.store.schema import runs


def previous_result(store: Database, job: str, before_run: int) -> JsonObject | None:
    """Return the result of the job's last succeeded or failed run before `before_run` that has one, or None."""
    with store.reading() as connection:
        return connection.execute(
            select(runs.c.result)
            .where(
                runs.c.schedule_id == job,
                runs.c.id < before_run,
                runs.c.result.is_not(None),  # a failure that could tell nothing must not hide the result before it
                runs.c.state.in_([RunState.SUCCEEDED.value, RunState.FAILED.value]),
            )
            .order_by(runs.c.id.desc())
            .limit(1)
        ).scalar_one_or_none()


def resumable(store: Database, run_ids: Collection[int]) -> frozenset[int]:
    """Return which of the runs may still be resumed: all that are there, but for those that succeeded."""
    with store.reading() as connection:
        found = connection.execute(
            select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.state != RunState.SUCCEEDED.value)
        ).scalars()
        return frozenset(found)
