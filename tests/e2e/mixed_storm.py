"""A storm over every sort of work at once, with the store and the application's database on servers of their own.

One run each of fan_out, each_row, csv_import, sync and a function with checkpoints, in a thread and in a process, is at
work with commands, while at random moments the daemon is killed, the application's server goes away, a process that the
daemon has started is killed, or the daemon is frozen for a moment. Afterwards each row has exactly one child and each
effect has happened once; of a command, whose effect no transaction holds, each at least once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.jobs.processes.memory import descendants
from batchd.store import control
from batchd.store.migrate import migrate
from batchd.store.schema import runs
from tests.e2e.ledger import read_tries, try_problems
from tests.e2e.storm import Verdict
from tests.support import importing, row_targets
from tests.support.app_table import opened
from tests.support.cleaning import execute
from tests.support.daemon import Daemon, write_config
from tests.support.plugin.batchd_test_kinds import appended
from tests.support.postgres import PostgresServer
from tests.support.processes import PROJECT, RunningProcess
from tests.support.waiting import wait_until

_ROWS = 900
_STEPS = 150
_COMMANDS = 20
_SETTLED_WITHIN_SECONDS = 600.0
_READY_WITHIN_SECONDS = 240.0

_CODE = """
from datetime import timedelta
from sqlalchemy import text

def steps(context, count):
    database = context.database("app")
    done = (context.checkpoint(database) or {}).get("step", 0)
    for step in range(done + 1, count + 1):
        context.wait(timedelta(seconds=0.1))
        with context.writing(database) as connection:
            connection.execute(text("INSERT INTO steps VALUES (:run, :step)"), {"run": context.run_id, "step": step})
            context.save_checkpoint(connection, database, {"step": step})
        context.progress(step, count, "steps")
    return {"steps": count}
"""

_TABLES = (
    "CREATE TABLE steps (run bigint, step integer)",
    "CREATE TABLE mirror (id integer PRIMARY KEY, name text NOT NULL)",
)


class MixedField:
    """A store, an application's database, and jobs of all sorts on them."""

    def __init__(self, folder: Path, store_url: str, app_url: str, app_server: PostgresServer | None) -> None:
        self.store_url, self.app_url, self.app_server = store_url, app_url, app_server
        self.said = folder / "said"
        (folder / "stepping.py").write_text(_CODE)
        (folder / "users.csv").write_text(importing.HEADER + importing.lines(range(_ROWS)))
        (folder / "mirror.csv").write_text("id,name\n" + "".join(f"{n},m{n}\n" for n in range(_ROWS)))
        retry = {"max_attempts": 500, "backoff": "fixed", "delay": "1s"}
        walked: dict[str, Any] = {"database": "app", "batch_size": 5, "retry": retry}
        steps = {"kind": "python", "target": "stepping:steps", "arguments": {"count": _STEPS}, "retry": retry}
        child = {"job": "append", "tags": ["{code}"], "unique_key": "row {tenant}-{code}"}
        self.config = write_config(
            folder,
            {
                "daemon": {"state": str(folder), "import_path": [str(folder), str(PROJECT)]},
                "store": {"url": store_url},
                "databases": {"app": {"url": app_url}},
                "jobs": {
                    "fan": {**walked, "kind": "fan_out", "table": "people", "enqueue": child},
                    "append": {"kind": "append", "database": "app", "retry": retry},
                    "walk": {
                        **walked,
                        "kind": "each_row",
                        "table": "people",
                        "target": "tests.support.row_targets:record_slowly",
                    },
                    "load": {**walked, "kind": "csv_import", "table": "users", "path": "users.csv", "pause": "50ms"},
                    "mirror": {
                        **walked,
                        "kind": "sync",
                        "schedule": "0 0 29 2 *",  # not each hour, in the middle of the storm
                        "table": "mirror",
                        "key": ["id"],
                        "fields": {"id": "id", "name": "name"},
                        "file": "mirror.csv",
                        "on_missing": "delete",
                        "max_missing": "100%",
                        "pause": "50ms",
                    },
                    "thread": {**steps, "isolation": "thread"},
                    "process": {**steps, "isolation": "process"},
                    "command": {
                        "kind": "command",
                        "command": ["sh", "-c", f"echo $BATCHD_RUN_ID >> {self.said}; sleep 0.5"],
                        "overlap": "allow",
                        "retry": retry,
                    },
                },
            },
        )
        with opened(app_url) as app:
            execute(app, *_TABLES, *row_targets.TABLES.split(";"))
            importing.users_table(app, key=False)
            appended.metadata.create_all(app.engine)
            with app.writing() as connection:
                rows = [{"tenant": n % 5, "code": f"c{n // 5:04}", "age": n} for n in range(_ROWS)]
                connection.execute(text("INSERT INTO people VALUES (:tenant, :code, :age)"), rows)
                connection.execute(text("INSERT INTO mirror VALUES (1, 'other'), (9999, 'gone')"))
        with opened(store_url) as store:
            migrate(store)

    def problems(self, store: Database) -> list[str]:
        """Return what is wrong with the effects; reads everything."""
        with opened(self.app_url) as app, app.reading() as connection:

            def read(query: str) -> list[Any]:
                return [tuple(row) for row in connection.execute(text(query))]

            effects = Counter(read("SELECT tenant, code FROM effects"))
            users = Counter(read("SELECT email FROM users"))
            mirror = Counter(read("SELECT id, name FROM mirror"))
            steps = Counter(read("SELECT run, step FROM steps"))
            appends = Counter(run_id for (run_id,) in read(_APPENDS))
        with store.reading() as connection:
            rows = connection.execute(select(runs)).all()
        ids = {name: [row.id for row in rows if row.schedule_id == name] for name in ("thread", "process", "command")}
        children = [row for row in rows if row.parent_id is not None]
        stepped = [
            (run_id, step) for name in ("thread", "process") for run_id in ids[name] for step in range(1, _STEPS + 1)
        ]
        said = set(map(int, self.said.read_text().split()))
        wanted = {
            "each_row": (effects, Counter((n % 5, f"c{n // 5:04}") for n in range(_ROWS))),
            "csv_import": (users, Counter((f"u{n}@example.org",) for n in range(_ROWS))),
            "sync": (mirror, Counter((n, f"m{n}") for n in range(_ROWS))),
            "functions": (steps, Counter(stepped)),
            "children": (Counter(row.tags[0] for row in children), Counter(f"c{n // 5:04}" for n in range(_ROWS))),
            "children's effects": (appends, Counter(row.id for row in children)),
            "commands": (Counter(said & set(ids["command"])), Counter(ids["command"])),
        }
        found = [
            f"{name}: {sum((is_so - should).values())} too many, {sum((should - is_so).values())} missing"
            for name, (is_so, should) in wanted.items()
            if is_so != should
        ]
        reported = [row for row in rows if row.schedule_id in {"backup", "killed"}]
        found += [f"run {row.id} ({row.kind}) is {row.state}: {row.error}" for row in rows if not _is_well(row)]
        found += [] if len(reported) == 2 else [f"{len(reported)} reported runs instead of 2"]
        succeeded = frozenset(row.id for row in rows if row.state == RunState.SUCCEEDED.value)
        return found + try_problems(read_tries(store), succeeded)


_APPENDS = f"SELECT run_id FROM {appended.name}"


def mixed_storm(place: MixedField, *, blows: int, seed: int) -> Verdict:
    """Strike daemon, database and processes in turn at random moments, then let everything come to its end."""
    dice = random.Random(seed)
    modes = itertools.cycle(("fast", "immediate"))
    with contextlib.ExitStack() as stack, opened(place.store_url) as store:
        daemon = stack.enter_context(Daemon(place.config))
        daemon.ready(_READY_WITHIN_SECONDS)
        for name in ("fan", "walk", "load", "mirror", "thread", "process", *["command"] * _COMMANDS):
            control.trigger(store, name, {}, created_by=CreatedBy.CLI)
        killed = stack.enter_context(_reporter(place.config, "killed"))
        reporter = stack.enter_context(_reporter(place.config, "backup"))
        wait_until(lambda: _count(store, RunState.RUNNING, "killed"), seconds=240, what=f"a report:\n{reporter.output}")
        killed.kill()
        struck: Counter[str] = Counter()
        for _ in range(blows):
            time.sleep(dice.uniform(0.2, 2))
            assert daemon.code is None, f"the daemon ended by itself with {daemon.code}:\n{daemon.output[-4000:]}"
            blow = dice.choice(("daemon", "server", "child", "freeze"))
            struck[blow] += 1
            if blow == "daemon":
                daemon.kill()
                daemon = stack.enter_context(Daemon(place.config))
                daemon.ready(_READY_WITHIN_SECONDS)
            elif blow == "server" and place.app_server is not None:
                place.app_server.stop(next(modes))
                time.sleep(dice.uniform(0.2, 2))
                place.app_server.start()
            elif blow == "child":
                _kill_one(dice, descendants(daemon.pid))
            else:
                daemon.signal(signal.SIGSTOP)
                time.sleep(dice.uniform(0.1, 2))
                daemon.signal(signal.SIGCONT)
        wait_until(lambda: not _count(store), seconds=_SETTLED_WITHIN_SECONDS, what=f"settled\n{daemon.output[-3000:]}")
        code = daemon.stop()
        problems = [] if code == 0 else [f"the last daemon ended with {code}:\n{daemon.output[-2000:]}"]
        problems += place.problems(store)
        with store.reading() as connection:
            states = Counter(connection.execute(select(runs.c.state)).scalars())
        lost = sum(attempt.outcome in ("lost", "released") for attempt in read_tries(store))
    return Verdict(struck.total(), states, 0, lost, problems)


def _is_well(row: Any) -> bool:
    return row.state == RunState.SUCCEEDED.value or (row.schedule_id == "killed" and row.reason == "lost")


def _reporter(config: Path, job: str) -> RunningProcess:
    """Start a command under `batchd exec`, which tells the store of it."""
    return Daemon(config, "-j", job, "--", "sleep", "10", command="exec")


def _kill_one(dice: random.Random, pids: Sequence[int]) -> None:
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(list(pids)), signal.SIGKILL)


def _count(store: Database, state: RunState | None = None, job: str | None = None) -> int:
    """Return how many runs are in the state, or not final; of the job, or of all."""
    states = [state.value] if state else [each.value for each in RunState if not each.is_final]
    with store.reading() as connection:
        found = connection.execute(select(runs.c.schedule_id).where(runs.c.state.in_(states))).scalars().all()
    return sum(job in (None, each) for each in found)
