"""Whether the daemon does its work, judged from outside it: a daemon that is stopped or hangs cannot say so itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from batchd.clock import Clock
from batchd.domain.surface import Phase
from batchd.web.pulse import Beat, Pulse

STALE = timedelta(seconds=20)
"""How old anything may be that happens every 15 s at the latest, so that /readyz turns red within 30 s."""

_SILENT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must go on: its word, whether it does, and how old its last sign is (None: there was none)."""

    name: str
    ok: bool
    age_seconds: float | None


class Health:
    """What is known: `answered` is told of the store's answers, the daemon writes its shared memory itself."""

    def __init__(self, pulse: Pulse, clock: Clock) -> None:
        self._pulse = pulse
        self._clock = clock
        self.store_answered_at: float | None = None

    def answered(self) -> None:
        """Note that the store has just answered."""
        self.store_answered_at = self._clock.monotonic()

    def move(self) -> None:
        """Show the daemon that this server moves."""
        self._pulse.move()

    def beat(self) -> Beat:
        """Return what the daemon told last."""
        return self._pulse.read()

    def checks(self) -> tuple[Check, ...]:
        """Return what is looked at: the daemon itself, its scheduling loop, its leases, the store."""
        beat = self._pulse.read()
        return (
            self._check("daemon", beat.written_at, _SILENT),
            self._check("scheduler", beat.planned_at, STALE),
            self._check("leases", beat.renewed_at, STALE),
            self._check("store", self.store_answered_at or 0.0, STALE),
            Check("serving", beat.phase is Phase.SERVING, None),
        )

    def _check(self, name: str, at: float, limit: timedelta) -> Check:
        if not at:
            return Check(name, ok=False, age_seconds=None)
        age = max(0.0, self._clock.monotonic() - at)
        return Check(name, age <= limit.total_seconds(), round(age, 3))
