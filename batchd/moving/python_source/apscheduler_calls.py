"""APScheduler 3 in Python source: add_job, scheduled_job and the triggers that they name."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from batchd.domain.quantities import format_duration
from batchd.domain.schedule import ScheduleError, zone_named
from batchd.moving.commands import ONCE, run_in, shell_settings
from batchd.moving.cron_fields import Days, Dialect, Timing, Untranslatable, apply_timing, translate
from batchd.moving.found import Findings, FoundJob, Options, Place, Source, paragraphs
from batchd.moving.python_source.celery import span_of
from batchd.moving.python_source.literals import CallValue, Module, Unknown, dotted, read_module, walk
from batchd.moving.words import in_words

SYSTEM = "APScheduler"
DIALECT = Dialect("APScheduler", Days.BOTH, monday_is_zero=True)

_FIELDS = ("year", "month", "day", "week", "day_of_week", "hour", "minute", "second")
_DEFAULTS = {
    "year": "*",
    "month": "1",
    "day": "1",
    "week": "*",
    "day_of_week": "*",
    "hour": "0",
    "minute": "0",
    "second": "0",
}
_SPANS = ("weeks", "days", "hours", "minutes", "seconds")
_TRIGGERS = {"CronTrigger": "cron", "IntervalTrigger": "interval", "DateTrigger": "date"}
_JOB_OPTIONS = frozenset(
    {"func", "trigger", "id", "name", "args", "kwargs", "misfire_grace_time", "coalesce", "max_instances", "jobstore",
     "executor", "replace_existing"}
)  # fmt: skip
_TRIGGER_OPTIONS = frozenset({*_FIELDS, *_SPANS, "timezone", "jitter", "run_date", "start_date", "end_date"})
_ORDINALS = {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "last": 0}
_ORDINAL_DAY = re.compile(r"(1st|2nd|3rd|4th|5th|last)\s+([a-z]{3})[a-z]*")
_REMARKS = paragraphs("""
Weekdays are numbered from Monday (0) in APScheduler and from Sunday in batchd; a day and a weekday must both match.
The schedules are written so that they mean the same.

Fields after the last one that is named are 0 (or 1), those before it `*`: `hour=3` is 03:00:00.

Each job runs a Python of its own (`python -c`), in the daemon's PATH; name the one of your environment. To have
batchd call the function, use the lines below the job (kind python).

A job in memory is lost with its process, and what is more than `misfire_grace_time` late (1 s unless set) is
dropped; batchd keeps both (`catch_up`).
""")


def read_apscheduler(source: Source, options: Options, findings: Findings) -> None:
    """Add the jobs that a source schedules; raises UsageError when it is no Python."""
    module = read_module(source)
    findings.remark(SYSTEM, *_REMARKS)
    scheduler = _scheduler(module)
    zone = _zone(scheduler.get("timezone")) or options.timezone
    if "timezone" in scheduler and _zone(scheduler["timezone"]) is None:
        said = f"CHECK: only running it could tell the scheduler's zone, `{_written(scheduler['timezone'])}`"
        findings.remark(SYSTEM, f"{said}; written with {options.timezone}")
    defaults = scheduler.get("job_defaults", {})
    if not isinstance(defaults, dict):
        findings.remark(SYSTEM, f"CHECK: only running it could tell what `job_defaults` are: `{_written(defaults)}`")
        defaults = {}
    for call, function, node in _calls(module):
        place = Place(source.name, node.lineno)
        findings.add(_job(module, call, function, place, zone, options, defaults))


def has_jobs(text: str) -> bool:
    """Return whether a source looks like one that schedules with APScheduler."""
    return re.search(r"\bapscheduler\b|\.scheduled_job\(", text) is not None


def _job(
    module: Module,
    call: CallValue,
    function: Any,
    place: Place,
    zone: str,
    options: Options,
    defaults: dict[str, Any],
) -> FoundJob:
    given = {**defaults, **call.options}
    more = given.pop("**", None)
    positional = list(call.args if call.name == "scheduled_job" else call.args[1:])
    trigger = given.get("trigger", positional[0] if positional else None)
    reference = _reference(module, function)
    job_id = given.get("id", given.get("name"))
    name = job_id if isinstance(job_id, str) else reference.rpartition(":")[2] or "job"
    settings = shell_settings("")
    job = FoundJob(place, name, call.text, "", settings, above=module.comments_above(place.line))
    job.settings["command"] = _command(job, reference, given)
    if options.app_dir:
        run_in(job, options.app_dir, options)
    if more is None:
        try:
            apply_timing(job, _timing(trigger, given, zone, job))
        except Untranslatable as error:
            job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
    else:
        job.disable(f"only running it could tell what `**{_written(more)}` says of its times and the rest")
    _set_rest(job, given)
    when = in_words(job.settings.get("schedule"), job.settings.get("timezone"))
    job.meaning = f"{when}; calls {reference or _written(function)}"
    return job


def _command(job: FoundJob, reference: str, given: dict[str, Any]) -> str:
    module, _, function = reference.partition(":")
    args, kwargs = given.get("args", []), given.get("kwargs", {})
    if not reference:
        job.disable("only running it could tell which function it calls")
        module, function = "app.jobs", "unknown"
    if not (_is_literal(args) and _is_literal(kwargs)):
        job.disable("only running it could tell its arguments")
        args, kwargs = [], {}
    listed = args if isinstance(args, list) else [args]
    named = kwargs if isinstance(kwargs, dict) else {}
    written = ", ".join([*map(repr, listed), *(f"{key}={value!r}" for key, value in named.items())])
    first = function.partition(".")[0]
    job.commented += [
        "instead of kind, command and shell, to have batchd call it:",
        'kind = "python"',
        f'target = "{module}:{function}"',
    ]
    return f"python -c {shlex.quote(f'from {module} import {first}; {function}({written})')}"


def _timing(trigger: Any, given: dict[str, Any], zone: str, job: FoundJob) -> Timing:
    if isinstance(trigger, CallValue):
        if trigger.name == "from_crontab" and trigger.args and isinstance(trigger.args[0], str):
            zone = _zone(trigger.options.get("timezone", trigger.args[1] if len(trigger.args) > 1 else None)) or zone
            job.checks.append(
                "from_crontab numbers weekdays from Monday too (0), as APScheduler 3 does, unlike a crontab"
            )
            return translate(trigger.args[0], DIALECT, zone)
        if trigger.name not in _TRIGGERS:
            raise Untranslatable(f"only running it could tell what `{trigger.text}` is")
        given, trigger = {**trigger.options, **_positional(trigger)}, _TRIGGERS[trigger.name]
    zone = _zone(given.get("timezone")) or zone
    for key in ("start_date", "end_date"):
        if given.get(key) is not None:
            job.checks.append(f"`{key}={_written(given[key])}`: batchd has no first or last day of a schedule")
    jitter = given.get("jitter")
    if isinstance(jitter, int | float) and not isinstance(jitter, bool) and 0 < jitter < 10**6:
        job.settings["jitter"] = format_duration(timedelta(seconds=jitter))
    return _of_kind(trigger, given, zone)


def _of_kind(trigger: Any, given: dict[str, Any], zone: str) -> Timing:
    match trigger:
        case "cron":
            return _cron(given, zone)
        case "interval":
            spans = {key: given[key] for key in _SPANS if key in given}
            span = span_of(CallValue("timedelta", "timedelta", (), spans, f"interval, {spans}"))
            if span < timedelta(seconds=1):
                raise Untranslatable("batchd fires once a second at most")
            timing = Timing(f"every {format_duration(span)}")
            timing.changes.append("it counts from the start of its scheduler; batchd from fixed times")
            return timing
        case "date" | None:
            return _date(given.get("run_date"), zone)
    raise Untranslatable(f"only running it could tell what the trigger `{_written(trigger)}` is")


def _positional(trigger: CallValue) -> dict[str, Any]:
    names = _FIELDS if trigger.name == "CronTrigger" else ("run_date",) if trigger.name == "DateTrigger" else _SPANS
    return dict(zip(names, trigger.args, strict=False))


def _cron(given: dict[str, Any], zone: str) -> Timing:
    named = [key for key in _FIELDS if given.get(key) is not None]
    last = _FIELDS.index(named[-1]) if named else -1
    fields: dict[str, str] = {}
    for position, key in enumerate(_FIELDS):
        value = given.get(key)
        if value is None:
            fields[key] = _DEFAULTS[key] if position > last else "*"
        elif isinstance(value, bool) or not isinstance(value, int | str):
            raise Untranslatable(f"only running it could tell `{key}={_written(value)}`")
        else:
            fields[key] = str(value).lower().strip()
    if fields["week"] != "*" or fields["year"] != "*":
        raise Untranslatable("it names a year or a week of the year, which no schedule of batchd can")
    day, weekday = _day(fields["day"], fields["day_of_week"])
    text = " ".join(["".join(fields[key].split()) for key in ("second", "minute", "hour")])
    return translate(f"{text} {day} {''.join(fields['month'].split())} {weekday}".removeprefix("0 "), DIALECT, zone)


def _day(day: str, weekday: str) -> tuple[str, str]:
    """Return the day fields; `2nd fri` and `last sun` are a day of the month there, a weekday here."""
    ordinals = [_ORDINAL_DAY.fullmatch(part.strip()) for part in day.split(",")]
    if all(ordinals) and weekday == "*":
        parts = [f"{match[2]}{'L' if match[1] == 'last' else f'#{_ORDINALS[match[1]]}'}" for match in ordinals if match]
        return "*", ",".join(parts)
    if any(ordinals):
        raise Untranslatable(f"`day={day}` beside other days is more than a schedule of batchd can say")
    return "".join(day.split()), "".join(weekday.split())


def _date(value: Any, zone: str) -> Timing:
    text = value
    if value is None:
        raise Untranslatable("it runs once, as soon as the scheduler starts")
    if (
        isinstance(value, CallValue)
        and value.name in {"datetime", "date"}
        and all(isinstance(each, int) for each in value.args)
    ):
        try:
            text = datetime(*value.args).isoformat()  # noqa: DTZ001 (its zone is said beside it)
        except (TypeError, ValueError, OverflowError):
            text = None
    if not isinstance(text, str):
        raise Untranslatable(f"it runs once, at `{_written(value)}`, which only running it could tell")
    return Timing(f"at {text.strip().replace(' ', 'T')}", zone)


def _set_rest(job: FoundJob, given: dict[str, Any]) -> None:
    grace = given.get("misfire_grace_time")
    if isinstance(grace, int | float) and not isinstance(grace, bool) and 0 < grace < 10**9:
        job.settings["start_deadline"] = format_duration(timedelta(seconds=grace))
        job.settings["catch_up"] = "once" if given.get("coalesce") is not False else "all"
    instances = given.get("max_instances")
    if isinstance(instances, int) and instances > 1:
        job.settings["overlap"] = "allow"
        job.checks.append(f"`max_instances={instances}`: here any number may run at once")
    job.settings["retry"] = dict(ONCE)
    for key in given.keys() - _JOB_OPTIONS - _TRIGGER_OPTIONS:
        job.checks.append(f"`{key}={_written(given[key])}` has no match in batchd")


def _calls(module: Module) -> Iterator[tuple[CallValue, Any, ast.expr]]:
    for node in walk(module.tree):
        if isinstance(node, ast.Call) and dotted(node.func).endswith(".add_job"):
            call = module.value(node)
            function = (
                node.args[0] if node.args else next((each.value for each in node.keywords if each.arg == "func"), None)
            )
            if isinstance(call, CallValue):
                yield call, _function(module, function), node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                call = module.value(decorator)
                if isinstance(call, CallValue) and call.full_name.endswith(".scheduled_job"):
                    yield call, node.name, decorator


def _function(module: Module, node: ast.AST | None) -> Any:
    if isinstance(node, ast.Name | ast.Attribute):
        return dotted(node)
    return module.value(node)


def _reference(module: Module, function: Any) -> str:
    """Return `package.module:function`, "" when it cannot be told."""
    if not isinstance(function, str):
        return ""
    if ":" in function:
        return function
    first, _, rest = function.partition(".")
    origin = module.imports.get(first)
    if origin is None:
        return "" if rest and first == "self" else f"{module.source.path.stem}:{function}"
    package, is_from, name = origin.partition(":")
    if is_from and rest and name.islower():
        return f"{package}.{name}:{rest}"  # `from shop import reports`: a module, as a rule
    if is_from:
        return f"{origin}.{rest}" if rest else origin
    package, _, name = f"{origin}.{rest}".rpartition(".")
    return f"{package}:{name}"


def _scheduler(module: Module) -> dict[str, Any]:
    """Return what the schedulers of the source are made or configured with."""
    found: dict[str, Any] = {}
    for node in walk(module.tree):
        if isinstance(node, ast.Call) and dotted(node.func).endswith(("Scheduler", ".configure")):
            found |= {keyword.arg: module.value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    return found


def _zone(value: Any) -> str | None:
    """Return the zone of "Europe/Berlin", ZoneInfo("Europe/Berlin"), pytz.timezone(…) or utc."""
    if isinstance(value, CallValue) and value.args:
        value = value.args[0]
    text = value.text if isinstance(value, Unknown) else value
    if isinstance(text, str) and text.lower().rpartition(".")[2] == "utc":
        return "UTC"
    try:
        return zone_named(value).key if isinstance(value, str) else None
    except ScheduleError:
        return None


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_literal(each) for each in value)
    if isinstance(value, dict):
        return all(key.isidentifier() and _is_literal(each) for key, each in value.items())
    return value is None or type(value) in {str, int, float, bool}


def _written(value: Any) -> str:
    return " ".join(value.text.split()) if isinstance(value, Unknown | CallValue) else str(value)
