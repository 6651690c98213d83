"""Where a chunk ends: looked up in the index, or guessed from the last chunk where rows lie evenly.

A look costs a sixth of what the deletion costs, a guess nothing. A guess may be wrong, so whoever works on a guessed
window bounds it: by time, and by the rows that it turns out to have. What goes beyond is rolled back and looked up.
"""

from __future__ import annotations

from sqlalchemy import Connection

from batchd.db.bulk import Walk, Window
from batchd.domain.job import JsonObject

_FEWEST, _MOST = 0.5, 1.5
"""A chunk with about as many rows as it was to have, in parts of them, tells how the next one will be."""

_SHORT = 0.9
"""A guess aims so much lower: half of them have more rows than they aimed at."""

_LONGEST_REST = 64
"""Chunks that are looked up, at the most, after a guess that missed: each miss is work that is done twice."""


class ChunkWindows:
    """The windows of one walk, one after another. With `may_guess`, a window's rows are exactly those of its chunk."""

    def __init__(self, walk: Walk, *, may_guess: bool) -> None:
        self._walk = walk
        self._may_guess = may_guess
        self._last: tuple[JsonObject, int] | None = None
        self._misses = 0
        self._rest = 0

    def guessed(self, position: JsonObject, rows: int) -> Window | None:
        """Return a guess of the next window of `rows` rows, or None."""
        if self._last is None:
            return None
        began, had = self._last
        return self._walk.stride(began, position, rows * _SHORT / had)

    def looked_up(self, connection: Connection, position: JsonObject, rows: int) -> Window | None:
        """Return the next window, of at most `rows` rows; None at the end."""
        return self._walk.next_window(connection, position, rows)

    def took(self, window: Window, began: JsonObject, wanted: int, had: int) -> None:
        """Take note that a chunk of about `wanted` rows, which began at that position, had so many."""
        if window.is_guess:
            self._misses = 0
        self._rest = max(0, self._rest - 1)
        is_even = self._may_guess and not self._rest and wanted * _FEWEST <= had <= wanted * _MOST
        self._last = (began, had) if is_even else None

    def missed(self) -> None:
        """Look the next window up, and after another miss more and more of them."""
        self._misses += 1
        self._rest = min(2**self._misses, _LONGEST_REST)
        self._last = None
