"""What earlier runs of a job came to."""

from __future__ import annotations

from sqlalchemy import select

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.store.schema import runs


def previous_result(store: Database, job: str, before_run: int) -> JsonObject | None:
    """Return the result of the job's last succeeded or failed run before `before_run`, or None."""
    with store.reading() as connection:
        return connection.execute(
            select(runs.c.result)
            .where(
                runs.c.schedule_id == job,
                runs.c.id < before_run,
                runs.c.state.in_([RunState.SUCCEEDED.value, RunState.FAILED.value]),
            )
            .order_by(runs.c.id.desc())
            .limit(1)
        ).scalar_one_or_none()
