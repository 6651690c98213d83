"""What the tests of csv_import share: a table of users, files, and short words for running the kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.jobs.kinds.csv_import import KIND
from tests.support.cleaning import execute
from tests.support.job_context import DirectContext

HEADER = "email,name,age,born\n"


def users_table(database: Database, *, key: bool = True) -> None:
    """Make `users` with a unique e-mail address, or without any key at all."""
    execute(
        database,
        f"CREATE TABLE users (email varchar(40) NOT NULL {'UNIQUE' if key else ''}, name text, age integer, born date)",
    )


def lines(numbers: Iterable[int]) -> str:
    """Return one record for each number."""
    return "".join(f"u{n}@example.org,User {n},{n % 90 + 1},2001-02-28\n" for n in numbers)


def load(database: Database, path: Path | str, context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Run csv_import on "app"."""
    filled = {"database": "app", "table": "users", "path": str(path)} | params
    return KIND.run(KIND.params.model_validate(filled), context or DirectContext({"app": database}))


def load_text(database: Database, folder: Path, content: str | bytes, **params: Any) -> JsonObject:
    """Run csv_import on a file of that content."""
    path = folder / "users.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(database, path, **params)


def rows(database: Database, query: str = "SELECT email, name, age, CAST(born AS text) FROM users ORDER BY 1") -> Any:
    """Return the query's rows as tuples."""
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def counts(result: JsonObject, names: Sequence[str] = ("inserted", "updated", "skipped", "rejected")) -> list[Any]:
    """Return some of the result's numbers."""
    return [result[name] for name in names]
