"""cleanup: delete old rows in many short transactions, so that nobody else notices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator
from sqlalchemy import delete, func, select

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.db.explained import looking, plain_sql, written_out
from batchd.db.identifiers import parse_name
from batchd.db.time_column import TimeFormat
from batchd.domain.job import JsonObject
from batchd.jobs.archive import SUFFIXES
from batchd.jobs.chunked_delete import ChunkedDelete, DeleteRequest
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.delete_plan import plan_delete
from batchd.jobs.looks import Look, LookedAt, index_advice, locks_of
from batchd.jobs.params import Duration, TimeZone

_LOOK_LIMIT = timedelta(seconds=5)
_LONGEST_AGE = timedelta(days=366 * 200)


class CleanupParams(Params):
    """What to delete, how fast, and where to keep a copy."""

    database: str = Field(description="Name of the [databases.NAME] that holds the table.")
    table: str = Field(
        description='Table, as in SQL: `logs`, `audit.logs`, or `"Session"` with double quotes for mixed case.',
        examples=["logs", "audit.logs", '"Session"'],
    )
    column: str = Field(
        description="Column that says when: a timestamptz, timestamp or date, a number of seconds or milliseconds "
        "since 1970, or on SQLite ISO 8601 text. Rows in which it is NULL stay.",
        examples=["created_at", '"expiresAt"'],
    )
    older_than: Duration | None = Field(
        default=None,
        description="Delete rows whose column is further back than this before the run's scheduled time. "
        "Either this or `expired`.",
    )
    expired: bool = Field(
        default=False,
        description="Delete rows whose column (an expiry time) has passed. Either this or `older_than`.",
    )
    where: str | None = Field(
        default=None,
        description="A further SQL condition that rows must meet, for example \"level = 'debug'\". "
        "The database checks it before anything is deleted.",
    )
    column_unit: Literal["seconds", "milliseconds", "microseconds", "nanoseconds"] | None = Field(
        default=None,
        description="Unit of a column of numbers. Found by the size of its smallest and largest value when not set.",
    )
    column_timezone: TimeZone = Field(
        default="UTC",
        description="Time zone in which a column without one (timestamp, date) was written.",
    )
    batch_size: int = Field(
        default=100_000,
        ge=1,
        le=1_000_000,
        description="Most rows in one transaction. Smaller ones are chosen by themselves to meet `target`.",
    )
    target: Duration = Field(
        default=timedelta(milliseconds=50),
        description="How long one transaction should take. The number of rows follows it.",
    )
    max_rows: int | None = Field(default=None, ge=1, description="Most rows that one run deletes. No limit when unset.")
    pause: Duration | None = Field(
        default=None,
        description="Pause between two transactions. When unset a fraction of the last one's time: a fiftieth on "
        "PostgreSQL, all of it on SQLite, where only one can write at a time.",
    )
    lock_timeout: Duration = Field(
        default=timedelta(milliseconds=200),
        description="Longest wait for a row lock that somebody else holds; the chunk is then tried again, smaller.",
    )
    archive_to: Path | None = Field(
        default=None,
        description="File to which rows are appended before they are deleted: gzip-compressed CSV (`.csv.gz`) or "
        "JSON lines (`.jsonl.gz`).",
    )
    dry_run: bool = Field(default=False, description="Delete nothing; count what would be deleted.")

    @field_validator("table", "column")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        parse_name(value)
        return value

    @field_validator("archive_to")
    @classmethod
    def _is_a_known_format(cls, value: Path | None) -> Path | None:
        if value is not None and not value.name.endswith(SUFFIXES):
            raise ValueError(f"the name must end in one of {', '.join(SUFFIXES)}, which says the format")
        return value

    @field_validator("target", "lock_timeout")
    @classmethod
    def _is_positive(cls, value: timedelta) -> timedelta:
        if value < timedelta(milliseconds=1):
            raise ValueError("must be at least 1ms")
        return value

    @field_validator("where")
    @classmethod
    def _is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; leave it out to delete every old row")
        return value

    @model_validator(mode="after")
    def _has_one_rule(self) -> CleanupParams:
        if (self.older_than is None) != self.expired:
            raise ValueError('set exactly one of `older_than` (for example "30d") and `expired = true`')
        if self.older_than is not None and not timedelta(0) < self.older_than <= _LONGEST_AGE:
            raise ValueError("`older_than` must be more than nothing and at most 200 years")
        return self


def run(params: CleanupParams, context: JobContext) -> JsonObject:
    """Delete what the params describe and return how many rows, in how many chunks, and how long the longest took."""
    request = DeleteRequest(
        table=params.table,
        column=params.column,
        age=params.older_than or timedelta(0),
        where=params.where,
        unit=None if params.column_unit is None else TimeFormat(params.column_unit),
        zone=ZoneInfo(params.column_timezone),
        batch_size=params.batch_size,
        target=params.target,
        max_rows=params.max_rows,
        pause=params.pause,
        lock_timeout=params.lock_timeout,
        archive_to=params.archive_to,
        dry_run=params.dry_run,
    )
    return ChunkedDelete(context, context.database(params.database), request).run()


def _check_connected(params: CleanupParams, databases: Mapping[str, Database]) -> list[tuple[str, str]]:
    """Plan the deletion on the real table without deleting anything; raises JobError for what cannot be planned."""
    database = databases.get(params.database)
    if database is None:
        return []
    with database.reading() as connection:
        plan_delete(
            connection,
            table=params.table,
            column=params.column,
            where=params.where,
            unit=None if params.column_unit is None else TimeFormat(params.column_unit),
            zone=ZoneInfo(params.column_timezone),
            cutoff=SystemClock().now() - (params.older_than or timedelta(0)),
            resumed=None,
        )
    return []


def _look(params: CleanupParams, databases: Mapping[str, Database], now: datetime) -> Look:
    database = databases[params.database]
    with looking(database, _LOOK_LIMIT) as connection:
        found = plan_delete(
            connection,
            table=params.table,
            column=params.column,
            where=params.where,
            unit=None if params.column_unit is None else TimeFormat(params.column_unit),
            zone=ZoneInfo(params.column_timezone),
            cutoff=now - (params.older_than or timedelta(0)),
            resumed=None,
        )
        sql = written_out(connection, delete(found.table).where(found.predicate))
        counting = written_out(connection, select(func.count()).select_from(found.table).where(found.predicate))
    looked = LookedAt(
        f"deletes, in transactions of at most {params.batch_size} rows and about "
        f"{params.target.total_seconds() * 1000:g} ms, what this means as a whole",
        params.database,
        sql,
        plain_sql(database.dialect.explain(sql)),
        plain_sql(counting),
        locks_of(database.dialect.name, sql),
    )
    facts = [("older than", f"{found.cutoff:%Y-%m-%d %H:%M:%S}Z"), ("way through the table", found.method)]
    facts += [("rows, estimated", str(found.estimate))] if found.estimate is not None else []
    facts += [("archive", str(params.archive_to))] if params.archive_to else []
    facts += [("dry_run", "true: it would delete nothing")] if params.dry_run else []
    advice = () if found.is_indexed else (index_advice(found.facts, (found.column,)),)
    return Look((looked,), tuple(facts), advice)


KIND = Kind(
    name="cleanup",
    summary="Deletes old or expired rows in short transactions, with an archive if you want one.",
    params=CleanupParams,
    run=run,
    example="""\
[jobs.cleanup-logs]
kind = "cleanup"
schedule = "every day at 03:00"
database = "app"
table = "logs"
column = "created_at"
older_than = "30d"
# where = "level <> 'audit'"
# archive_to = "archive/logs.csv.gz"
""",
    databases=lambda params: [params.database],
    check_connected=_check_connected,
    look=_look,
)
