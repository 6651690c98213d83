"""A store with a long past: many jobs, many runs, as a year of work leaves it. For plan tests, the browser and benches.

Rows are made by the database itself, so that millions take minutes. Of a hundred runs about one failed and one was
skipped; the newest days hold as many as the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text

from batchd.db.engine import Database
from batchd.store.migrate import migrate

_AT_ONCE = 50_000

_SCHEDULES = """
INSERT INTO batchd_schedules (id, kind, schedule, timezone, queue, priority, params, enabled, next_run_at, catch_up,
  catch_up_max_runs, catch_up_max_age_seconds, overlap, jitter_seconds, timeout_seconds, max_attempts, retry,
  definition_hash, created_at, updated_at)
SELECT {name}, {kind}, '*/30 * * * *', 'Europe/Berlin', 'default', 0, '{{"table": "logs"}}', {true}, {soon}, 'once',
  100, 86400, 'skip', 0, 3600, 3,
  '{{"backoff": "fixed", "delay_seconds": 1.0, "max_delay_seconds": 1.0, "jitter": 0.0}}',
  'x', {then}, {then}
FROM ({numbers}) AS numbers
"""

_RUNS = """
INSERT INTO batchd_runs (schedule_id, kind, queue, priority, params, scheduled_for, available_at, retry, state, reason,
  attempt, max_attempts, created_at, started_at, finished_at, created_by, error, result, progress_done)
SELECT {name}, {kind}, 'default', 0, '{{}}', {fire}, {fire}, '{{}}',
  CASE n % 100 WHEN 7 THEN 'failed' WHEN 31 THEN 'skipped' ELSE 'succeeded' END,
  CASE n % 100 WHEN 7 THEN 'error' WHEN 31 THEN 'overlap' END,
  1, 3, {fire}, CASE WHEN n % 100 <> 31 THEN {fire} END, {end}, 'schedule',
  CASE n % 100 WHEN 7 THEN 'the table is locked' END,
  CASE WHEN n % 100 <> 31 THEN {result} END,
  CASE WHEN n % 100 <> 31 THEN n % 5000 END
FROM ({numbers}) AS numbers
"""

_WAITING = """
INSERT INTO batchd_runs (schedule_id, kind, queue, priority, params, available_at, retry, state, attempt, max_attempts,
  created_at, started_at, lease_until, fence, created_by, progress_done, progress_total)
SELECT {name}, {kind}, 'default', 0, '{{}}', {now}, '{{}}', {state}, 0, 3, {now}, {started}, {lease}, 1, 'api', 40, 100
FROM ({numbers}) AS numbers
"""


@dataclass(frozen=True, slots=True)
class Ledger:
    """How much there is to be: runs in equal steps over `days`, dealt out to the jobs in turn."""

    runs: int
    jobs: int = 50
    days: int = 90
    running: int = 8
    queued: int = 200


def fill(store: Database, ledger: Ledger) -> None:
    """Make the tables and fill them."""
    migrate(store)
    words = _words(store, ledger)
    with store.writing() as connection:
        connection.execute(text(_SCHEDULES.format(**words, numbers=_numbers(store, 0, ledger.jobs))))
    for start in range(0, ledger.runs, _AT_ONCE):
        with store.writing() as connection:
            numbers = _numbers(store, start, min(ledger.runs, start + _AT_ONCE))
            connection.execute(text(_RUNS.format(**words, numbers=numbers)))
    running = {"state": "'running'", "started": words["now"], "lease": words["later"]}
    queued = {"state": "'queued'", "started": "NULL", "lease": "NULL"}
    with store.writing() as connection:
        for which, many in ((running, ledger.running), (queued, ledger.queued)):
            connection.execute(text(_WAITING.format(**words, **which, numbers=_numbers(store, 0, many))))
    analyse(store)


def analyse(store: Database) -> None:
    """Let the database know what it has, and which pages all can see."""
    command = "VACUUM ANALYZE" if store.dialect.name == "postgresql" else "ANALYZE"
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(command)


def job_name(number: int) -> str:
    """Return the name of a job."""
    return f"job-{number:04}"


def _numbers(store: Database, first: int, last: int) -> str:
    if store.dialect.name == "postgresql":
        return f"SELECT n FROM generate_series({first}, {last - 1}) AS n"
    return f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last - 1}) SELECT n FROM s"


def _words(store: Database, ledger: Ledger) -> dict[str, str]:
    seconds = timedelta(days=ledger.days).total_seconds()
    step = seconds / ledger.runs
    place = f"(n * {step:.9f} - {seconds:.1f})"
    took = "(1 + n % 17)"
    kinds = f"CASE n % {ledger.jobs} % 3 WHEN 0 THEN 'cleanup' WHEN 1 THEN 'sync' ELSE 'command' END"
    counts = "n % 4000"
    if store.dialect.name == "postgresql":
        return {
            "name": f"'job-' || lpad((n % {ledger.jobs})::text, 4, '0')",
            "kind": kinds,
            "true": "true",
            "soon": "now() + (n + 1) * interval '1 minute'",
            "then": "now() - interval '1 year'",
            "now": "now()",
            "later": "now() + interval '1 hour'",
            "fire": f"now() + {place} * interval '1 second'",
            "end": f"now() + ({place} + {took}) * interval '1 second'",
            "result": f"jsonb_build_object('rows_deleted', {counts}, 'added', {counts}, 'changed', 3, 'removed', 1)",
        }
    return {
        "name": f"'job-' || substr('0000' || (n % {ledger.jobs}), -4)",
        "kind": kinds,
        "true": "1",
        "soon": _sqlite_moment("(n + 1) * 60"),
        "then": _sqlite_moment("-31536000"),
        "now": _sqlite_moment("0"),
        "later": _sqlite_moment("3600"),
        "fire": _sqlite_moment(place),
        "end": _sqlite_moment(f"{place} + {took}"),
        "result": f"json_object('rows_deleted', {counts}, 'added', {counts}, 'changed', 3, 'removed', 1)",
    }


def _sqlite_moment(seconds: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', ({seconds}) || ' seconds')"
