"""APScheduler 3's job stores: id and next run, which stand in columns of their own; the pickled rest is never loaded.

Loading a pickle runs whatever it says. pickletools only lists it: so the texts in it can be shown, as texts.
"""

from __future__ import annotations

import pickletools
import re
import shlex
from datetime import UTC, datetime, timedelta

from batchd.moving.commands import shell_settings
from batchd.moving.found import Findings, FoundJob, Options, Place, paragraphs
from batchd.moving.python_source.apscheduler_calls import SYSTEM

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_TRIGGERS = {"CronTrigger": "a cron trigger", "IntervalTrigger": "an interval", "DateTrigger": "a date"}
_MOST_TEXTS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REMARKS = paragraphs("""
A job store holds the id and the next run of each job in columns; its trigger, function and arguments are pickled,
and a pickle can only be read by running it. So batchd cannot know the schedule. What is told of function and
trigger below are texts found in the blob, not more.

To see the schedules, let the application print them: `python -c "from yourapp import scheduler;
scheduler.start(paused=True); scheduler.print_jobs()"`; or convert the Python source that adds the jobs.
""")


def read_job_store(
    name: str, rows: list[tuple[str, float | None, bytes]], options: Options, findings: Findings
) -> None:
    """Add a job for each row, without a schedule and disabled."""
    findings.remark(SYSTEM, *_REMARKS)
    for job_id, next_run, blob in rows:
        findings.add(_job(name, job_id, next_run, blob, options))


def texts_in(blob: bytes) -> list[str]:
    """Return the texts of a pickle in their order, those before a damaged place; nothing is loaded."""
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(blob):
            if isinstance(argument, str):
                found += argument.split(" ") if opcode.name == "GLOBAL" else [argument]
            if len(found) >= _MOST_TEXTS:
                break
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError):
        pass  # what was listed so far still stands
    return found


def _job(store: str, job_id: str, next_run: float | None, blob: bytes, options: Options) -> FoundJob:
    texts = texts_in(blob)
    reference = _after(texts, "func")
    trigger = next((said for name, said in _TRIGGERS.items() if name in texts), "a trigger of unknown class")
    when = _moment(next_run)
    module, _, function = reference.partition(":")
    first = function.partition(".")[0]
    code = f"from {module} import {first}; {function}()" if reference else "raise SystemExit('say here what to run')"
    original = f"id={job_id!r} next_run_time={when} job_state=<{len(blob)} bytes>"
    settings = shell_settings(f"python -c {shlex.quote(code)}")
    job = FoundJob(Place(store), job_id, original, f"next run {when}; {trigger}", settings)
    job.settings["timezone"] = options.timezone
    job.disable(
        f"its next run is {when}; its schedule ({trigger}) and arguments are pickled, so not known: set `schedule`"
        + ("" if reference else " and `command`")
    )
    if reference:
        job.checks.append(f"the text `{reference}` in the blob is probably its function")
    return job


def _after(texts: list[str], key: str) -> str:
    """Return the text that follows the key, when it looks like a function."""
    for index, text in enumerate(texts[:-1]):
        if text == key and _REFERENCE.fullmatch(texts[index + 1]):
            return texts[index + 1]
    return ""


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "never (paused)"
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError):
        return f"{seconds} s after 1970"
