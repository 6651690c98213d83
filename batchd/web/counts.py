"""What the server counts of itself. For its event loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Requests by route and status, refusals by reason, who follows events and who waits for a run now."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    denied: Counter[str] = field(default_factory=Counter)
    listeners: int = 0
    waiting: int = 0
