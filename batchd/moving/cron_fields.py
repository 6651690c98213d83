"""The cron fields of other systems, written so that batchd understands the same by them.

They look alike and differ in four points: which days match when both day fields are restricted (either, or only both),
what number a weekday has, whether a range may run over the end (`22-2`, `fri-mon`), and whether seconds come first.

batchd has Debian's rule: either day field is enough, unless one of them begins with a star, then both must match. So
"both" can be written when one of the fields can begin with a star without meaning more (`*/31` is day 1, `*/7` is
Sunday), or when the days are whole weeks of the month (`1#2`, the second Monday). Where none of this goes, the weekday
becomes a `guard`, a test that the command makes itself.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from batchd.domain.schedule import ScheduleError, parse_schedule
from batchd.moving.found import FoundJob

SKIPPED = 99
"""The exit code of a guard that says no; `skip_codes` knows it."""

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WHOLE_WEEKS = tuple(frozenset(range(7 * week + 1, 7 * week + 8)) for week in range(4))
_SPECIAL = re.compile(r"(?i)L|LW|last|-\d+|[0-7a-z]+L|[0-7a-z]+#-?(?:[1-5]|L|last)")
_SAFE_ZONE = re.compile(r"[A-Za-z0-9_+/-]+")


class Days(enum.Enum):
    """When a day matches, if the day of the month and the day of the week are both restricted."""

    EITHER_UNLESS_STAR = enum.auto()
    """Debian's cron: either is enough, unless one of the fields begins with a star."""
    EITHER = enum.auto()
    BOTH = enum.auto()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a system reads cron fields."""

    name: str
    days: Days
    monday_is_zero: bool = False
    january_is_zero: bool = False


@dataclass(slots=True)
class Timing:
    """When a job fires, in batchd's words; `guard` are the weekdays (0: Sunday) that its command must test itself."""

    schedule: str | None
    timezone: str | None = None
    changes: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    guard: frozenset[int] | None = None


class Untranslatable(ValueError):
    """What cannot be written as a schedule; the message says why."""


@dataclass(frozen=True, slots=True)
class _Unit:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_UNITS = (
    _Unit("second", 0, 59),
    _Unit("minute", 0, 59),
    _Unit("hour", 0, 23),
    _Unit("day of the month", 1, 31),
    _Unit("month", 1, 12, _MONTHS),
    _Unit("day of the week", 0, 6, _WEEKDAYS),
)


def translate(text: str, dialect: Dialect, timezone: str | None) -> Timing:
    """Return when 5 fields, or 6 with seconds first, fire in the dialect; raises Untranslatable."""
    parts = text.split()
    if len(parts) not in (5, 6):
        raise Untranslatable(f"{text!r} has {len(parts)} fields; cron has 5, or 6 with seconds")
    units = _UNITS[-len(parts) :]
    written = [_field(part, unit, dialect) for part, unit in zip(parts, units, strict=True)]
    timing = Timing(None, timezone)
    if written != [part if part != "?" else "*" for part in parts]:
        timing.changes.append(f"`{text}` of {dialect.name} is written `{' '.join(written)}`")
    before = " ".join(written)
    written[-3], written[-1] = _days(written[-3], written[-1], dialect, timing)
    if " ".join(written) != before and not timing.guard:
        timing.changes.append(
            f"{dialect.name} reads `{before}` as "
            + ("both days must match" if dialect.days is Days.BOTH else "either day is enough")
            + f"; batchd reads `{' '.join(written)}` so"
        )
    timing.schedule = " ".join(written)
    try:
        parse_schedule(timing.schedule, timezone or "UTC")
    except ScheduleError as error:
        raise Untranslatable(str(error)) from error
    return timing


def apply_timing(job: FoundJob, timing: Timing) -> None:
    """Give the job its schedule, and its command the test that the schedule cannot make."""
    job.changes += timing.changes
    job.checks += timing.checks
    if timing.schedule is not None:
        job.set_schedule(timing.schedule, timing.timezone)
    if timing.guard is None:
        return
    days = ", ".join(_WEEKDAYS[day].capitalize() for day in sorted(timing.guard))
    command = job.settings.get("command")
    zone = timing.timezone or "UTC"
    if not (job.settings.get("shell") and isinstance(command, str) and _SAFE_ZONE.fullmatch(zone)):
        job.disable(f"it is to run on these days of the month only if they are {days}, which no schedule here can say")
        return
    wanted = "|".join(map(str, sorted(timing.guard)))
    test = f'case "$(TZ={zone} date +%w)" in {wanted}) ;; *) exit {SKIPPED} ;; esac'
    job.settings["command"] = type(command)(f"{test}; {command}")
    job.settings["skip_codes"] = [SKIPPED]
    job.changes.append(f"only both days together count ({days}); the command tests the weekday itself")


def as_field(values: frozenset[int], unit_first: int, unit_last: int) -> str:
    """Return the numbers as a cron field, runs of three and more as ranges; all of them as a star."""
    if values >= set(range(unit_first, unit_last + 1)):
        return "*"
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]  # noqa: PLR2004
    return ",".join(part for group in parts for part in group)


def both_days(days: frozenset[int], weekdays: frozenset[int]) -> tuple[str, str] | None:
    """Return the two day fields that mean "both" to batchd; None where there are none."""
    if len(weekdays) == 7 or len(days) == 31:  # noqa: PLR2004 (one of them is not restricted at all)
        return as_field(days, 1, 31), as_field(weekdays, 0, 6)
    weeks = [number for number, week in enumerate(_WHOLE_WEEKS, start=1) if week <= days]
    if weeks and days == frozenset().union(*(_WHOLE_WEEKS[number - 1] for number in weeks)):
        return "*", ",".join(f"{weekday}#{number}" for weekday in sorted(weekdays) for number in weeks)
    if 1 in days:
        rest = as_field(days - {1}, 1, 31)
        return f"*/31,{rest}" if rest else "*/31", as_field(weekdays, 0, 6)
    if 0 in weekdays:
        rest = as_field(weekdays - {0}, 0, 6)
        return as_field(days, 1, 31), f"*/7,{rest}" if rest else "*/7"
    return None


def _days(days: str, weekdays: str, dialect: Dialect, timing: Timing) -> tuple[str, str]:
    """Return the two day fields as batchd must read them."""
    if dialect.days is Days.EITHER_UNLESS_STAR or "*" in (days, weekdays):
        return days, weekdays
    if dialect.days is Days.EITHER:
        return days.replace("*", "1-31"), weekdays.replace("*", "0-6")
    day_set, weekday_set = _numbers(days, _UNITS[3]), _numbers(weekdays, _UNITS[5])
    if weekday_set is None or day_set is None:
        if weekday_set is None:
            raise Untranslatable(f"{dialect.name} wants both days to match, which `{days}` and `{weekdays}` cannot say")
        timing.guard = weekday_set
        return days, "*"
    found = both_days(day_set, weekday_set)
    if found is None:
        timing.guard = weekday_set
        return as_field(day_set, 1, 31), "*"
    return found


def _field(text: str, unit: _Unit, dialect: Dialect) -> str:
    """Return one field as cronsim reads it, unchanged where it may stay."""
    if text in ("*", "?"):
        return "*"
    return ",".join(_term(term, unit, dialect) for term in text.split(","))


def _term(term: str, unit: _Unit, dialect: Dialect) -> str:
    if unit.name.startswith("day") and _SPECIAL.fullmatch(term) and term.lower() not in unit.names:
        return _special(term, unit, dialect)
    base, slash, step = term.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        raise Untranslatable(f"`{term}` is no {unit.name}")
    if base in ("*", "?"):
        return f"*{slash}{step}"
    first, dash, last = base.partition("-")
    low = _number(first, unit, dialect)
    high = _number(last, unit, dialect) if dash else (unit.last if slash else low)
    if dash and last == "7" and unit.names == _WEEKDAYS and not dialect.monday_is_zero:
        high = 7
    if _may_stay(term, unit, dialect) and low <= high and (dash or not slash):
        return term
    if not dash and not slash:
        return str(low)
    span = range(low, high + 1) if low <= high else [*range(low, unit.last + 1), *range(unit.first, high + 1)]
    values = [*span][:: int(step or 1)]
    return as_field(frozenset(value % 7 if unit.names == _WEEKDAYS else value for value in values), 0, 99)


def _may_stay(term: str, unit: _Unit, dialect: Dialect) -> bool:
    renumbered = (dialect.monday_is_zero and unit.names == _WEEKDAYS) or (
        dialect.january_is_zero and unit.names == _MONTHS
    )
    has_long_name = any(len(word) > 3 for word in re.findall(r"[A-Za-z]+", term))  # noqa: PLR2004
    return not (renumbered and re.search(r"\d", term)) and not has_long_name and "24" not in term.split("-")


def _number(word: str, unit: _Unit, dialect: Dialect) -> int:
    if word.isascii() and word.isdecimal() and len(word) <= 4:  # noqa: PLR2004 (longer ones are no time of any kind)
        return _renumbered(int(word), word, unit, dialect)
    short = word[:3].lower()
    if unit.names and short in unit.names and _is_name(word.lower(), unit):
        return unit.names.index(short) + unit.first
    raise Untranslatable(f"`{word}` is no {unit.name}")


def _renumbered(number: int, word: str, unit: _Unit, dialect: Dialect) -> int:
    if unit.names == _WEEKDAYS:
        if number <= 6 and dialect.monday_is_zero:  # noqa: PLR2004
            return (number + 1) % 7
        number = 0 if number == 7 and not dialect.monday_is_zero else number  # noqa: PLR2004
    if unit.names == _MONTHS and dialect.january_is_zero:
        number += 1
    if unit.name == "hour" and number == 24:  # noqa: PLR2004
        number = 0
    if not unit.first <= number <= unit.last:
        raise Untranslatable(f"`{word}` is no {unit.name}")
    return number


def _is_name(word: str, unit: _Unit) -> bool:
    ends = ("day", "sday", "nesday", "rsday", "urday", "") if unit.names == _WEEKDAYS else None
    return word[3:] in ends if ends is not None else word.isalpha()


def _special(term: str, unit: _Unit, dialect: Dialect) -> str:
    """Return `L`, `5L`, `mon#2` and their spellings."""
    lowered = term.lower()
    if unit.names != _WEEKDAYS:
        if lowered in {"l", "last", "-1"}:
            return "L"
        if lowered == "lw":
            return "LW"
        if term.isdecimal():
            return term
        raise Untranslatable(f"`{term}`: batchd counts only the last day from the end of a month")
    if lowered in {"l", "last"}:
        return "6"
    day, _, nth = lowered.partition("#")
    if nth:
        number = _number(day, unit, dialect)
        if nth in {"-1", "l", "last"}:
            return f"{number}L"
        if nth.startswith("-"):
            raise Untranslatable(f"`{term}`: batchd counts weekdays from the start of a month, or takes the last")
        return f"{number}#{nth}"
    if lowered.endswith("l") and len(lowered) > 1:
        return f"{_number(lowered[:-1], unit, dialect)}L"
    raise Untranslatable(f"`{term}` is no {unit.name}")


def _numbers(written: str, unit: _Unit) -> frozenset[int] | None:
    """Return the numbers of a field that `_field` has written; None when it has an `L` or a `#`."""
    found: set[int] = set()
    plain = Dialect("", Days.EITHER)
    for term in written.split(","):
        base, _, step = term.partition("/")
        if base == "*":
            found.update(range(unit.first, unit.last + 1, int(step or 1)))
            continue
        first, dash, last = base.partition("-")
        try:
            low = _number(first, unit, plain)
            high = (
                7 if dash and last == "7" and unit.names == _WEEKDAYS else _number(last, unit, plain) if dash else low
            )
        except Untranslatable:
            return None
        found.update(value % 7 if unit.names == _WEEKDAYS else value for value in range(low, high + 1, int(step or 1)))
    return frozenset(found)
