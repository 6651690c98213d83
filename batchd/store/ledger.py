"""The ledger as a whole, for those who check it or sum it up: every fire, every attempt, every schedule's next time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, select

from batchd.db.engine import Database
from batchd.store import meta
from batchd.store.all_tables import all_tables
from batchd.store.schema import attempts, rate_starts, runs, schedules
from batchd.store.views import all_of, columns_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LedgerRun:
    """One row of `batchd_runs`, as far as it tells when and whether something ran."""

    id: int
    schedule_id: str | None
    kind: str
    queue: str
    state: str
    reason: str | None
    scheduled_for: datetime | None
    scheduled_until: datetime | None
    fire_count: int
    created_at: datetime
    created_by: str
    start_deadline_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    available_at: datetime
    attempt: int
    max_attempts: int
    fence: int
    losses: int
    concurrency_key: str | None
    mutex: str | None
    limit_key: str | None
    waits_for: str | None


@dataclass(frozen=True, slots=True)
class LedgerAttempt:
    """One row of `batchd_attempts`."""

    run_id: int
    fence: int
    number: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """All of it at one moment: runs by id, attempts by run and fence, `next_run_at` and `error` by schedule."""

    runs: tuple[LedgerRun, ...]
    attempts: tuple[LedgerAttempt, ...]
    next_run_at: Mapping[str, datetime | None]
    errors: Mapping[str, str]


def make_blank(database: Database, store_id: str) -> None:
    """Make batchd's tables in an empty database, as the last migration leaves them: for a throw-away store."""
    all_tables().create_all(database.engine)
    with database.writing() as connection:
        meta.set_value(connection, meta.STORE_ID, store_id)


def read_ledger(database: Database) -> Ledger:
    """Return the whole ledger, in one read transaction; for a store that fits into memory."""
    with database.reading() as connection:
        timed = connection.execute(select(schedules.c.id, schedules.c.next_run_at, schedules.c.error)).all()
        return Ledger(
            runs=_rows(connection, LedgerRun, runs, runs.c.id),
            attempts=_rows(connection, LedgerAttempt, attempts, attempts.c.run_id, attempts.c.fence),
            next_run_at={row.id: row.next_run_at for row in timed},
            errors={row.id: row.error for row in timed if row.error is not None},
        )


def next_rate_at(database: Database) -> datetime | None:
    """Return when the first start that now counts in a rate's window stops counting, or None when none does."""
    counting = rate_starts.c.counts_until >= database.dialect.now()
    first = select(rate_starts.c.counts_until).where(counting).order_by(rate_starts.c.counts_until).limit(1)
    with database.reading() as connection:
        moment: datetime | None = connection.execute(first).scalar_one_or_none()
    return moment


def _rows(connection: Connection, view: type[T], table: Table, *order: Any) -> tuple[T, ...]:
    return all_of(connection, select(*columns_of(view, table)).order_by(*order), view)
