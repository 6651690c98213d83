"""What a job would do if it ran now: its kind's look, with plans, counts and its history. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from batchd.config.load import Config
from batchd.db.engine import Database, driver_message
from batchd.db.explained import REFUSALS, Explained, counted, explained
from batchd.domain.job import CONFIG_REFERENCE, JobDefinition, JsonObject
from batchd.domain.schedule import parse_schedule
from batchd.errors import BatchdError
from batchd.jobs.looks import Look, LookedAt
from batchd.store.durations import JobHistory
from batchd.telemetry.masking import Masker

_ROWS = ("rows_deleted", "rows_affected", "rows", "deleted", "fetched", "records", "imported", "exported")
_SECRET_NAME = re.compile(r"auth|cookie|token|secret|passw|api.?key|credential", re.IGNORECASE)
_ELSEWHERE = {
    "http": "sends one request; what the server does with it is its own affair",
    "command": "starts a process of its own, with the daemon's rights; no database of the config is touched",
    "python": "calls your function in the daemon or in a process of its own; what it does cannot be told beforehand",
    "email": "fills in the message and hands it to the mail server; at most one mail for each run",
    "external": "executes nothing: somebody else runs it and only reports here",
}


@dataclass(frozen=True, slots=True)
class StatementReport:
    """One statement with what its database says. `rows` is counted if it could be in time, else None."""

    what: str
    database: str
    sql: str
    plan: Explained | None
    rows: int | None
    locks: str


@dataclass(frozen=True, slots=True)
class JobReport:
    """All about one job; `usually` and `at_most` are lengths of its runs so far, `expected` by the rows counted now."""

    job: str
    kind: str
    summary: str
    queue: str
    next_fire: datetime | None
    statements: tuple[StatementReport, ...]
    facts: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]
    runs_seen: int
    failing: float
    usually: timedelta | None
    at_most: timedelta | None
    expected: timedelta | None
    problem: str | None = None


def explain_job(
    config: Config,
    job: JobDefinition,
    databases: Mapping[str, Database],
    history: JobHistory | None,
    now: datetime,
    limit: timedelta,
) -> JobReport:
    """Return the report on a run that would begin `now`; no statement of ours takes longer than `limit`."""
    kind = config.kinds[job.kind]
    mask = Masker(config.secrets).masked
    problem = None
    look = Look(facts=tuple(_plain_facts(job)))
    if kind.look is not None:
        try:
            found = kind.look(kind.params.model_validate(config.params[job.name]), databases, now)
            look = Look(found.statements, found.facts, found.advice)
        except (BatchdError, KeyError, *REFUSALS) as error:
            problem = _said(error)
    statements = tuple(_report(each, databases, limit, mask) for each in look.statements)
    return JobReport(
        job=job.name,
        kind=job.kind,
        summary=_ELSEWHERE.get(job.kind, kind.summary),
        queue=job.queue,
        next_fire=parse_schedule(job.schedule, job.timezone).next_after(now) if job.schedule and job.enabled else None,
        statements=statements,
        facts=tuple((name, str(mask(value))) for name, value in look.facts),
        advice=tuple(
            dict.fromkeys(look.advice or (line for each in statements for line in _scan_advice(each, databases)))
        ),
        runs_seen=len(history.lengths) if history else 0,
        failing=history.failing if history else 0.0,
        usually=history.typical() if history else None,
        at_most=history.typical(1.0) if history else None,
        expected=_expected(statements, history),
        problem=problem,
    )


def _said(error: Exception) -> str:
    if isinstance(error, BatchdError):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    if isinstance(error, REFUSALS):
        return driver_message(error)
    return f"database {error.args[0]!r} did not answer"


def _report(
    looked: LookedAt, databases: Mapping[str, Database], limit: timedelta, mask: Callable[[Any], Any]
) -> StatementReport:
    database = databases[looked.database]
    return StatementReport(
        looked.what,
        looked.database,
        mask(looked.sql),
        None if looked.explain is None else explained(database, looked.explain, limit),
        None if looked.count is None else counted(database, looked.count, limit),
        looked.locks,
    )


def _scan_advice(statement: StatementReport, databases: Mapping[str, Database]) -> Iterable[str]:
    """Say which indexes conditions lack, where the plan names table and column."""
    if statement.plan is None or databases[statement.database].dialect.name != "postgresql":
        return
    for table, column in statement.plan.unserved:
        yield f"CREATE INDEX CONCURRENTLY ON {table} ({column});"


def _expected(statements: Iterable[StatementReport], history: JobHistory | None) -> timedelta | None:
    """Return how long the rows counted now would take, at the pace of the last runs that say how many they had."""
    rows = sum(each.rows for each in statements if each.rows is not None)
    seen = [(length, count) for length, result in (history.results if history else ()) if (count := _rows_in(result))]
    total = sum(count for _, count in seen)
    if not rows or not total:
        return None
    return sum((length for length, _ in seen), timedelta(0)) * (rows / total)


def _rows_in(result: JsonObject) -> int:
    return next((count for name in _ROWS if isinstance(count := result.get(name), int)), 0)


def _plain_facts(job: JobDefinition) -> Iterable[tuple[str, str]]:
    """Tell the params as they are stored: without secrets."""
    for name, value in job.params.items():
        if value not in (None, [], {}, ""):
            yield name, _shown(name, value)


def _shown(name: str, value: Any) -> str:
    """Return the value; not that of a secret, nor of what is called like one: a header is often written as it is."""
    if value == CONFIG_REFERENCE or _SECRET_NAME.search(name):
        return "(a secret)"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(key, part)}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(_shown("", part) for part in value)
    return str(value)
