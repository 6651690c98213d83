"""Short words for running the kind `sync` on a table of users."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.jobs.kinds.sync import KIND
from tests.support.cleaning import execute
from tests.support.job_context import DirectContext

FIELDS = {"id": "id", "name": "name", "email": "contact.email", "score": "score"}


def users_table(database: Database, further: str = "") -> None:
    """Make `users` with a key, a text that must be there, one of limited length, and a decimal number."""
    execute(
        database,
        "CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL, email varchar(40), "
        f"score numeric(10, 2){further})",
    )


def user(number: int, **changes: Any) -> dict[str, Any]:
    """A record of the API."""
    return {
        "id": number,
        "name": f"user {number}",
        "contact": {"email": f"user{number}@example.org"},
        "score": number / 4,
    } | changes


def sync(database: Database, context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Run sync on "app"."""
    filled = {"database": "app", "table": "users", "key": ["id"], "fields": FIELDS, "request_timeout": "2s"} | params
    return KIND.run(KIND.params.model_validate(filled), context or DirectContext({"app": database}))


def rows(database: Database, query: str = "SELECT id, name, email, score FROM users ORDER BY id") -> list[Any]:
    """Return the rows of the query, numbers as floats."""
    with database.reading() as connection:
        return [
            tuple(float(value) if hasattr(value, "as_tuple") else value for value in row)
            for row in connection.execute(text(query))
        ]


def expected(records: list[dict[str, Any]]) -> list[Any]:
    """Return what the table should hold for records of the API."""
    return sorted((r["id"], r["name"], r["contact"]["email"], r["score"]) for r in records)
