"""Refused requests in the log: a flood of them must not flood it. The counters in /metrics have every one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from batchd.telemetry.logs import get_logger
from batchd.telemetry.thinning import Thinning

OTHERS = "others"
"""Stands for the addresses that are too many to be told one by one."""

_MOST_TOLD_APART = 100
_OVER_AFTER = timedelta(minutes=1)

log = get_logger()


@dataclass(slots=True)
class _Repeats:
    last_at: float
    told: int = 0
    thinning: Thinning = field(default_factory=Thinning)


class Denials:
    """Tells of refusals by reason and address: the first at once, then ever more rarely with a count, then their end.

    For the server's event loop; `now` is monotonic seconds.
    """

    def __init__(self) -> None:
        self._repeats: dict[tuple[str, str], _Repeats] = {}

    def refused(self, route: str, reason: str, address: str, now: float) -> None:
        """Count a refusal, and tell of it when it is time to; `requests` counts from the first one."""
        if (reason, address) not in self._repeats and len(self._repeats) >= _MOST_TOLD_APART:
            address = OTHERS
        repeats = self._repeats.setdefault((reason, address), _Repeats(now))
        repeats.last_at = now
        if repeats.thinning.failed(now):
            repeats.told = repeats.thinning.count
            log.warning("http.denied", route=route, reason=reason, address=address, requests=repeats.told)

    def tell_ends(self, now: float) -> None:
        """Forget what has not happened for a minute; tell of it when there were more than the log has."""
        for (reason, address), repeats in [*self._repeats.items()]:
            if now - repeats.last_at < _OVER_AFTER.total_seconds():
                continue
            del self._repeats[reason, address]
            if repeats.thinning.count > repeats.told:
                log.info("http.denials_ended", reason=reason, address=address, requests=repeats.thinning.count)
