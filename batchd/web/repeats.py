"""What happens again and again, told the first time, then ever more rarely with a count, then its end."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from batchd.telemetry.thinning import Thinning

_OVER_AFTER = timedelta(minutes=1)

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class _Repeat:
    last_at: float
    told: int = 0
    thinning: Thinning = field(default_factory=Thinning)


class Repeats(Generic[Key]):
    """Counts by a key. For the server's event loop; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._known: dict[Key, _Repeat] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def happened(self, key: Key, now: float) -> int | None:
        """Count it; return how often it was since the first time when it is time to tell of it, else None."""
        repeat = self._known.setdefault(key, _Repeat(now))
        repeat.last_at = now
        if not repeat.thinning.failed(now):
            return None
        repeat.told = repeat.thinning.count
        return repeat.told

    def ended(self, now: float) -> list[tuple[Key, int]]:
        """Forget what has not happened for a minute; return what was more often than told, and how often."""
        over = [(key, each) for key, each in self._known.items() if now - each.last_at >= _OVER_AFTER.total_seconds()]
        for key, _ in over:
            del self._known[key]
        return [(key, each.thinning.count) for key, each in over if each.thinning.count > each.told]
