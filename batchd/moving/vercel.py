"""vercel.json: its crons as jobs that call the application, with the secret that Vercel sends."""

from __future__ import annotations

import fnmatch
import json
from datetime import timedelta
from typing import Any

from batchd.domain.quantities import format_duration
from batchd.errors import UsageError
from batchd.moving.commands import ONCE
from batchd.moving.cron_fields import Days, Dialect, Untranslatable, apply_timing, translate
from batchd.moving.found import Findings, FoundJob, Options, Place, Source, TomlValue, paragraphs
from batchd.moving.toml_text import WithVariables, dollars_escaped
from batchd.moving.words import in_words

SYSTEM = "Vercel Cron"
DIALECT = Dialect("Vercel", Days.EITHER)

_NO_URL = "${APP_URL:-https://app.example.com}"
_REMARKS = paragraphs("""
Vercel's schedules are in UTC, and so are these; write `timezone` to have them follow local time.

Vercel sends a GET with `Authorization: Bearer CRON_SECRET`; so does `token`. CHECK: set CRON_SECRET for the daemon
(or in the `.env` beside the config): until then the application answers 401 and the runs fail.

Vercel calls once, whatever the answer; so `tries` and `retry` are 1. Raise them where the handler bears a second
call: retries are what a scheduler of your own is good for.

Vercel may call late (on the Hobby plan at any time within the hour) or, rarely, twice; batchd calls on the second,
and a fire time has one run. A call does not start while the last one is unanswered.

`timeout` is the function's maxDuration, else 5 minutes; the server may be silent as long (`request_timeout`).
""")
_KNOWN = frozenset({"path", "schedule"})


def read_vercel(source: Source, options: Options, findings: Findings) -> None:
    """Add the crons; raises UsageError when it is no JSON."""
    document = _parsed(source)
    findings.remark(SYSTEM, *_REMARKS)
    if options.base_url is None:
        findings.remark(SYSTEM, "CHECK: set APP_URL to where the application is, or name it with --base-url")
    functions = document.get("functions")
    lines = source.text.split("\n")
    for number, entry in enumerate(_listed(document.get("crons"))):
        place = Place(source.name, _line_of(entry, lines, number))
        if not (
            isinstance(entry, dict) and isinstance(entry.get("path"), str) and isinstance(entry.get("schedule"), str)
        ):
            findings.keep(
                place,
                json.dumps(entry, ensure_ascii=False),
                "an entry of `crons`",
                "CHECK: it has no path and schedule",
            )
            continue
        findings.add(_job(entry, place, options, functions if isinstance(functions, dict) else {}))
    others = [key for key in document if key not in {"crons", "$schema"}]
    if others:
        findings.keep(Place(source.name), ", ".join(others), "other keys of vercel.json", "no schedules")


def _job(entry: dict[str, Any], place: Place, options: Options, functions: dict[str, Any]) -> FoundJob:
    path = entry["path"]
    seconds = _max_duration(path, functions)
    base = (options.base_url or _NO_URL).rstrip("/")
    address = dollars_escaped(path if path.startswith("/") else f"/{path}")
    settings: dict[str, TomlValue] = {
        "kind": "http",
        "url": WithVariables((dollars_escaped(base) if options.base_url else base) + address),
        "token": WithVariables("${CRON_SECRET:-change-me}"),
        "timeout": format_duration(seconds),
        "request_timeout": format_duration(seconds),
        "tries": 1,
        "retry": dict(ONCE),
        "catch_up": "skip",
    }
    name = path.partition("?")[0].removeprefix("/api/").removeprefix("/").removeprefix("cron/")
    original = json.dumps({key: entry[key] for key in entry if key in _KNOWN}, ensure_ascii=False)
    job = FoundJob(place, name or "cron", original, "", settings)
    job.commented.append('headers = { User-Agent = "vercel-cron/1.0" }   # where the handler looks for it')
    try:
        apply_timing(job, translate(entry["schedule"], DIALECT, "UTC"))
    except Untranslatable as error:
        job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
    job.meaning = f"{in_words(job.settings.get('schedule'), 'UTC')}; GET {path}"
    for key in entry.keys() - _KNOWN:
        job.checks.append(f"`{key}: {entry[key]}` has no match in batchd")
    return job


def _parsed(source: Source) -> dict[str, Any]:
    try:
        document = json.loads(source.text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{source.name}:{error.lineno}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{source.name}: not JSON that batchd reads: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{source.name}: not a vercel.json, which is an object with `crons`")
    return document


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _line_of(entry: Any, lines: list[str], number: int) -> int:
    """Return the line on which the entry's path stands."""
    path = entry.get("path") if isinstance(entry, dict) else None
    wanted = json.dumps(path)[1:-1] if isinstance(path, str) else ""
    found = [index for index, line in enumerate(lines, start=1) if wanted and f'"{wanted}"' in line and "path" in line]
    return found[0] if len(found) == 1 else found[min(number, len(found) - 1)] if found else 0


def _max_duration(path: str, functions: dict[str, Any]) -> timedelta:
    """Return the longest time of the function behind a path: 5 minutes unless `functions` says otherwise."""
    file = path.partition("?")[0].strip("/")
    for pattern, settings in functions.items():
        limit = settings.get("maxDuration") if isinstance(settings, dict) else None
        inner = pattern.removeprefix("src/").removeprefix("app/").removeprefix("pages/")
        stems = (inner, inner.rsplit(".", 1)[0], inner.rsplit("/route.", 1)[0])
        if isinstance(limit, int) and 0 < limit <= 86_400 and any(fnmatch.fnmatch(file, stem) for stem in stems):  # noqa: PLR2004
            return timedelta(seconds=limit)
    return timedelta(minutes=5)
