"""How many rows the next chunk takes, so that a chunk takes about as long as it should."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

_FASTEST_GROWTH = 1.6
_FAR = 4
_GROWTH_FROM_AFAR = 3.0
"""For a chunk that took less than a quarter of what it may: three times as many rows still take less than that."""

_SLOWEST_SHRINK = 0.25
_AIM = 0.85
"""Grow towards this fraction of the target: times scatter, and too long a chunk costs others more than a short one."""


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """A number of rows within its bounds. It grows carefully and shrinks at once."""

    rows: int
    smallest: int
    largest: int
    target: timedelta

    def after(self, took: timedelta, rows: int) -> ChunkSize:
        """Return the size for the chunk after one of `rows` rows that took `took`."""
        factor = self.target * _AIM / max(took, timedelta(microseconds=1))
        if factor > 1 and rows < self.rows:
            return self  # a chunk that was not full says little about a full one
        fastest = _GROWTH_FROM_AFAR if factor >= _FAR else _FASTEST_GROWTH
        return self._of(self.rows * min(fastest, max(_SLOWEST_SHRINK, factor)))

    def halved(self) -> ChunkSize:
        """Return half the size, for a chunk that met a lock."""
        return self._of(self.rows / 2)

    def _of(self, rows: float) -> ChunkSize:
        return replace(self, rows=max(self.smallest, min(self.largest, round(rows))))
