"""Storms: daemons killed, databases stopped, at random moments under load; afterwards every promise is checked.

Twenty schedules fire every second (half of them append a row, once for each run), and a cleanup with a checkpoint
deletes rows that the storm goes on adding, from a table that also holds rows which it must not touch.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from batchd.db.engine import Database
from batchd.domain.run import RunState
from batchd.store.schema import runs
from tests.e2e.ledger import fire_problems, read_fires, read_tries, try_problems
from tests.support.app_table import CLEANUP, GOES, STAYS, add_victims, count_victims, make_victims, opened
from tests.support.daemon import Daemon, write_config
from tests.support.plugin.batchd_test_kinds import appended
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

SECOND = timedelta(seconds=1)
_SETTLED_WITHIN_SECONDS = 150.0
_GUARDED = 4_000
_ADDED = 1_000


@dataclass(frozen=True)
class Verdict:
    """What became of everything; `problems` is empty when every promise was kept."""

    blows: int
    states: Counter[str]
    fires: int
    lost_attempts: int
    problems: list[str]

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        said = "kept every promise" if not self.problems else f"{len(self.problems)} PROBLEMS"
        lines = [
            f"{self.blows} blows, {self.fires} fire times, {states}, {self.lost_attempts} attempts cut short: {said}"
        ]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems[:20])])


@dataclass
class Battlefield:
    """A store and an application's database under load."""

    folder: Path
    store_url: str
    app_url: str
    schedules: int = 20
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        jobs: dict[str, object] = {
            f"every-second-{number}": {"schedule": "every 1s", "kind": "noop"}
            if number % 2
            else {"schedule": "every 1s", "kind": "append", "database": "app"}
            for number in range(self.schedules)
        }
        jobs["cleanup"] = {"schedule": "every 5s", **CLEANUP}
        self.config = write_config(
            self.folder,
            {"store": {"url": self.store_url}, "databases": {"app": {"url": self.app_url}}, "jobs": jobs},
        )
        with opened(self.app_url) as app:
            appended.metadata.create_all(app.engine)
        make_victims(self.app_url, staying=_GUARDED)

    def add_victims(self) -> None:
        """Add rows that cleanup must delete."""
        add_victims(self.app_url, _ADDED)

    def settle(self, blows: int) -> Verdict:
        """Let one daemon finish what is left, stop it, and look at what became of everything."""
        until = datetime.now(UTC)
        with Daemon(self.config) as daemon, opened(self.store_url) as store:
            daemon.ready()
            wait_until(lambda: self._is_settled(store, until), seconds=_SETTLED_WITHIN_SECONDS, what="settled")
            code = daemon.stop()
            problems = [] if code == 0 else [f"the last daemon ended with {code}:\n{daemon.output[-2000:]}"]
            fires = read_fires(store)
            tries = read_tries(store)
            with store.reading() as connection:
                succeeded = frozenset(
                    connection.execute(select(runs.c.id).where(runs.c.state == RunState.SUCCEEDED.value)).scalars()
                )
        ticks = [fire for fire in fires if fire.schedule != "cleanup"]
        cleanups = [fire for fire in fires if fire.schedule == "cleanup"]
        problems += fire_problems(ticks, every=SECOND, until=until)
        problems += fire_problems(cleanups, every=5 * SECOND, until=until)
        missing = self.schedules - len({fire.schedule for fire in ticks})
        if missing:
            problems.append(f"{missing} schedules never fired")
        problems += try_problems(tries, succeeded)
        problems += self._effect_problems(frozenset(fire.run_id for fire in ticks), succeeded)
        return Verdict(
            blows=blows,
            states=Counter(fire.state.value for fire in fires),
            fires=sum(fire.count for fire in fires),
            lost_attempts=sum(attempt.outcome in ("lost", "released") for attempt in tries),
            problems=problems,
        )

    def _is_settled(self, store: Database, until: datetime) -> bool:
        with store.reading() as connection:
            unfinished = connection.execute(
                select(func.count())
                .select_from(runs)
                .where(runs.c.state.in_(("queued", "running")), runs.c.scheduled_for <= until)
            ).scalar_one()
        return not unfinished and count_victims(self.app_url, GOES) == 0

    def _effect_problems(self, ticks: frozenset[int], succeeded: frozenset[int]) -> list[str]:
        with opened(self.app_url) as app, app.reading() as connection:
            effects = Counter(connection.execute(select(appended.c.run_id)).scalars())
        with opened(self.store_url) as store, store.reading() as connection:
            appending = frozenset(connection.execute(select(runs.c.id).where(runs.c.kind == "append")).scalars())
        problems = [f"run {run_id} had its effect {count} times" for run_id, count in effects.items() if count != 1]
        problems += [f"run {run_id} succeeded without effect" for run_id in appending & succeeded - effects.keys()]
        deleted = _GUARDED - count_victims(self.app_url, STAYS)
        left = count_victims(self.app_url, GOES)
        problems += [f"{deleted} rows outside the predicate were deleted"] if deleted else []
        problems += [f"{left} rows inside the predicate were left"] if left else []
        return problems


def kill_storm(place: Battlefield, *, kills: int, seed: int) -> Verdict:
    """Kill -9 one daemon after another at random moments: every other one at work, the rest from their start on."""
    dice = random.Random(seed)
    for number in range(kills):
        with Daemon(place.config) as daemon:
            if number % 5 == 0:
                place.add_victims()
            if number % 2 == 0:
                daemon.ready()
            time.sleep(dice.uniform(0.2, 2.6))
            _still_there(daemon)
    return place.settle(kills)


def pair_storm(place: Battlefield, *, kills: int, seed: int) -> Verdict:
    """Keep two daemons at work on one store, and kill -9 one of them every few seconds."""
    dice = random.Random(seed)
    with ExitStack() as stack:
        pair = [stack.enter_context(Daemon(place.config)) for _ in range(2)]
        for daemon in pair:
            daemon.ready()
        for number in range(kills):
            if number % 2 == 0:
                place.add_victims()
            time.sleep(dice.uniform(1, 4))
            doomed = dice.randrange(2)
            _still_there(pair[doomed])
            pair[doomed].kill()
            pair[doomed] = stack.enter_context(Daemon(place.config))
    return place.settle(kills)


def outage_storm(place: Battlefield, server: PostgresServer, *, outages: int, seed: int) -> Verdict:
    """Stop and start the server under one daemon's load, politely and not."""
    dice = random.Random(seed)
    modes = itertools.cycle(("fast", "immediate"))
    with Daemon(place.config) as daemon:
        daemon.ready()
        for _ in range(outages):
            place.add_victims()
            time.sleep(dice.uniform(1, 4))
            server.stop(next(modes))
            time.sleep(dice.uniform(0.2, 3))
            server.start()
            _still_there(daemon)
        time.sleep(2)
        code = daemon.stop()
        assert code == 0, daemon.output[-4000:]
    return place.settle(outages)


def pooled_storm(place: Battlefield, *, seconds: float, seed: int) -> Verdict:
    """Let a daemon work for so long, killed once on the way; for a place whose URLs lead through a pooler."""
    before = seconds * random.Random(seed).uniform(0.3, 0.7)
    for part in (before, seconds - before):
        with Daemon(place.config) as daemon:
            daemon.ready()
            place.add_victims()
            time.sleep(part)
            _still_there(daemon)
    return place.settle(1)


def _still_there(daemon: Daemon) -> None:
    assert daemon.code is None, f"the daemon ended by itself with {daemon.code}:\n{daemon.output[-4000:]}"
