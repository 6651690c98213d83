"""What a schedule means, in words."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim, CronSimError

from batchd.domain.schedule import NICKNAMES

_A_MOMENT = datetime(2000, 1, 1)  # noqa: DTZ001 (a wall clock, of no zone)


def in_words(schedule: object, timezone: object = None) -> str:
    """Return a sentence without its full stop: "at 03:15 every day, Europe/Berlin"."""
    if not isinstance(schedule, str):
        return "only when triggered"
    zone = f", {timezone}" if timezone else ""
    fields = NICKNAMES.get(schedule.lower(), schedule)
    if fields.lower() == "@reboot":
        return "once at each start of the daemon"
    try:
        said = CronSim(fields, _A_MOMENT).explain()
    except (CronSimError, ValueError, IndexError, KeyError):
        return f"{schedule}{zone}"
    return f"{said[:1].lower()}{said[1:]}{zone}"
