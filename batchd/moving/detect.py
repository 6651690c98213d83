"""Which system a file is of: by its name where that says it, else by its content."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable

from batchd.errors import UsageError
from batchd.moving.crontab import is_job_line
from batchd.moving.found import Source
from batchd.moving.javascript.schedulers import schedules_something
from batchd.moving.python_source.apscheduler_calls import has_jobs
from batchd.moving.python_source.celery import has_schedule


class System(enum.StrEnum):
    """What `--from` takes."""

    CRONTAB = "crontab"
    SYSTEM_CRONTAB = "crontab-system"
    SYSTEMD = "systemd"
    WHENEVER = "whenever"
    SIDEKIQ = "sidekiq"
    SIDEKIQ_CRON = "sidekiq-cron"
    SIDEKIQ_SCHEDULER = "sidekiq-scheduler"
    SOLID_QUEUE = "solid-queue"
    GOOD_JOB = "good-job"
    VERCEL = "vercel"
    BULLMQ = "bullmq"
    CELERY = "celery"
    APSCHEDULER = "apscheduler"
    JOB_STORE = "apscheduler-store"


_SCRIPTS = frozenset({".js", ".ts", ".mjs", ".cjs", ".mts", ".cts", ".jsx", ".tsx"})
_UNITS = frozenset({".timer", ".service"})
_SQLITE = b"SQLite format 3\x00"


def detect(source: Source) -> System:
    """Return the system; raises UsageError with what to do when it is not clear."""
    found = _by_name(source) or _by_content(source)
    if found is None:
        known = ", ".join(System)
        message = f"{source.name}: cannot tell what this is"
        raise UsageError(message, hint=f"name it with --from; there are: {known}")
    return found


def is_database(data: bytes) -> bool:
    """Return whether it is a SQLite file."""
    return data.startswith(_SQLITE)


def _by_name(source: Source) -> System | None:
    path, name = source.path, source.path.name.lower()
    if is_database(source.data) or "://" in source.name:
        return System.JOB_STORE
    if path.suffix in _UNITS or (path.suffix == ".conf" and re.search(r"\.(timer|service)\.d/", path.as_posix())):
        return System.SYSTEMD
    if path.suffix in _SCRIPTS:
        return System.BULLMQ
    if path.suffix == ".rb":
        return System.WHENEVER
    if name == "vercel.json":
        return System.VERCEL
    if path.suffix in {".yml", ".yaml"}:
        return _yaml(source)
    if path.suffix in {".py", ".pyw"}:
        return _python(source)
    if re.search(r"(^|/)(crontab|cron\.(d|daily)/|var/spool/cron)|\.cron(tab)?$|crontab", path.as_posix()):
        return System.CRONTAB
    return None


def _by_content(source: Source) -> System | None:
    text = source.text
    tests: tuple[tuple[System, Callable[[], bool]], ...] = (
        (System.VERCEL, lambda: _is_json_with_crons(text)),
        (System.SYSTEMD, lambda: re.search(r"^\s*\[(Timer|Service)\]\s*$", text, re.MULTILINE) is not None),
        (System.WHENEVER, lambda: re.search(r"^\s*every\b.*(\bdo\b|\{)", text, re.MULTILINE) is not None),
        (System.CELERY, lambda: has_schedule(text)),
        (System.APSCHEDULER, lambda: has_jobs(text)),
        (System.BULLMQ, lambda: schedules_something(text)),
        (System.CRONTAB, lambda: any(is_job_line(line) for line in text.split("\n"))),
    )
    for system, holds in tests:
        if holds():
            return system
    return _yaml(source) if re.search(r"^[\w: '\"-]+:\s*$", text, re.MULTILINE) else None


def _yaml(source: Source) -> System | None:
    name, text = source.path.name.lower(), source.text
    has_class = re.search(r"(?:^\s+|[{,]\s*)['\"]?:?(class|klass|command)['\"]?\s*:", text, re.MULTILINE) is not None
    if name in {"recurring.yml", "recurring.yaml"}:
        return System.SOLID_QUEUE
    if "good_job" in name or "good_job" in text or re.search(r"^\s+kwargs\s*:", text, re.MULTILINE):
        return System.GOOD_JOB
    if re.search(r"^\s*:?(queues|concurrency|scheduler|schedule)['\"]?\s*:\s*(\S.*)?$", text, re.MULTILINE) and (
        name.startswith("sidekiq") or re.search(r"^\s*:?(queues|concurrency|scheduler)\s*:", text, re.MULTILINE)
    ):
        return System.SIDEKIQ
    if has_class and re.search(r"(?:^\s+|[{,]\s*)['\"]?schedule['\"]?\s*:\s*\S", text, re.MULTILINE):
        return System.SOLID_QUEUE
    if has_class and re.search(r"(?:^\s+|[{,]\s*)['\"]?(every|interval)['\"]?\s*:", text, re.MULTILINE):
        return System.SIDEKIQ_SCHEDULER
    if has_class and re.search(r"(?:^\s*-?\s*|[{,]\s*)['\"]?cron['\"]?\s*:", text, re.MULTILINE):
        return System.SIDEKIQ_CRON
    return System.SIDEKIQ if name.startswith("sidekiq") else None


def _python(source: Source) -> System | None:
    if has_schedule(source.text):
        return System.CELERY
    return System.APSCHEDULER if has_jobs(source.text) else None


def _is_json_with_crons(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "crons" in document
