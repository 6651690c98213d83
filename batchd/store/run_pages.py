"""One run for its page: itself, its attempts, and its log lines with their ids, perhaps only those that hold a text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select

from batchd.db.engine import Database
from batchd.store import queries
from batchd.store.queries import RunDetail
from batchd.store.schema import log_lines

MOST_LINES = 1_000


@dataclass(frozen=True, slots=True)
class PageLine:
    """One row of `batchd_log_lines`; `message` is text that a job wrote."""

    id: int
    at: datetime
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class RunPageDetail:
    """A run and its last log lines, oldest first."""

    detail: RunDetail
    lines: tuple[PageLine, ...]


def run_page_detail(store: Database, run_id: int, *, search: str = "") -> RunPageDetail | None:
    """Return the run, or None when there is none of that id; `search` in any case, in messages and levels."""
    detail = queries.run_detail(store, run_id, lines=0)
    if detail is None:
        return None
    columns = [log_lines.c[name] for name in ("id", "at", "level", "message")]
    statement = select(*columns).where(log_lines.c.run_id == run_id)
    if search:
        wanted = search.lower()
        statement = statement.where(
            or_(
                func.lower(log_lines.c.message).contains(wanted, autoescape=True),
                func.lower(log_lines.c.level).contains(wanted, autoescape=True),
            )
        )
    with store.reading() as connection:
        rows = connection.execute(statement.order_by(log_lines.c.id.desc()).limit(MOST_LINES)).mappings()
        newest_first = [PageLine(**row) for row in rows]
    return RunPageDetail(detail, tuple(reversed(newest_first)))
