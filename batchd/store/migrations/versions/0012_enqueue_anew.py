"""Version 12: `batchd_enqueue` is made from one source, whatever version of it a store has had.

Version 3 made it, and what it made was changed in place: a store kept what its batchd had made. From here on the files
beside this one stay as they are, and a change is a version of its own.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

_SQL = Path(__file__).parents[1] / "sql"
_STATEMENTS = {
    "postgresql": ["enqueue_outdated", "enqueue_rows", "enqueue_many", "enqueue", "enqueue_schema"],
    "sqlite": ["enqueue_outdated", "enqueue_view", "enqueue_trigger"],
}


def upgrade() -> None:
    """Make or replace the functions, on SQLite the view and its trigger; rights that were granted on them stay."""
    dialect = op.get_context().dialect.name
    for name in _STATEMENTS[dialect]:
        statement = (_SQL / f"0012_{name}.{dialect}.sql").read_text(encoding="utf-8")
        op.execute(statement.strip().replace(":", "\\:"))  # a colon would begin a bound parameter
