"""Solid Queue's config/recurring.yml and GoodJob's cron in YAML: both run ActiveJob classes on fugit's schedules."""

from __future__ import annotations

from batchd.moving.found import Findings, FoundJob, Options, paragraphs
from batchd.moving.rails.ruby_jobs import (
    RAILS_REMARKS,
    Entry,
    args_of,
    call,
    class_of,
    keep_keys,
    runner,
    set_schedule,
)
from batchd.moving.rails.sidekiq import ENVIRONMENTS
from batchd.moving.rails.yaml_nodes import Document, Node, mappings

SOLID_QUEUE = "Solid Queue"
GOOD_JOB = "GoodJob"

_SHARED_REMARKS = paragraphs("""
What was due while no process ran is lost (`catch_up`), as there. Schedules without a zone follow the machine's
(TZ).

`retry_on` and `discard_on` of the class do not work under `perform_now` outside its queue; batchd makes 3 attempts
unless `retry` says otherwise.
""")
_PRIORITY_REMARK = "A small number is urgent in Solid Queue, a large one in batchd; so `priority` has the other sign."
_SOLID_KEYS = frozenset({"class", "klass", "command", "args", "queue", "priority", "schedule"})
_GOOD_KEYS = frozenset({"cron", "class", "klass", "args", "kwargs", "set", "enabled_by_default"})
_LARGEST = 1000


def read_recurring(document: Document, options: Options, findings: Findings) -> None:
    """Add the tasks of Solid Queue."""
    findings.remark(SOLID_QUEUE, *_SHARED_REMARKS, _PRIORITY_REMARK, *RAILS_REMARKS)
    for entry in _entries(document, options, findings):
        command = entry.node.text("command")
        class_name = None if command else class_of(entry, findings)
        if class_name is None and not command:
            continue
        args = args_of(entry.node.get("args"))
        job = entry.job(runner(command or call(str(class_name), ".perform_now", *_split(args))), options)
        if entry.node.text("queue"):
            job.settings["queue"] = entry.node.text("queue")
        _set_priority(job, entry.node.get("priority"), options)
        set_schedule(job, entry.node.text("schedule"), options)
        keep_keys(entry, _SOLID_KEYS, job)
        findings.add(job)


def read_good_job(document: Document, options: Options, findings: Findings) -> None:
    """Add GoodJob's cron."""
    findings.remark(GOOD_JOB, *_SHARED_REMARKS, *RAILS_REMARKS)
    for entry in _entries(document, options, findings):
        class_name = class_of(entry, findings)
        if class_name is None:
            continue
        kwargs = entry.node.get("kwargs")
        named = kwargs.plain() if kwargs is not None and isinstance(kwargs.value, dict) else {}
        job = entry.job(runner(call(class_name, ".perform_now", args_of(entry.node.get("args")), named)), options)
        chosen = entry.node.get("set")
        if chosen is not None and isinstance(chosen.value, dict):
            if chosen.text("queue"):
                job.settings["queue"] = chosen.text("queue")
            _set_priority(job, chosen.get("priority"), options)
            for key, node in chosen.value.items():
                if key not in {"queue", "priority"}:
                    job.checks.append(f"`set: {key}: {node.plain()}` has no match in batchd")
        if entry.node.text("enabled_by_default") == "False":
            job.settings["enabled"] = False
        set_schedule(job, entry.node.text("cron"), options)
        keep_keys(entry, _GOOD_KEYS, job)
        findings.add(job)


def schedule_of(node: Node, environment: str) -> Node:
    """Return the mapping of names to entries, out of an environment and of keys such as `cron` around it."""
    for _ in range(4):
        inner = next(
            (
                found
                for key in (
                    environment,
                    "good_job",
                    "cron",
                    "good_job_cron",
                    "schedule",
                    "recurring",
                    "cron_jobs",
                    "jobs",
                )
                if (found := node.get(key)) is not None and isinstance(found.value, dict) and not _is_entry(found)
            ),
            None,
        )
        if inner is None or _is_entry(node):
            return node
        node = inner
    return node


def _entries(document: Document, options: Options, findings: Findings) -> list[Entry]:
    chosen = schedule_of(document.root, options.environment)
    found: list[Entry] = []
    for name, node in mappings(document.root) if chosen is not document.root else ():
        if name != options.environment and name in ENVIRONMENTS:
            place = document.place(node.line)
            original = document.original(node.line)
            findings.keep(place, original, f"the schedule of another environment, {name}", "left out")
    for name, node in mappings(chosen):
        if isinstance(node.value, dict):
            found.append(Entry(name, node, document))
        else:
            place = document.place(node.line)
            findings.keep(place, document.original(node.line), f"`{name}`", "CHECK: no entry of a schedule")
    return found


def _is_entry(node: Node) -> bool:
    found = [node.get(key) for key in ("class", "command", "cron")]
    return any(inner is not None and not isinstance(inner.value, dict) for inner in found)


def _split(args: list[object]) -> tuple[list[object], dict[str, object]]:
    """Return positional and named arguments: a table at the end holds names, as in Solid Queue."""
    if args and isinstance(args[-1], dict):
        return args[:-1], args[-1]
    return args, {}


def _set_priority(job: FoundJob, node: Node | None, options: Options) -> None:  # noqa: ARG001
    value = node.value if node is not None else None
    if isinstance(value, int) and not isinstance(value, bool) and value and abs(value) <= _LARGEST:
        job.settings["priority"] = -value
