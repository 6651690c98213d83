"""structlog: one JSON object a line on stdout, or a readable line when stdout is a terminal.

Libraries' logging goes through the same pipe. Tracebacks never show local variables. Secrets are masked last.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from types import MappingProxyType
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from batchd import __version__
from batchd.clock import SystemClock
from batchd.systemd import is_journal, journal
from batchd.telemetry.events import fields_in_message, message_of
from batchd.telemetry.fingerprint import fingerprint
from batchd.telemetry.line_output import Line, output_to
from batchd.telemetry.masking import Masker

LineSink = Callable[[EventDict], None]
"""Gets every masked line as a dict; must be quick and never raise."""

_LONGEST_ESCAPE = len(r"\ud83d\ude00")
_LONGEST_LINE = 40_000
_LONGEST_STACK = 16_000
_LONGEST_PART = 1_000
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LEVELS = {"warn": "warning", "exception": "error"}
"""The level of what structlog calls otherwise."""

_FIRST = ("ts", "level", "event", "msg")

LOG_SCHEMA = 1
"""The `schema` of every line: grows when a field is renamed, removed or gets another meaning; new ones may come."""


_OF_RUN: ContextVar[Mapping[str, Any]] = ContextVar("batchd_run", default=MappingProxyType({}))
"""One variable for all fields of a run: structlog's one a field costs ten times as much for each run."""


@contextlib.contextmanager
def in_every_line(fields: Mapping[str, Any]) -> Iterator[None]:
    """Put the fields into every line that the block logs, from this thread or one with a copy of its context."""
    token = _OF_RUN.set(fields)
    try:
        yield
    finally:
        _OF_RUN.reset(token)


def get_logger(**fields: Any) -> FilteringBoundLogger:
    """Return a logger with the fields bound. Any thread may use it; events are those of `batchd.telemetry.events`."""
    return cast("FilteringBoundLogger", structlog.get_logger(**fields))


def configure_logging(
    *,
    level: str,
    log_format: str,
    secrets: Collection[str],
    sink: LineSink | None = None,
    stream: TextIO | None = None,
    instance: str | None = None,
) -> None:
    """Send every log line of the process to `stream` (stdout) and, masked, to `sink`.

    `instance` tells this process from every other one in each line. Called again, it takes effect with the next line,
    whatever thread logs it. Where stdout is systemd's journal, a line goes there as an entry with fields.
    """
    out = sys.stdout if stream is None else stream
    as_json = log_format == "json" or (log_format == "auto" and not out.isatty())
    numeric = logging.getLevelNamesMapping()[level.upper()]
    pipe = _Pipe(out, Masker(secrets), sink, as_json=as_json, instance=instance)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _error, pipe],  # a team's jobs may bind some
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(max(numeric, logging.WARNING))
    logging.captureWarnings(capture=True)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Let no line be written while the block lasts: for work that only looks as if it happened. Main thread."""
    before = structlog.get_config()
    structlog.configure(
        processors=[_dropped],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


class _Pipe:
    """The last processor: completes, masks, renders and writes one line."""

    def __init__(
        self, out: TextIO, masker: Masker, sink: LineSink | None, *, as_json: bool, instance: str | None
    ) -> None:
        self._masker = masker
        self._sink = sink
        self._as_json = as_json
        self._clock = SystemClock()
        self._prefixed = _goes_to_journal(out)
        self._journal = journal() if self._prefixed else None
        self._output = output_to(out, self._in_ascii, self._journal)
        self._bound = {
            "service": "batchd",
            "version": __version__,
            **({} if instance is None else {"instance": instance}),
            "host": platform.node(),
            "pid": os.getpid(),
            "schema": LOG_SCHEMA,
        }
        self._bound_json = _json(self._bound)[1:]

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        now = self._clock.now()
        name = event.pop("event")
        said: dict[str, Any] = {"msg": "", **_OF_RUN.get(), **event}
        said["msg"] = message_of(name, said)
        ours = {
            "ts": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": _LEVELS.get(method, method),
            "event": name,
        }
        # First, and whatever a job calls its fields.
        line, text = _bounded({**ours, **self._masker.masked_fields(said), **ours})
        if self._sink is not None and "run_id" in line:
            self._sink(line)
        shown = f"{text[:-1]},{self._bound_json}" if self._as_json else _readable(line, now)
        prefix = f"<{_PRIORITIES[line['level']]}>" if self._prefixed else ""
        entry = None if self._journal is None else _entry(line, shown)
        self._output.write(Line(f"{prefix}{shown}\n", entry))
        raise structlog.DropEvent

    def _in_ascii(self, shown: str) -> str:
        if self._as_json:
            return "".join(part if part.isascii() else json.dumps(part)[1:-1] for part in shown)
        return shown.encode("ascii", "backslashreplace").decode()


_json = json.JSONEncoder(default=str, ensure_ascii=False, separators=(",", ":")).encode
_ascii_json = json.JSONEncoder(default=str, separators=(",", ":")).encode


def _bounded(line: EventDict) -> tuple[EventDict, str]:
    """Return the line, or what is short in it where journald would split the whole; and it as JSON."""
    text = _json(line)
    if len(text) * _LONGEST_ESCAPE <= _LONGEST_LINE or len(_ascii_json(line)) <= _LONGEST_LINE:
        return line, text
    short: EventDict = {key: value for key, value in line.items() if not isinstance(value, dict | list)}
    error = line.get("error")
    if isinstance(error, dict):
        short["error"] = {key: _cut(value) for key, value in error.items()}
    cut = {**{key: _cut(value) for key, value in short.items()}, "truncated": True}
    return cut, _json(cut)


class _Bridge(logging.Handler):
    """Takes the lines of other libraries' logging into the same pipe."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower() if record.levelname.lower() in _PRIORITIES else "info"
        tell = getattr(get_logger(), level)
        tell("library.message", logger=record.name, text=record.getMessage(), exc_info=record.exc_info or None)


def _dropped(_logger: WrappedLogger, _method: str, _event: EventDict) -> EventDict:
    raise structlog.DropEvent


def _error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn exc_info into a plain `error` object: type, message and the end of the stack, without local variables."""
    if "exc_info" not in event and "error" not in event:
        return event
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        stack = "".join(traceback.format_exception(error))[-_LONGEST_STACK:]
        event["error"] = {"type": type(error).__name__, "message": str(error), "stack": stack}
    told = event.get("error")
    if isinstance(told, dict) and "type" in told:
        said = str(told.get("message") or "")
        event["error"] = {**told, "fingerprint": fingerprint(str(told["type"]), said, told.get("stack"))}
    return event


def _entry(line: EventDict, shown: str) -> dict[str, object]:
    """Return the line as an entry of the journal; what somebody may search for has a field of its own."""
    searchable = {"BATCHD_EVENT": "event", "BATCHD_JOB": "job", "BATCHD_RUN_ID": "run_id", "BATCHD_ATTEMPT": "attempt"}
    return {
        "MESSAGE": shown,
        "PRIORITY": _PRIORITIES[line["level"]],
        "SYSLOG_IDENTIFIER": "batchd",
        **{name: line[key] for name, key in searchable.items() if line.get(key) is not None},
    }


def _cut(value: Any) -> Any:
    return f"{value[:_LONGEST_PART]} …" if isinstance(value, str) and len(value) > _LONGEST_PART else value


def _readable(line: EventDict, now: datetime) -> str:
    skipped = {*_FIRST, "run_id", "job", "error", "loop", *fields_in_message(line["event"])}
    who = f" {line['job']}#{line['run_id']}" if "job" in line and "run_id" in line else ""
    told = [(key, value) for key, value in line.items() if key not in skipped]
    fields = " ".join(part for part in (_flat(key, value) for key, value in told) if part)
    text = f"{now.astimezone():%H:%M:%S.%f}"[:-3] + f" {line['level'][:4]:4} {line['event']:22}{who} {line['msg']}"
    if fields:
        text += f"  ({fields})"
    error = line.get("error")
    if isinstance(error, dict) and error.get("stack"):
        text += "\n" + "\n".join("    " + part for part in str(error["stack"]).splitlines())
    return text


def _flat(key: str, value: Any) -> str:
    """Return "key=value"; of a nested value its plain parts: `batchd show` and the JSON format have the rest."""
    pairs = value.items() if isinstance(value, dict) else [(key, value)]
    plain = [(name, inner) for name, inner in pairs if not isinstance(inner, dict | list | None)]
    return " ".join(f"{name}={inner}" for name, inner in plain)


def _goes_to_journal(out: TextIO) -> bool:
    try:
        return is_journal(out.fileno())
    except (OSError, ValueError):
        return False
