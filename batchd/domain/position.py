"""A place in the stream of everything that happens, from which a listener goes on.

The stream has two sources that grow: state changes (the outbox) and runs' log lines. A place names how much of each
lies behind it, so whatever lies beyond either number is still to come, in whichever order the two were merged:

    1041-98213      state changes up to 1041 and log lines up to 98213 were had

Progress has no number: it is a state, not an event, and whoever comes back gets the newest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WRITTEN = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)
_HIGHEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """State changes and log lines up to these ids lie behind."""

    changes: int = 0
    lines: int = 0

    def __str__(self) -> str:
        return f"{self.changes}-{self.lines}"

    def is_behind(self, other: Position) -> bool:
        """Whether something may lie between here and there."""
        return self.changes < other.changes or self.lines < other.lines


def parse_position(written: str) -> Position | None:
    """Return the place that `str` of a position names; None for any other text."""
    found = _WRITTEN.fullmatch(written.strip())
    if found is None:
        return None
    changes, lines = int(found[1]), int(found[2])
    return Position(changes, lines) if max(changes, lines) <= _HIGHEST else None
