"""health_check: whether each database answers, in time, and how far it is from trouble.

Each database is asked over a short-lived connection of its own, outside any pool, so that an exhausted pool or server
shows as well; and under a deadline of its own, after which the connection is cut, whatever the server does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import text

from batchd.db.engine import Database, Interrupts, driver_message, file_of
from batchd.db.vitals import Vital, vitals_of
from batchd.domain.job import JsonObject
from batchd.errors import BatchdError, JobError, RunInterrupted, StopReason
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.looks import Look, look_at_sql
from batchd.jobs.params import ByteSize, Duration

_AT_ONCE = 8
_CUT_WITHIN = timedelta(milliseconds=200)
_RANK = {"ok": 0, "warn": 1, "fail": 2}


class _Threshold(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DurationThreshold(_Threshold):
    """Durations from which a check warns or fails."""

    warn: Duration | None = None
    fail: Duration | None = None


class PercentThreshold(_Threshold):
    """Percentages from which a check warns or fails."""

    warn: float | None = Field(default=None, ge=0, le=100)
    fail: float | None = Field(default=None, ge=0, le=100)


class SizeThreshold(_Threshold):
    """Sizes from which a check warns or fails."""

    warn: ByteSize | None = None
    fail: ByteSize | None = None


class HealthParams(Params):
    """Which databases to ask, how long to wait, and from where a value is too much."""

    databases: list[str] = Field(default=["*"], description='Names of [databases.NAME]; ["*"] means all of them.')
    deadline: Duration = Field(
        default=timedelta(seconds=5), description="Longest time for one database, the connection included."
    )
    fail_after: int = Field(
        default=2, ge=1, description="Failed checks of a database in a row before the run counts as failed."
    )
    latency: DurationThreshold = Field(
        default=DurationThreshold(warn=timedelta(milliseconds=500), fail=timedelta(seconds=2)),
        description="Time from connecting to the answer of SELECT 1.",
    )
    connections: PercentThreshold = Field(
        default=PercentThreshold(warn=80, fail=95), description="Share of the server's connections in use (PostgreSQL)."
    )
    oldest_transaction: DurationThreshold = Field(
        default=DurationThreshold(warn=timedelta(hours=1), fail=timedelta(hours=12)),
        description="Age of the oldest open transaction, which keeps dead rows alive (PostgreSQL).",
    )
    replication_lag: DurationThreshold = Field(
        default=DurationThreshold(warn=timedelta(minutes=1), fail=timedelta(minutes=15)),
        description="Delay of the slowest replica, or of this one; nothing where there is none (PostgreSQL).",
    )
    transaction_age: PercentThreshold = Field(
        default=PercentThreshold(warn=50, fail=80),
        description="How far to the wraparound of transaction ids (PostgreSQL).",
    )
    size: SizeThreshold = Field(default=SizeThreshold(), description="Size of the database.")
    free_disk: SizeThreshold = Field(
        default=SizeThreshold(warn=1_000_000_000, fail=100_000_000),
        description="Space left beside the file; too little is too bad (SQLite).",
    )

    @field_validator("databases")
    @classmethod
    def _names_one(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError('is empty; write ["*"] for all databases')
        return value

    @field_validator("deadline")
    @classmethod
    def _is_long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("must be at least 1s")
        return value


def run(params: HealthParams, context: JobContext) -> JsonObject:
    """Ask all databases at once; return each check with its value, thresholds and state."""
    names = context.database_names() if "*" in params.databases else tuple(params.databases)
    databases = [context.database(name) for name in names]
    before = _failures_before(context.previous_result)
    with ThreadPoolExecutor(min(_AT_ONCE, len(databases) or 1), thread_name_prefix="health") as threads:
        # Each thread gets the run's context, so that what a library logs there carries the run's id as well.
        asked = [threads.submit(copy_context().run, _report_in_time, database, params) for database in databases]
        reports = [each.result() for each in asked]
    found: dict[str, Any] = {}
    for name, report in zip(names, reports, strict=True):
        failures = before.get(name, 0) + 1 if report["state"] == "fail" else 0
        found[name] = {**report, "failures": failures}
        _tell(context, name, found[name], before.get(name, 0))
        context.progress(len(found), len(names), name)
    worst = max((report["state"] for report in reports), key=_RANK.__getitem__, default="ok")
    result: JsonObject = {"state": worst, "databases": found}
    failing = [name for name in names if found[name]["failures"] >= params.fail_after]
    if failing:
        said = "; ".join(f"{name}: {_complaint(found[name])}" for name in failing)
        # Another attempt would only count the same outage twice; the next scheduled check asks again.
        raise JobError(said, retryable=False, result=result)
    return result


def _report_in_time(database: Database, params: HealthParams) -> dict[str, Any]:
    """Return the report, at the deadline at the latest.

    A connection that is still being made then is given up by the driver, with its thread: after two seconds at the
    least for each of a server's addresses.
    """
    reported: Future[dict[str, Any]] = Future()

    def report() -> None:
        reported.set_result(_report(database, params))

    threading.Thread(target=copy_context().run, args=(report,), name="health-ask", daemon=True).start()
    try:
        return reported.result(params.deadline.total_seconds())
    except TimeoutError:
        return _unanswered(params)


def _unanswered(params: HealthParams) -> dict[str, Any]:
    return {"state": "fail", "error": f"no answer within {params.deadline.total_seconds():g} s", "checks": []}


def _report(database: Database, params: HealthParams) -> dict[str, Any]:
    try:
        vitals = _ask(database, params.deadline)
    except RunInterrupted:
        return _unanswered(params)
    except BatchdError as error:
        return {"state": "fail", "error": error.message, "checks": []}
    except Exception as error:  # noqa: BLE001 (whatever the driver says is this database's ailment)
        return {"state": "fail", "error": driver_message(error), "checks": []}
    checks = [_judged(vital, params) for vital in vitals]
    worst = max((check["state"] for check in checks), key=_RANK.__getitem__)
    return {"state": worst, "error": None, "checks": checks}


def _ask(database: Database, deadline: timedelta) -> list[Vital]:
    """Return the vitals over a connection of our own, cut at the deadline; raises RunInterrupted then."""
    file = file_of(database.settings.url)
    if file is not None and not Path(file).exists():
        raise JobError(f"there is no file {file}")
    # Whatever happens, the thread ends: connecting is bounded by itself, everything after it by the timer.
    settings = replace(
        database.settings,
        pool_size=1,
        connect_timeout=deadline * 0.8,
        statement_timeout=deadline,
        lock_timeout=deadline,
    )
    mine = Database(settings)
    interrupts = Interrupts()
    timer = threading.Timer(
        (deadline - _CUT_WITHIN).total_seconds(), interrupts.cancel, [StopReason.TIMEOUT], {"within": _CUT_WITHIN}
    )
    timer.daemon = True
    timer.start()
    started = perf_counter()
    try:
        with mine.reading(interrupts) as connection:
            connection.execute(text("SELECT 1"))
            latency = perf_counter() - started
            return [Vital("latency", latency, "seconds"), *vitals_of(connection, settings.url)]
    finally:
        timer.cancel()
        mine.close()


def _judged(vital: Vital, params: HealthParams) -> dict[str, Any]:
    threshold = getattr(params, vital.name, None)
    warn, fail = _plain(getattr(threshold, "warn", None)), _plain(getattr(threshold, "fail", None))
    state = "ok"
    if vital.name == "quick_check":
        state = "fail" if vital.value else "ok"
    elif vital.value is not None:
        is_low = vital.name == "free_disk"
        for level, bound in (("warn", warn), ("fail", fail)):
            if bound is not None and (vital.value <= bound if is_low else vital.value >= bound):
                state = level
    value = None if vital.value is None else round(vital.value, 6)
    return {"check": vital.name, "value": value, "unit": vital.unit, "warn": warn, "fail": fail, "state": state}


def _plain(bound: Any) -> float | None:
    return bound.total_seconds() if isinstance(bound, timedelta) else bound


def _tell(context: JobContext, name: str, report: Mapping[str, Any], failures_before: int) -> None:
    context.log.debug("health.checked", database=name, state=report["state"])
    if report["error"]:
        context.log.warning("health.degraded", database=name, check="connect", state="fail", reason=report["error"])
    for check in report["checks"]:
        if check["state"] != "ok":
            context.log.warning("health.degraded", database=name, **check)
    if failures_before and report["state"] != "fail":
        context.log.info("health.recovered", database=name, failures=failures_before)


def _complaint(report: Mapping[str, Any]) -> str:
    failures = report["failures"]
    often = "for the first time" if failures == 1 else f"{failures} times in a row"
    if report["error"]:
        return f"{report['error']} ({often})"
    bad = [
        f"{check['check']} is {check['value']:g} {check['unit']}"
        for check in report["checks"]
        if check["state"] == "fail"
    ]
    return f"{', '.join(bad)} ({often})"


def _failures_before(previous: Mapping[str, Any] | None) -> dict[str, int]:
    """Return how often each database had failed in a row by the last run."""
    databases = (previous or {}).get("databases")
    if not isinstance(databases, Mapping):
        return {}
    return {
        name: report["failures"]
        for name, report in databases.items()
        if isinstance(report, Mapping) and isinstance(report.get("failures"), int)
    }


def _databases(params: HealthParams) -> Sequence[str]:
    return params.databases


def _look(params: HealthParams, databases: Mapping[str, Database], now: datetime) -> Look:  # noqa: ARG001
    names = sorted(databases) if "*" in params.databases else [name for name in params.databases if name in databases]
    looked = [
        look_at_sql(databases[name], "asks over a connection of its own, then for its vitals", "SELECT 1")
        for name in names
    ]
    return Look(
        tuple(looked), (("deadline", f"{params.deadline.total_seconds():g} s"), ("fails after", str(params.fail_after)))
    )


KIND = Kind(
    name="health_check",
    summary="Asks databases whether they are well: latency, connections, old transactions, replication, disk.",
    params=HealthParams,
    run=run,
    example="""
[jobs.health]
kind = "health_check"
schedule = "every 5m"
databases = ["*"]
deadline = "5s"
fail_after = 2
latency = { warn = "500ms", fail = "2s" }
connections = { warn = 80, fail = 95 }
""",
    databases=_databases,
    look=_look,
    defaults={"schedule": "every 5m", "catch_up": "skip", "timeout": "2m"},
)
