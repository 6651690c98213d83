"""How far a table that only grows may be read, so that nothing appears later among what was read.

Ids are given out when a row is inserted, and rows are seen when their transaction commits: a row with a lower id may
well appear after one with a higher. A reader that only remembers its last id would then never see it. So whoever reads
such a table in order goes no further than to its horizon:

    1. it notes the newest id that it sees,
    2. then asks which transactions are at work on the table (they keep a lock on it until they are over),
    3. and once all of those have ended, everything up to the noted id is there, or never will be.

A transaction that took an id before step 1 held its lock by then, and lets go of it only when its rows can be seen.
Only writers of the table count: a transaction elsewhere on the server, however long, holds nobody up, as it would with
a comparison of transaction ids (`pg_snapshot_xmin`). And nothing depends on transaction ids, which a dump and restore
into another server does not keep.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, Table, func, select

from batchd.db.dialect import Dialect


class Horizon:
    """Finds out, look by look, up to which id nothing can appear in a table any more. For one thread."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self.settled = 0
        self._table = table
        self._dialect = dialect
        self._newest = 0
        self._open: frozenset[str] = frozenset()

    def look(self, connection: Connection, *, known: int = 0) -> int:
        """Look once; `settled` is what it has come to. Return the newest id that is seen now.

        Where nothing lies beyond `known` no writer is asked for, so an idle look is one read of an index' end. Rows up
        to `settled` are all seen by a transaction that begins after the look.
        """
        newest = int(connection.execute(self._dialect.composed.once(_newest, self._table)).scalar_one())
        if newest <= max(known, self.settled):
            return newest
        still_open = self._dialect.writers(connection, self._table)
        if not self._open & still_open:
            self.settled = max(self.settled, self._newest)
            self._newest, self._open = newest, still_open
        if not self._open & still_open:
            self.settled = self._newest
        return newest


def newest_id(connection: Connection, table: Table) -> int:
    """Return the newest id; 0 when there is none."""
    return int(connection.execute(_newest(table)).scalar_one())


def _newest(table: Table) -> Select[Any]:
    return select(func.coalesce(func.max(table.c.id), 0))
