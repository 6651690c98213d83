"""fugit's schedules, which Sidekiq's schedulers, Solid Queue and GoodJob read: cron with a zone, words, durations."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta

from batchd.domain.quantities import format_duration
from batchd.domain.schedule import ScheduleError, zone_named
from batchd.moving.cron_fields import Days, Dialect, Timing, Untranslatable, translate

DIALECT = Dialect("fugit", Days.EITHER)

_NAMED = re.compile(r"@(?:hourly|daily|midnight|noon|weekly|monthly|yearly|annually)")
_NUMBERS = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
            "twenty-one",
            "twenty-two",
            "twenty-three",
        ]
    )
}
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "tenth": 10,
    "last": 0,
}
_UNITS = {
    "s": "second", "sec": "second", "secs": "second", "second": "second", "seconds": "second",
    "m": "minute", "min": "minute", "mins": "minute", "minute": "minute", "minutes": "minute",
    "h": "hour", "hou": "hour", "hour": "hour", "hours": "hour",
    "d": "day", "day": "day", "days": "day",
    "w": "week", "week": "week", "weeks": "week",
    "month": "month", "months": "month", "mon": "month",
    "y": "year", "year": "year", "years": "year",
}  # fmt: skip
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY = r"(?:sun|mon|tue|wed|thu|fri|sat)(?:day|sday|nesday|rsday|urday)?s?"
_TIME = (
    r"(?:(?P<h>\d{1,2})(?::(?P<m>\d{2}))?(?::\d{2})?\s*(?P<half>am|pm|noon|midday|midnight)?"
    r"|(?P<word>noon|midday|midnight))"
)
_SECONDS = {"y": 31_536_000, "M": 2_592_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(y|M|w|d|h|m|s)")
_CLOCK = re.compile(_TIME, re.IGNORECASE)
_ZONE = re.compile(r"(?:\s+(?:in|on))?\s+([A-Za-z]+/[A-Za-z_/+-]+\d*|UTC|GMT|Z|Zulu)$")


@dataclass(slots=True)
class _Words:
    """What the words have said so far."""

    unit: str = ""
    count: int = 1
    weekdays: str = ""
    days: list[str] = field(default_factory=list)
    times: list[tuple[int, int]] = field(default_factory=list)
    points: dict[str, list[int]] = field(default_factory=dict)
    """`at minute 50`, `at second 10`: by unit."""
    span: tuple[int, int] | None = None
    """`8am to 5pm`."""


def fugit_timing(text: str, timezone: str) -> Timing:
    """Return when the text fires; `timezone` counts when it names none. Raises Untranslatable."""
    clean = " ".join(text.split())
    zone, body = timezone, clean
    match = _ZONE.search(clean)
    if match:
        zone, body = _zone(match[1]), clean[: match.start()]
    if _NAMED.fullmatch(body.lower()):
        return Timing("0 12 * * *" if body.lower() == "@noon" else body.lower(), zone)
    if re.match(r"[\d*]", body) and len(body.split()) in (5, 6) and not re.search(r"\bat\b|\bevery\b", body):
        return _cron(body, zone)
    span = duration(body)
    if span is not None:
        return Timing(f"every {format_duration(span)}")
    timing = translate(_cron_of_words(body), DIALECT, zone)
    timing.changes = [f'fugit reads "{clean}" as `{timing.schedule}`']
    return timing


def duration(text: str) -> timedelta | None:
    """Return a duration such as `1h30m`, `90s` or `2 hours`; None when it is none."""
    spelled = re.sub(
        r"\s*(second|minute|hour|day|week|month|year)s?\b",
        lambda unit: {"month": "M"}.get(unit[1], unit[1][0]),
        text.strip().removeprefix("every ").strip(),
    )
    if text.strip().startswith("every ") or not spelled or _DURATION.sub("", spelled).strip():
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(spelled))
    try:
        return timedelta(seconds=seconds) if seconds >= 1 else None
    except OverflowError:
        return None


def _cron(text: str, zone: str) -> Timing:
    if "&" in text:
        both = Dialect("fugit", Days.BOTH)
        return translate(text.replace("&", ""), both, zone)
    if "%" in text:
        raise Untranslatable(f"`{text}` counts weeks (%), which batchd does not")
    return translate(text, DIALECT, zone)


def _zone(name: str) -> str:
    name = "UTC" if name in {"Z", "Zulu", "GMT"} else name
    try:
        zone_named(name)
    except ScheduleError as error:
        raise Untranslatable(str(error)) from error
    return name


def _cron_of_words(text: str) -> str:
    said = _Words()
    rest = re.sub(r"\b(\d+)M\b", r"\1 months", text).lower().replace(",", " , ")
    rest = re.sub(r"\bfrom\b", "every", rest, count=1) if rest.startswith("from ") else rest
    for word, number in sorted(_NUMBERS.items(), key=lambda pair: -len(pair[0])):
        rest = re.sub(rf"\b{word}\b(?! of the)", str(number), rest)
    for take in (_take_range, _take_span, _take_days, _take_weekdays, _take_points, _take_interval, _take_times):
        rest = take(rest, said)
    left = re.sub(r"\b(every|each|on|at|the|and|or|day|days|o'?clock)\b|,", " ", rest).split()
    if left or not (said.unit or said.weekdays or said.days or said.times or said.points):
        raise Untranslatable(f"batchd cannot read {' '.join(left)!r} in {text!r}")
    return _fields(said, text)


def _take_range(rest: str, said: _Words) -> str:
    match = re.search(rf"\b({_DAY})\s*(?:to|through|-)\s*({_DAY})\b", rest)
    if not match:
        return rest
    low, high = (_DAYS.index(match[group][:3]) for group in (1, 2))
    said.weekdays = f"{low}-{high}" if low <= high else ",".join(str(day % 7) for day in range(low, high + 8))
    return rest.replace(match.group(), " ", 1)


def _take_span(rest: str, said: _Words) -> str:
    match = re.search(r"(?:\bfrom\s+)?\b(\d{1,2})\s*(am|pm)\s*(?:to|through|-)\s*(\d{1,2})\s*(am|pm)\b", rest)
    if not match:
        return rest
    if "on the minute" in rest:
        said.unit = "minute"
    rest = re.sub(r"\bon the (hour|minute)\b", " ", rest)
    first, last = (int(match[group]) % 12 + 12 * (match[group + 1] == "pm") for group in (1, 3))
    if first >= last:
        raise Untranslatable(f"{match.group()!r} goes over midnight")
    said.span = (first, last)
    return rest.replace(match.group(), " ", 1)


def _take_days(rest: str, said: _Words) -> str:
    ordinal = rf"(?:\d{{1,2}}(?:st|nd|rd|th)|{'|'.join(_ORDINALS)})"
    pattern = re.compile(
        rf"(?:every\s+month\s+)?on\s+(?:the\s+)?(?P<on>{ordinal}(?:\s*(?:,|and|or)\s*(?:the\s+)?{ordinal})*)"
        rf"|(?P<of>{ordinal}(?:\s*(?:,|and)\s*(?:the\s+)?{ordinal})*)\s+(?:day\s+)?of\s+(?:the|each|every)\s+month"
        r"|(?:every\s+month\s+)?on\s+days?\s+(?P<day>\d{1,2}(?:\s*(?:,|and)\s*\d{1,2})*)"
    )
    match = pattern.search(rest)
    if match:
        listed = match["on"] or match["of"] or match["day"]
        for word in re.findall(rf"{ordinal}|\d+", listed):
            number = _ORDINALS.get(word, 0) if word in _ORDINALS else int(re.sub(r"\D", "", word))
            said.days.append("L" if word == "last" else str(number))
        return rest.replace(match.group(), " ", 1)
    return rest


def _take_weekdays(rest: str, said: _Words) -> str:
    for word, written in (("weekdays?", "1-5"), ("weekends?", "0,6")):
        if re.search(rf"\b{word}\b", rest):
            said.weekdays = written
            return re.sub(rf"\b{word}\b", " ", rest)
    if said.weekdays:
        return rest
    found = re.findall(rf"\b{_DAY}\b", rest)
    if found:
        said.weekdays = ",".join(map(str, sorted({_DAYS.index(day[:3]) for day in found})))
    return re.sub(rf"\b{_DAY}\b", " ", rest)


def _take_points(rest: str, said: _Words) -> str:
    pattern = re.compile(r"\bat\s+(second|sec|minute|min)s?\s+(\d{1,2}(?:\s*(?:,|and)\s*\d{1,2})*)")
    for match in pattern.finditer(rest):
        said.points[_UNITS[match[1]]] = [int(number) for number in re.findall(r"\d+", match[2])]
    return pattern.sub(" ", rest)


def _take_interval(rest: str, said: _Words) -> str:
    match = re.search(r"\bevery\s+(\d+)\s*([a-z]+)\b", rest) or re.search(r"\bevery\s+()([a-z]+)\b", rest)
    if not match or match[2] not in _UNITS:
        return rest
    said.unit, said.count = _UNITS[match[2]], int(match[1] or 1)
    if said.count < 1:
        raise Untranslatable("every 0 of anything is never")
    return rest.replace(match.group(), " ", 1)


def _take_times(rest: str, said: _Words) -> str:
    def one(match: re.Match[str]) -> str:
        if match["word"]:
            said.times.append((0 if match["word"] == "midnight" else 12, 0))
            return " "
        hour, minute = int(match["h"]), int(match["m"] or 0)
        half = match["half"] or ""
        if half in {"pm", "noon", "midday"} and hour < 12:  # noqa: PLR2004
            hour += 12
        elif half in {"am", "midnight"} and hour == 12:  # noqa: PLR2004
            hour = 0
        if hour > 24 or minute > 59:  # noqa: PLR2004
            raise Untranslatable(f"{match.group()!r} is no time of day")
        said.times.append((hour % 24, minute))
        return " "

    return _CLOCK.sub(one, rest)


def _fields(said: _Words, text: str) -> str:
    """Return the cron fields, with seconds only where they count."""
    step = "*" if said.count == 1 else f"*/{said.count}"
    seconds = ",".join(map(str, said.points.get("second", ())))
    minutes = ",".join(map(str, said.points.get("minute", ())))
    if said.span:
        first, last = said.span
        if said.unit == "minute":
            return f"{step} {first}-{last - 1} * * {said.weekdays or '*'}"
        return (
            f"{minutes or '0'} {first}-{last}{'' if said.count == 1 else f'/{said.count}'} * * {said.weekdays or '*'}"
        )
    if said.unit == "second":
        return f"{step} * * * * *"
    if said.unit == "minute" and not said.times:
        return f"{seconds} {step} * * * {said.weekdays or '*'}".strip()
    if said.unit == "hour" and not said.times:
        return f"{minutes or '0'} {step} * * {said.weekdays or '*'}"
    minute, hour = _clock(said.times or [(0, 0)], text)
    if said.unit == "week" and said.count > 1:
        raise Untranslatable(
            f"{text!r} counts weeks, which batchd does not; `every {said.count * 7} days at …` comes near"
        )
    days = ",".join(said.days) or (step if said.unit == "day" and said.count > 1 else "*")
    months, weekdays = "*", said.weekdays or ("0" if said.unit == "week" else "*")
    if said.unit in {"month", "year"} and not said.days:
        days = "1"
    if said.unit == "month" and said.count > 1:
        months = step
    if said.unit == "year":
        months = "1"
    return f"{minute} {hour} {days} {months} {weekdays}"


def _clock(times: list[tuple[int, int]], text: str) -> tuple[str, str]:
    hours = sorted({hour for hour, _ in times})
    minutes = sorted({minute for _, minute in times})
    if len(hours) * len(minutes) != len(set(times)):
        raise Untranslatable(f"{text!r} has times that need two schedules; make two jobs of it")
    return ",".join(map(str, minutes)), ",".join(map(str, hours))
