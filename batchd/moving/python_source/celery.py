"""Celery beat: the entries of a beat_schedule and add_periodic_task, in Python source."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from batchd.domain.quantities import format_duration
from batchd.domain.schedule import ScheduleError, zone_named
from batchd.moving.commands import run_in, shell_settings
from batchd.moving.cron_fields import Days, Dialect, Timing, Untranslatable, apply_timing, translate
from batchd.moving.found import Findings, FoundJob, Options, Place, Source, paragraphs
from batchd.moving.python_source.literals import CallValue, Module, Unknown, dotted, read_module, walk
from batchd.moving.toml_text import toml_value
from batchd.moving.words import in_words

SYSTEM = "Celery beat"
DIALECT = Dialect("Celery", Days.BOTH)

_SCHEDULE_NAMES = frozenset({"beat_schedule", "BEAT_SCHEDULE", "CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE"})
_ZONE_NAMES = frozenset({"timezone", "CELERY_TIMEZONE"})
_POSITIONS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
_SPAN_UNITS = ("days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks")
_KNOWN = frozenset({"task", "schedule", "args", "kwargs", "options"})
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_REMARKS = paragraphs("""
Each job sends its task to the Celery workers, as beat does (`celery call`), so the workers stay as they are. CHECK
that `-A` names your application: it is taken from the task's name. To have batchd do the work, use the lines below
the job (kind python) instead.

Celery's schedules are in UTC unless `timezone` says otherwise; a day of the month and a day of the week must both
match.

After a stop beat sends at once what was due, once; so does `catch_up = "once"`. Numbers and timedeltas count from
the last run there, from fixed times here.

batchd fires a fixed time once on the day of a clock change; beat leaves out what falls into the gap in spring.
""")


def read_celery(source: Source, options: Options, findings: Findings) -> None:
    """Add the entries of the schedules in a source; raises UsageError when it is no Python."""
    module = read_module(source)
    findings.remark(SYSTEM, *_REMARKS)
    zone = _zone(module)
    for name, entry, line in _entries(module):
        place = Place(source.name, line)
        if not isinstance(entry, dict):
            written = entry.text if isinstance(entry, Unknown | CallValue) else repr(entry)
            findings.keep(place, f"{name}: {written}", "an entry of the schedule", "CHECK: only running it could tell")
            continue
        findings.add(_job(module, name, entry, place, zone, options))


def has_schedule(text: str) -> bool:
    """Return whether a source looks like one with a schedule of Celery beat."""
    return re.search(r"(?i)beat_?schedule|add_periodic_task", text) is not None


def _job(module: Module, name: str, entry: dict[str, Any], place: Place, zone: str, options: Options) -> FoundJob:
    task = entry.get("task")
    settings = shell_settings("")
    settings["catch_up"] = "once"
    original = module.source.text.split("\n")[place.line - 1].strip()
    job = FoundJob(place, name, original, "", settings, above=module.comments_above(place.line))
    job.settings["command"] = _command(job, task, entry)
    if options.app_dir:
        run_in(job, options.app_dir, options)
    _set_schedule(job, entry.get("schedule"), zone)
    _set_options(job, entry.get("options"))
    for key in entry.keys() - _KNOWN:
        job.checks.append(f"`{key}: {_written(entry[key])}` has no match in batchd")
    written = _written(entry.get("schedule"))
    if "task" in entry and "schedule" not in original:
        job.original = f"{original}  {_written(task)}  {written}"
    job.meaning = (
        f"{written}: {in_words(job.settings.get('schedule'), job.settings.get('timezone'))}; sends {_written(task)}"
    )
    return job


def _command(job: FoundJob, task: Any, entry: dict[str, Any]) -> str:
    if not isinstance(task, str) or not _NAME.fullmatch(task):
        job.disable(f"only running it could tell what its task is: `{_written(task)}`")
        task = "app.tasks.unknown"
    args, kwargs = entry.get("args", []), entry.get("kwargs", {})
    words = ["celery", "-A", task.partition(".")[0], "call", task]
    for option, value in (("--args", args), ("--kwargs", kwargs)):
        if _is_literal(value):
            words += [f"{option}={json.dumps(value)}"] if value else []
        else:
            job.disable(f"only running it could tell its {option.lstrip('-')}: `{_written(value)}`")
    options = entry.get("options")
    if isinstance(options, dict) and isinstance(options.get("queue"), str):
        words.append(f"--queue={options['queue']}")
    module, _, function = task.rpartition(".")
    job.commented += [
        "instead of kind, command and shell, to run it here:",
        'kind = "python"',
        f'target = "{module}:{function}"',
    ]
    if isinstance(kwargs, dict) and kwargs and _is_literal(kwargs) and "null" not in json.dumps(kwargs):
        job.commented.append(f"arguments = {toml_value(kwargs)}")
    return " ".join(shlex.quote(word) for word in words)


def _set_schedule(job: FoundJob, schedule: Any, zone: str) -> None:
    try:
        timing = _timing(schedule, zone)
    except Untranslatable as error:
        job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
        return
    apply_timing(job, timing)


def _timing(schedule: Any, zone: str) -> Timing:
    if isinstance(schedule, int | float) and not isinstance(schedule, bool):
        return _every(timedelta(seconds=min(schedule, 10**9)))
    if not isinstance(schedule, CallValue):
        raise Untranslatable(f"only running it could tell what `{_written(schedule)}` is")
    if schedule.name == "timedelta":
        return _every(span_of(schedule))
    if schedule.name in {"schedule", "maybe_schedule"}:
        inner = schedule.options.get("run_every", schedule.args[0] if schedule.args else Unknown(schedule.text))
        return _timing(inner, zone)
    if schedule.name == "from_string" and schedule.args and isinstance(schedule.args[0], str):
        return translate(schedule.args[0], DIALECT, zone)
    if schedule.name == "crontab":
        return translate(_fields(schedule), DIALECT, zone)
    if schedule.name == "solar":
        raise Untranslatable(f"`{schedule.text}` goes by the sun, which batchd does not know; take a time of day")
    raise Untranslatable(f"only running it could tell what `{schedule.text}` is")


def _every(span: timedelta) -> Timing:
    if span < timedelta(seconds=1):
        raise Untranslatable(f"every {format_duration(span)} is too often; batchd fires once a second at most")
    return Timing(f"every {format_duration(span)}")


def span_of(call: CallValue) -> timedelta:
    """Return what `timedelta(…)` is; raises Untranslatable."""
    given = {**dict(zip(_SPAN_UNITS, call.args, strict=False)), **call.options}
    if any(
        unit not in _SPAN_UNITS or isinstance(value, bool) or not isinstance(value, int | float)
        for unit, value in given.items()
    ):
        raise Untranslatable(f"only running it could tell what `{call.text}` is")
    try:
        return timedelta(**given)
    except OverflowError as error:
        raise Untranslatable(f"`{call.text}` is too long") from error


def _fields(call: CallValue) -> str:
    given = {**dict(zip(_POSITIONS, call.args, strict=False)), **call.options}
    written = []
    for key in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week"):
        value = given.get(key, "*")
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, bool) or not isinstance(part, str | int) for part in parts) or not parts:
            raise Untranslatable(f"only running it could tell `{key}` of `{call.text}`")
        written.append(",".join("".join(str(part).split()) for part in parts) or "*")
    return " ".join(written)


def _set_options(job: FoundJob, options: Any) -> None:
    if options is None:
        return
    if not isinstance(options, dict):
        job.checks.append(f"its options are `{_written(options)}`, which only running it could tell")
        return
    for key, value in options.items():
        if key == "expires" and isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**9:
            job.settings["start_deadline"] = format_duration(timedelta(seconds=value))
        elif key != "queue":
            job.checks.append(f"`options: {key}: {_written(value)}` has no match; `celery call --help` knows some")


def _entries(module: Module) -> Iterator[tuple[str, Any, int]]:
    for node in walk(module.tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if _names_schedule(target):
                    yield from _entries_of(module, node.value)
                elif isinstance(target, ast.Subscript) and _names_schedule(target.value):
                    name = module.value(target.slice)
                    yield str(name) if isinstance(name, str) else "job", module.value(node.value), node.lineno
        elif isinstance(node, ast.Call):
            yield from _entries_of_call(module, node)


def _entries_of_call(module: Module, node: ast.Call) -> Iterator[tuple[str, Any, int]]:
    name = dotted(node.func)
    if (
        name.endswith(".update")
        and isinstance(node.func, ast.Attribute)
        and _names_schedule(node.func.value)
        and node.args
    ):
        yield from _entries_of(module, node.args[0])
    for keyword in node.keywords:
        if keyword.arg in _SCHEDULE_NAMES:
            yield from _entries_of(module, keyword.value)
    if name.endswith("add_periodic_task") and len(node.args) > 1:
        call = module.value(node)
        signature = call.args[1] if isinstance(call, CallValue) else None
        entry: dict[str, Any] = {"schedule": call.args[0], "task": Unknown(module.text(node.args[1]))}
        if isinstance(signature, CallValue) and signature.name in {"s", "si", "signature", "subtask"}:
            function = signature.full_name.removesuffix(f".{signature.name}")
            entry |= {"task": _task(module, function), "args": list(signature.args), "kwargs": dict(signature.options)}
        for key in ("args", "kwargs"):
            if key in call.options:
                entry[key] = call.options[key]
        rest = {key: value for key, value in call.options.items() if key not in {"name", "args", "kwargs"}}
        name_given = call.options.get("name")
        yield (
            (name_given if isinstance(name_given, str) else _written(entry["task"])),
            {**entry, "options": rest or None},
            node.lineno,
        )


def _entries_of(module: Module, node: ast.expr | None) -> Iterator[tuple[str, Any, int]]:
    if isinstance(node, ast.Name):
        known = module.constants.get(node.id)
        if isinstance(known, dict):
            yield from ((key, value, node.lineno) for key, value in known.items())
        return
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            name = module.value(key) if key is not None else None
            read = module.value(value)
            if key is None and isinstance(read, dict):
                yield from ((inner, entry, value.lineno) for inner, entry in read.items())
            else:
                yield (name if isinstance(name, str) else "job"), read, (key or value).lineno
    elif node is not None:
        read = module.value(node)
        if isinstance(read, dict):
            yield from ((key, value, node.lineno) for key, value in read.items())
        else:
            yield "beat_schedule", Unknown(module.text(node)), node.lineno


def _names_schedule(node: ast.expr) -> bool:
    return dotted(node).rpartition(".")[2] in _SCHEDULE_NAMES and not isinstance(node, ast.Subscript)


def _task(module: Module, function: str) -> Any:
    """Return the task's name: Celery calls a function by its module's."""
    first, _, rest = function.partition(".")
    origin = module.imports.get(first)
    if origin is not None:
        return ".".join(part for part in (origin.replace(":", "."), rest) if part)
    stem = module.source.path.stem
    return (
        f"{module.source.path.parent.name or stem}.{stem}.{function}"
        if module.source.path.parent.name
        else f"{stem}.{function}"
    )


def _zone(module: Module) -> str:
    """Return the zone that the source names, else UTC."""
    found: Any = None
    for node in walk(module.tree):
        if (
            isinstance(node, ast.Assign)
            and any(dotted(target).rpartition(".")[2] in _ZONE_NAMES for target in node.targets)
        ) or (isinstance(node, ast.keyword) and node.arg in _ZONE_NAMES):
            found = module.value(node.value)
    try:
        return zone_named(found).key if isinstance(found, str) else "UTC"
    except ScheduleError:
        return "UTC"


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_literal(each) for each in value)
    if isinstance(value, dict):
        return all(_is_literal(each) for each in value.values())
    return value is None or type(value) in {str, int, float, bool}


def _written(value: Any) -> str:
    match value:
        case Unknown() | CallValue():
            return " ".join(value.text.split())
        case list():
            return f"[{', '.join(map(_written, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_written(inner)}' for key, inner in value.items())}}}"
    return str(value)
