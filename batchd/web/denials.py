"""Refused requests in the log: a flood of them must not flood it. The counters in /metrics have every one."""

from __future__ import annotations

from batchd.telemetry.logs import get_logger
from batchd.web.repeats import Repeats

OTHERS = "others"
"""Stands for the addresses that are too many to be told one by one."""

_MOST_TOLD_APART = 100

log = get_logger()


class Denials:
    """Tells of refusals by reason and address. For the server's event loop; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._repeats: Repeats[tuple[str, str]] = Repeats()

    def refused(self, route: str, reason: str, address: str, now: float) -> None:
        """Count a refusal, and tell of it when it is time to; `requests` counts from the first one."""
        if (reason, address) not in self._repeats and len(self._repeats) >= _MOST_TOLD_APART:
            address = OTHERS
        requests = self._repeats.happened((reason, address), now)
        if requests is not None:
            log.warning("http.denied", route=route, reason=reason, address=address, requests=requests)

    def tell_ends(self, now: float) -> None:
        """Tell of floods that are over; the log had only their beginning."""
        for (reason, address), requests in self._repeats.ended(now):
            log.info("http.denials_ended", reason=reason, address=address, requests=requests)
