"""What the tests of cleanup share: a clock that stands still, and short words for running the kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.jobs.kinds.cleanup import KIND
from tests.support.job_context import DirectContext

NOW = datetime(2026, 5, 20, 12, 30, 15, 500_000, tzinfo=UTC)


class FixedClock:
    """A clock that stands still at `NOW`; durations go by."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def context_on(database: Database, **changes: Any) -> DirectContext:
    """A context at `NOW` with the database as "app"."""
    return DirectContext({"app": database}, clock=FixedClock(), **changes)


def clean(database: Database, context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Run cleanup on "app"."""
    filled = {"database": "app", "table": "logs", "column": "at", "pause": "0s"} | params
    if "expired" not in filled:
        filled.setdefault("older_than", "10d")
    return KIND.run(KIND.params.model_validate(filled), context or context_on(database))


def execute(database: Database, *statements: str) -> None:
    """Execute the statements in one transaction."""
    with database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", "\\:")))


def fetch(database: Database, query: str) -> list[Any]:
    """Return the first column of the query's rows."""
    with database.reading() as connection:
        return [row[0] for row in connection.execute(text(query))]


def logs_table(database: Database, rows: int, *, minutes_apart: int = 60, indexed: bool = True) -> None:
    """Make `logs` with ids 1 to `rows`: the first is the newest, one at each step of `minutes_apart` before `NOW`."""
    newest = int(NOW.timestamp() * 1000)
    step = minutes_apart * 60_000
    numbers = (
        f"SELECT n FROM generate_series(1, {rows}) AS n"
        if database.dialect.name == "postgresql"
        else f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s"
    )
    execute(
        database,
        "CREATE TABLE logs (id bigint PRIMARY KEY, at bigint, level text)",
        f"INSERT INTO logs SELECT n, {newest} - (n - 1) * CAST({step} AS bigint), "
        "CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END "
        f"FROM ({numbers}) AS numbers",
    )
    if indexed:
        execute(database, "CREATE INDEX logs_at ON logs (at)")
