"""BullMQ, Bull, node-cron, cron, node-schedule, croner, Agenda and NestJS: each call that schedules becomes a job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from batchd.domain.quantities import format_duration
from batchd.moving.commands import ONCE, shell_settings
from batchd.moving.cron_fields import Days, Dialect, Timing, Untranslatable, apply_timing, translate
from batchd.moving.found import Findings, FoundJob, Options, Place, Source, TomlValue, paragraphs, plain_name
from batchd.moving.javascript.calls import Call, Script
from batchd.moving.javascript.nest import named_expression
from batchd.moving.javascript.values import New, Unknown
from batchd.moving.rails.fugit import fugit_timing
from batchd.moving.toml_text import WithVariables
from batchd.moving.words import in_words

SYSTEM = "BullMQ and node-cron"

_BULL = Dialect("BullMQ (cron-parser)", Days.EITHER)
_NODE_CRON = Dialect("node-cron", Days.BOTH)
_CRON = Dialect("cron", Days.EITHER)
_NODE_SCHEDULE = Dialect("node-schedule (cron-parser)", Days.EITHER)
_RECURRENCE = Dialect("node-schedule (an object)", Days.BOTH)
_CRONER = Dialect("croner", Days.EITHER)

_REMARKS = paragraphs("""
A file of JavaScript says when, not what a process of its own would have to run: each job has a command that stands
for it, and `enabled = false` until you have written yours. The work can also stay in the application, behind a URL
(kind http), or be queued from there: docs/enqueue.md.

Schedules without a zone follow the zone of the Node process (in containers mostly UTC); written with the zone given
to `convert`. CHECK that it is the right one.

In node-cron, and in the objects of node-schedule, both days must match, in BullMQ, cron, croner and the texts of
node-schedule either is enough; the schedules are written so that they mean the same here.

BullMQ keeps the next run of a schedule in Redis and makes up for one that was missed (`catch_up = "once"`); the
others lose what was due while the process was down (`"skip"`). `every` counts from 1 January 1970 in BullMQ, here
from the Monday after it: the same for whatever divides a day.
""")
_NAMES = frozenset(
    {
        "add",
        "upsertJobScheduler",
        "schedule",
        "createTask",
        "CronJob",
        "from",
        "scheduleJob",
        "Cron",
        "every",
        "Interval",
    }
)
_BULL_REPEAT = frozenset({"pattern", "cron", "every", "tz"})
_BULL_OPTIONS = frozenset({"repeat", "attempts", "backoff", "priority", "removeOnComplete", "jobId"})
_SPEC_FIELDS = ("second", "minute", "hour", "date", "month", "dayOfWeek")
_LARGEST_PRIORITY = 1000
_INTERVAL = re.compile(r"(\d+)\s*(second|minute|hour|day|week)s?")


def read_script(source: Source, options: Options, findings: Findings) -> None:
    """Add the jobs that the calls in a source schedule."""
    findings.remark(SYSTEM, *_REMARKS)
    script = Script(source.text)
    reader = _ScriptReader(source, script, options)
    for call in script.calls(_NAMES):
        job = reader.job(call)
        if job is not None:
            findings.add(job)


class _ScriptReader:
    def __init__(self, source: Source, script: Script, options: Options) -> None:
        self._source = source
        self._script = script
        self._options = options

    def job(self, call: Call) -> FoundJob | None:
        """Return the job of a call; None when the call schedules nothing."""
        readers: dict[str, Callable[[Call], FoundJob | None]] = {
            "add": self._bull_add,
            "upsertJobScheduler": self._bull_scheduler,
            "schedule": self._node_cron,
            "createTask": self._node_cron,
            "CronJob": self._cron_job,
            "from": self._cron_job_from,
            "scheduleJob": self._node_schedule,
            "Cron": self._croner,
            "every": self._agenda,
            "Interval": self._nest_interval,
        }
        return readers[call.name](call)

    def _new(self, call: Call, name: object, *, catch_up: str = "skip") -> FoundJob:
        wished = plain_name(name, "job") if isinstance(name, str) and name else _stem(self._source)
        settings = shell_settings(f"node jobs/{wished}.js")
        settings["catch_up"] = catch_up
        job = FoundJob(Place(self._source.name, call.line), wished, call.text, "", settings)
        job.above = self._script.comments_above(call.line)
        job.disable("write the command that does its work")
        if isinstance(name, Unknown):
            job.checks.append(f"its name is `{name.text}`, which only running it could tell")
        return job

    # BullMQ and Bull

    def _bull_add(self, call: Call) -> FoundJob | None:
        options = next(
            (each for each in call.args if isinstance(each, dict) and isinstance(each.get("repeat"), dict)), None
        )
        if options is None:
            return None
        named = call.args[0] if call.args and isinstance(call.args[0], str | Unknown) else None
        data = next((each for each in call.args[1 if named is not None else 0 :] if each is not options), None)
        job = self._new(call, named or self._script.queue_of(call.target) or "repeat", catch_up="once")
        self._bull(job, call, options["repeat"], options, data)
        return job

    def _bull_scheduler(self, call: Call) -> FoundJob | None:
        args = [*call.args, None, None, None][:3]
        template = args[2] if isinstance(args[2], dict) else {}
        options = template.get("opts")
        job = self._new(call, args[0], catch_up="once")
        if isinstance(template.get("name"), str) and template["name"] != args[0]:
            job.above.append(f"runs of the name {template['name']}")
        if not isinstance(args[1], dict):
            job.checks.append("its repeat options are no literals; without a schedule it runs only when triggered")
        repeat = args[1] if isinstance(args[1], dict) else {}
        self._bull(job, call, repeat, options if isinstance(options, dict) else {}, template.get("data"))
        return job

    def _bull(self, job: FoundJob, call: Call, repeat: dict[str, Any], options: dict[str, Any], data: Any) -> None:
        every = repeat.get("every")
        pattern = repeat.get("pattern", repeat.get("cron"))
        if every is not None:
            self._set_every(job, every)
        elif pattern is not None:
            self._set_cron(job, pattern, _BULL, repeat.get("tz"))
        for key in repeat.keys() - _BULL_REPEAT:
            job.checks.append(f"`{key}: {_written(repeat[key])}` of the repeat options has no match in batchd")
        queue = self._script.queue_of(call.target)
        if queue is not None:
            job.settings["queue"] = queue
        if isinstance(data, Unknown):
            job.checks.append(f"its data is `{data.text}`, which only running it could tell")
        elif data not in (None, {}, []):
            job.settings["env"] = {"JOB_DATA": json.dumps(_plain(data), ensure_ascii=False)}
            if _has_unknown(data):
                job.checks.append("what stands in <> in JOB_DATA only running it could tell")
        _set_bull_options(job, options)

    # The others

    def _node_cron(self, call: Call) -> FoundJob | None:
        if len(call.args) < 2 or not isinstance(call.args[0], str | Unknown):  # noqa: PLR2004
            return None
        if call.target not in {"cron", "nodeCron", "nodecron", "nodeSchedule", "scheduler"} and not _looks_like_cron(
            call.args[0]
        ):
            return None
        options = call.args[2] if len(call.args) > 2 and isinstance(call.args[2], dict) else {}  # noqa: PLR2004
        job = self._new(call, options.get("name") or _function_name(call.args[1]))
        self._set_cron(job, call.args[0], _NODE_CRON, options.get("timezone"))
        if options.get("scheduled") is False:
            job.checks.append("it is `scheduled: false`: it runs only when started by hand")
        _keep_options(job, options, {"name", "timezone", "scheduled", "noOverlap", "recoverMissedExecutions"})
        return job

    def _cron_job(self, call: Call) -> FoundJob | None:
        if not call.is_new or not call.args:
            return None
        if isinstance(call.args[0], dict):
            return self._cron_job_of(call, call.args[0])
        names = ("cronTime", "onTick", "onComplete", "start", "timeZone")
        return self._cron_job_of(call, dict(zip(names, call.args, strict=False)))

    def _cron_job_from(self, call: Call) -> FoundJob | None:
        if call.target != "CronJob" or not call.args or not isinstance(call.args[0], dict):
            return None
        return self._cron_job_of(call, call.args[0])

    def _cron_job_of(self, call: Call, given: dict[str, Any]) -> FoundJob:
        job = self._new(call, given.get("name") or _function_name(given.get("onTick")))
        time = given.get("cronTime")
        if isinstance(time, New) and time.name == "Date":
            job.checks.append("it runs once, at a moment that the program computes")
        else:
            self._set_cron(job, time, _CRON, given.get("timeZone"))
        if isinstance(time, str) and re.search(r"\d", (time.split() or [""])[-2:][0]):
            job.checks.append("cron 2 and older count months from 0 (January); here they count from 1, as in cron 3")
        if given.get("runOnInit") is True:
            job.checks.append("`runOnInit` also runs it at each start of the process")
        if given.get("start") is False:
            job.checks.append("it is not started with the process (`start: false`)")
        return job

    def _node_schedule(self, call: Call) -> FoundJob | None:
        args = list(call.args)
        name = args.pop(0) if len(args) > 2 and isinstance(args[0], str) else None  # noqa: PLR2004
        if not args:
            return None
        spec = args[0]
        job = self._new(call, name or (_function_name(args[1]) if len(args) > 1 else None))
        if isinstance(spec, dict) and "rule" in spec:
            self._set_cron(job, spec["rule"], _NODE_SCHEDULE, spec.get("tz"))
            _keep_options(job, spec, {"rule", "tz"})
        elif isinstance(spec, dict):
            self._set_cron(job, _fields_of_spec(spec), _RECURRENCE, spec.get("tz"))
            _keep_options(job, spec, {*_SPEC_FIELDS, "tz"})
        elif isinstance(spec, str):
            self._set_cron(job, spec, _NODE_SCHEDULE, None)
        else:
            job.checks.append(
                "its time is no literal (a Date or a RecurrenceRule); without a schedule it runs only when triggered"
            )
        return job

    def _croner(self, call: Call) -> FoundJob | None:
        if not call.args or not (call.is_decorator or _looks_like_cron(call.args[0])):
            return None
        options = next((each for each in call.args[1:] if isinstance(each, dict)), {})
        action = next((each for each in call.args[1:] if isinstance(each, Unknown)), None)
        job = self._new(call, options.get("name") or _function_name(action))
        zone = options.get("timezone") or options.get("timeZone")
        both = options.get("legacyMode") is False or options.get("domAndDow") is True
        dialect = Dialect("croner", Days.BOTH) if both else (_CRON if call.is_decorator else _CRONER)
        self._set_cron(job, named_expression(call.args[0]), dialect, zone)
        _keep_options(job, options, {"name", "timezone", "timeZone", "legacyMode", "domAndDow", "protect", "catch"})
        return job

    def _agenda(self, call: Call) -> FoundJob | None:
        if call.target.lower() != "agenda" or len(call.args) < 2 or not isinstance(call.args[0], str):  # noqa: PLR2004
            return None
        job = self._new(call, call.args[1])
        match = _INTERVAL.fullmatch(call.args[0].strip())
        try:
            if match:
                timing = Timing(f"every {match[1]}{match[2][0]}")
                timing.changes.append("Agenda counts from the last run; batchd from fixed times")
            else:
                timing = fugit_timing(call.args[0], self._options.timezone)
            apply_timing(job, timing)
        except Untranslatable as error:
            job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
        return job

    def _nest_interval(self, call: Call) -> FoundJob | None:
        if not call.is_decorator or not call.args:
            return None
        name = call.args[0] if isinstance(call.args[0], str) else None
        job = self._new(call, name)
        self._set_every(job, call.args[-1])
        return job

    # Times

    def _set_cron(self, job: FoundJob, text: Any, dialect: Dialect, zone: Any) -> None:
        if type(text) is not str:
            said = text if isinstance(text, WithVariables) else _written(text)
            job.checks.append(
                f"its schedule is `{said}`, which only running it could tell; without one it runs only when triggered"
            )
            return
        timezone = zone if isinstance(zone, str) and not isinstance(zone, WithVariables) else self._options.timezone
        if zone is not None and timezone != zone:
            job.checks.append(f"its zone is `{_written(zone)}`, which only running it could tell")
        text = text.strip()
        try:
            if text.startswith("@"):
                apply_timing(job, Timing(text, timezone))
            else:
                apply_timing(job, translate(text, dialect, timezone))
        except Untranslatable as error:
            job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
            return
        job.meaning = in_words(job.settings.get("schedule"), timezone)

    def _set_every(self, job: FoundJob, milliseconds: Any) -> None:
        if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float) or not 0 < milliseconds < 1e14:  # noqa: PLR2004
            job.checks.append(
                f"it comes every `{_written(milliseconds)}` milliseconds, no literal; so it runs only when triggered"
            )
            return
        if milliseconds < 1000:  # noqa: PLR2004
            job.checks.append(f"it comes every {milliseconds} ms; batchd fires once a second at most")
            return
        apply_timing(job, Timing(f"every {format_duration(timedelta(milliseconds=milliseconds))}"))
        job.meaning = in_words(job.settings.get("schedule"))


def schedules_something(text: str) -> bool:
    """Return whether a source has a call that schedules."""
    return (
        re.search(
            r"upsertJobScheduler|\brepeat\s*:|cron\.schedule|createTask|CronJob|scheduleJob|@?Cron\(|agenda\.every",
            text,
        )
        is not None
    )


def _set_bull_options(job: FoundJob, options: dict[str, Any]) -> None:
    attempts = options.get("attempts")
    retry: dict[str, TomlValue] = dict(ONCE)
    if isinstance(attempts, int) and not isinstance(attempts, bool) and 1 <= attempts <= 1000:  # noqa: PLR2004
        retry["max_attempts"] = attempts
    backoff = options.get("backoff")
    delay = backoff.get("delay") if isinstance(backoff, dict) else backoff
    if isinstance(delay, int | float) and not isinstance(delay, bool) and 0 < delay < 1e11:  # noqa: PLR2004
        is_exponential = isinstance(backoff, dict) and backoff.get("type") == "exponential"
        retry["backoff"] = "exponential" if is_exponential else "fixed"
        retry["delay"] = format_duration(timedelta(milliseconds=delay))
    job.settings["retry"] = retry
    priority = options.get("priority")
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 < priority <= _LARGEST_PRIORITY:
        job.settings["priority"] = -priority
        job.changes.append(
            "a small number is urgent in BullMQ, a large one in batchd; so `priority` has the other sign"
        )
    if options.get("removeOnComplete") is True:
        job.settings["remove_on_success"] = True
    elif options.get("removeOnComplete") not in (None, False):
        job.checks.append(f"`removeOnComplete: {_written(options['removeOnComplete'])}`: see `keep_for`")
    for key in options.keys() - _BULL_OPTIONS:
        job.checks.append(f"`{key}: {_written(options[key])}` has no match in batchd")


def _keep_options(job: FoundJob, options: dict[str, Any], known: set[str]) -> None:
    for key in options.keys() - known:
        job.checks.append(f"`{key}: {_written(options[key])}` has no match in batchd")


def _fields_of_spec(spec: dict[str, Any]) -> str | Unknown:
    """Return node-schedule's `{ hour: 14, minute: 30, dayOfWeek: 0 }` as cron fields."""
    fields = []
    for key in _SPEC_FIELDS:
        value = spec.get(key, 0 if key == "second" else None)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, bool) or not isinstance(each, int | None) for each in values):
            return Unknown(_written(value))
        shift = 1 if key == "month" else 0  # node-schedule counts months from 0 here
        fields.append("*" if value is None else ",".join(str(each + shift) for each in values if each is not None))
    return " ".join(fields).removeprefix("0 ")


def _looks_like_cron(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) in (5, 6) and re.match(r"[\d*@?]", value) is not None


def _function_name(value: Any) -> str | None:
    match = (
        re.match(r"(?:async\s+)?(?:function\s+)?([A-Za-z_$][\w$.]*)\s*(?:\(|$)", value.text)
        if isinstance(value, Unknown)
        else None
    )
    return match[1].rpartition(".")[2] if match and match[1] not in {"function", "async"} else None


def _stem(source: Source) -> str:
    return plain_name(source.path.name.partition(".")[0], "job")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return f"<{_written(value)}>" if isinstance(value, Unknown | New) else value


def _has_unknown(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Unknown | New) or any(map(_has_unknown, inner))


def _written(value: Any) -> str:
    match value:
        case Unknown():
            return " ".join(value.text.split())[:120]
        case New():
            return f"new {value.name}(…)"
        case dict() | list():
            return json.dumps(_plain(value), ensure_ascii=False)[:200]
    return str(value)
