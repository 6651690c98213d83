"""Sidekiq: queues and concurrency of config/sidekiq.yml, the schedules of sidekiq-cron and sidekiq-scheduler."""

from __future__ import annotations

from typing import Any

from batchd.domain.quantities import format_duration
from batchd.moving.cron_fields import Timing, apply_timing
from batchd.moving.found import Findings, FoundJob, Options, TomlValue, paragraphs
from batchd.moving.rails.erb import default_of
from batchd.moving.rails.fugit import duration
from batchd.moving.rails.ruby_jobs import (
    RAILS_REMARKS,
    Entry,
    args_of,
    call,
    class_of,
    describe,
    keep_keys,
    runner,
    set_schedule,
)
from batchd.moving.rails.yaml_nodes import Document, Node, mappings, unsymboled

SYSTEM = "Sidekiq"
CRON = "sidekiq-cron"
SCHEDULER = "sidekiq-scheduler"

ENVIRONMENTS = frozenset({"production", "staging", "development", "test"})
_LONGEST_PAUSE = 1000

_REMARKS = paragraphs("""
Sidekiq tries a failed job again up to 25 times, over three weeks; batchd makes 3 attempts unless `retry` says
otherwise, and a job that waits for its next attempt holds up its own schedule (`overlap`).

Sidekiq's `concurrency` counts threads of one process, and so does `workers`.
""")
_SCHEDULE_REMARKS = paragraphs("""
Schedules without a zone follow the machine's (TZ), not Rails' `config.time_zone`; written as such.

What was due while no process ran is lost, as with Sidekiq's schedulers (`catch_up`). Around a change to summer time
fugit leaves out what falls into the gap, and runs twice what falls into the repeated hour; a job of batchd at a
fixed time runs once on each of these days.

The class is run by a command of its own, not by Sidekiq: no Redis is needed for it, and middleware does not see it.
To leave the work with Sidekiq for now, let the command say `CLASS.perform_async(…)`.
""")
_CRON_KEYS = frozenset({"cron", "class", "klass", "queue", "args", "active_job", "status", "name", "symbolize_args"})
_SCHEDULER_KEYS = frozenset({"cron", "every", "at", "in", "interval", "class", "queue", "args", "enabled"})
_SETTINGS = frozenset({"concurrency", "queues", "timeout", "strict", "scheduler", "schedule", "max_retries"})


def read_sidekiq(document: Document, options: Options, findings: Findings) -> None:
    """Add the queues and the [daemon] settings of a sidekiq.yml, and the schedule in it."""
    findings.remark(SYSTEM, *_REMARKS)
    entries = dict(mappings(document.root))
    chosen = entries.get(options.environment)
    for key, node in entries.items():
        if key in ENVIRONMENTS and isinstance(node.value, dict) and node is not chosen:
            _keep(document, key, node, findings, f"the settings of another environment, {key}", "left out")
    merged = {key: node for key, node in entries.items() if key not in ENVIRONMENTS}
    if chosen is not None and isinstance(chosen.value, dict):
        merged |= chosen.value
    for key, node in merged.items():
        _setting(key, node, merged, document, findings)
    for key in ("scheduler", "schedule"):
        found = merged.get(key)
        schedule = found.get("schedule") if key == "scheduler" and found is not None else found
        if schedule is not None:
            read_schedule(schedule, document, options, findings, scheduler=True)


def read_schedule(node: Node, document: Document, options: Options, findings: Findings, *, scheduler: bool) -> None:
    """Add the jobs of a schedule of sidekiq-cron, or of sidekiq-scheduler."""
    findings.remark(SCHEDULER if scheduler else CRON, *_SCHEDULE_REMARKS, *RAILS_REMARKS)
    for name, inner in mappings(node):
        entry = Entry(name, inner, document)
        class_name = class_of(entry, findings)
        if class_name is not None:
            findings.add(_job(entry, class_name, options, scheduler=scheduler))


def _job(entry: Entry, class_name: str, options: Options, *, scheduler: bool) -> FoundJob:
    node = entry.node
    args = args_of(node.get("args"))
    is_active_job = node.text("active_job") == "True"
    method = ".perform_now" if is_active_job else ".new.perform"
    job = entry.job(runner(call(class_name, method, args)), options)
    if node.text("queue"):
        job.settings["queue"] = node.text("queue")
    if scheduler:
        _set_trigger(job, node, options)
        if node.text("enabled") == "False":
            job.settings["enabled"] = False
    else:
        set_schedule(job, node.text("cron"), options)
        if node.text("status") == "disabled":
            job.settings["enabled"] = False
    if not is_active_job and class_name.endswith("Job"):
        job.checks.append(f"if {class_name} is an ActiveJob, write `.perform_now` instead of `.new.perform`")
    keep_keys(entry, _SCHEDULER_KEYS if scheduler else _CRON_KEYS, job)
    if not job.meaning:
        job.meaning = "no schedule that batchd can follow"
    job.meaning += f"; {class_name} with {len(args)} arguments"
    return job


def _set_trigger(job: FoundJob, node: Node, options: Options) -> None:
    """Set the schedule by cron, every, interval, at or in."""
    key = next((each for each in ("cron", "every", "interval", "at", "in") if node.get(each) is not None), None)
    found = node.get(key) if key else None
    if key is None or found is None:
        job.checks.append("it has neither cron nor every; without a schedule it runs only when triggered")
        return
    value = found.plain()
    if isinstance(value, list):
        extra = value[1:]
        value = value[0] if value else ""
        if extra:
            job.checks.append(f"`{extra}` at `{key}` has no match in batchd")
    if key == "cron":
        set_schedule(job, str(value), options)
        return
    span = duration(str(value)) if not isinstance(value, int) else duration(f"{value}s")
    if key in {"every", "interval"}:
        if span is None:
            set_schedule(job, str(value), options)
            return
        timing = Timing(f"every {format_duration(span)}")
        timing.changes.append(
            f"`{key}` counts from the start of the process (interval: from the end of a run); batchd from fixed times"
        )
        apply_timing(job, timing)
        describe(job, timing)
        return
    job.checks.append(
        f"`{key}: {value}` is one moment, counted from the start of the process; batchd has `at 2027-01-01T00:00`"
    )


def _setting(key: str, node: Node, merged: dict[str, Node], document: Document, findings: Findings) -> None:
    place = document.place(node.line)
    origin = f"{place}  {key}: {node.plain()}"
    number = _integer(node)
    if key == "concurrency" and number is not None and 1 <= number <= _LONGEST_PAUSE:
        findings.set_daemon("workers", number, origin)
    elif key == "timeout" and number is not None and number > 0:
        findings.set_daemon("shutdown_grace", f"{number}s", origin)
    elif key == "queues":
        strict = merged["strict"].plain() if "strict" in merged else None
        _queues(node, document, findings, strict=strict)
    elif key == "max_retries":
        _keep(
            document,
            key,
            node,
            findings,
            "how often Sidekiq tries again",
            f"`retry = {{ max_attempts = {(number or 25) + 1} }}` at a job says so",
        )
    elif key not in _SETTINGS:
        _keep(document, key, node, findings, f"Sidekiq's `{key}`", "CHECK: no match in batchd")
    if key == "scheduler" and isinstance(node.value, dict):
        for inner, value in node.value.items():
            if inner != "schedule":
                _keep(document, inner, value, findings, f"sidekiq-scheduler's `{inner}`", "CHECK: no match in batchd")


def _queues(node: Node, document: Document, findings: Findings, *, strict: Any) -> None:
    """Add the queues: weighted when any has a weight above one, else in strict order."""
    listed: list[tuple[str, int, int]] = []
    for inner in node.value if isinstance(node.value, list) else ():
        plain = inner.plain()
        name, weight = (plain[0], plain[1]) if isinstance(plain, list) and len(plain) > 1 else (plain, 1)
        if isinstance(name, list):
            name = name[0] if name else ""
        parts = str(unsymboled(name)).split(",")
        if len(parts) == 2 and parts[1].strip().isdecimal():  # noqa: PLR2004 ("critical,5" as on the command line)
            name, weight = parts[0], int(parts[1])
        listed.append((str(unsymboled(name)), weight if isinstance(weight, int) and weight > 0 else 1, inner.line))
    is_weighted = any(weight > 1 for _, weight, _ in listed) and strict is not True
    findings.set_daemon(
        "queue_order",
        "weighted" if is_weighted else "strict",
        f"{document.place(node.line)}  queues: {'with' if is_weighted else 'without'} weights",
    )
    for position, (name, weight, line) in enumerate(listed):
        priority = min(1000, 10 * (len(listed) - position))
        settings: dict[str, TomlValue] = {"weight": min(weight, 1000)} if is_weighted else {"priority": priority}
        said = "weight" if is_weighted else "the earlier the first"
        findings.set_queue(name, settings, f"{document.place(line)}  {document.lines[line - 1].strip()} ({said})")


def _integer(node: Node) -> int | None:
    value = node.value
    if isinstance(value, str):
        value = default_of(value)
        return int(value) if value.isdecimal() and len(value) < 10 else None  # noqa: PLR2004
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _keep(document: Document, key: str, node: Node, findings: Findings, meaning: str, becomes: str) -> None:
    findings.keep(document.place(node.line), document.original(node.line) or key, meaning, becomes)
