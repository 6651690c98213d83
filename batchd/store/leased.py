"""Rows that one daemon at a time holds: a lease that ends by itself, and a fence that grows with each new holder.

The tables have the columns name, worker, lease_until, seen_at and fence; a daemon that was frozen cannot write once
another has taken over, since what it writes asks for its own fence.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, case, or_, update

from batchd.db.dialect import Dialect

LEASE = timedelta(seconds=60)
"""What a daemon that is gone held is taken over by another after so long; a daemon that stops gives it up at once."""


def take(
    connection: Connection, dialect: Dialect, table: Table, name: str, worker: str, *wanted: str
) -> Row[Any] | None:
    """Take the row, or keep it, for one lease, and return its fence and the columns wanted.

    None while another daemon has it, or when there is no such row.
    """
    is_mine = table.c.worker == worker
    is_free = or_(is_mine, table.c.worker.is_(None), table.c.lease_until < dialect.now())
    return connection.execute(
        update(table)
        .where(table.c.name == name, is_free)
        .values(
            worker=worker,
            lease_until=dialect.now_plus(LEASE.total_seconds()),
            seen_at=dialect.now(),
            fence=table.c.fence + case((is_mine, 0), else_=1),
        )
        .returning(table.c.fence, *(table.c[column] for column in wanted))
    ).one_or_none()


def is_held(table: Table, name: str, fence: int) -> ColumnElement[bool]:
    """Return the condition that whoever took the row with that fence still has it."""
    return and_(table.c.name == name, table.c.fence == fence, table.c.worker.is_not(None))
