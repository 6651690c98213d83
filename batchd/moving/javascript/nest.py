"""The names that NestJS has for cron expressions: `CronExpression.EVERY_30_MINUTES`."""

from __future__ import annotations

import re
from typing import Any

from batchd.moving.javascript.values import Unknown

_NAME = re.compile(r"CronExpression\.([A-Z0-9_]+)")
_STEP = re.compile(r"EVERY_(\d{1,2})_(SECONDS|MINUTES|HOURS)")
_TIME = re.compile(r"(.+)_AT_(?:(\d{1,2})(AM|PM)|NOON|MIDNIGHT)")
_STEPS = {"SECONDS": "*/{} * * * * *", "MINUTES": "0 */{} * * * *", "HOURS": "0 0-23/{} * * *"}
_ALWAYS = {
    "EVERY_SECOND": "* * * * * *",
    "EVERY_MINUTE": "*/1 * * * *",
    "EVERY_HOUR": "0 0-23/1 * * *",
    "EVERY_WEEK": "0 0 * * 0",
    "EVERY_WEEKDAY": "0 0 * * 1-5",
    "EVERY_WEEKEND": "0 0 * * 6,0",
    "EVERY_QUARTER": "0 0 1 */3 *",
    "EVERY_6_MONTHS": "0 0 1 */6 *",
    "EVERY_YEAR": "0 0 1 1 *",
}
_DAYS = {
    "EVERY_DAY": "* * *",
    "EVERY_1ST_DAY_OF_MONTH": "1 * *",
    "MONDAY_TO_FRIDAY": "* * 1-5",
}


def named_expression(value: Any) -> Any:
    """Return the expression of a name of NestJS; the value itself when it is none that is known."""
    match = _NAME.fullmatch(value.text.strip()) if isinstance(value, Unknown) else None
    if match is None:
        return value
    name = match[1]
    step, time = _STEP.fullmatch(name), _TIME.fullmatch(name)
    if step is not None:
        return _STEPS[step[2]].format(step[1])
    if time is not None and time[1] in _DAYS:
        return f"0 {_hour(name, time)} {_DAYS[time[1]]}"
    return _ALWAYS.get(name, value)


def _hour(name: str, time: re.Match[str]) -> int:
    if time[2] is None:
        return 12 if name.endswith("NOON") else 0
    return int(time[2]) % 12 + (12 if time[3] == "PM" else 0)
