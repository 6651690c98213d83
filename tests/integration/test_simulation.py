"""A config's jobs on a simulated clock, against what can be worked out by hand."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from batchd.db.simulated import in_memory
from batchd.db.straight import Straight
from batchd.domain.job import CatchUp, CatchUpPolicy, Overlap, RetryPolicy
from batchd.domain.lease import LeaseTerms
from batchd.domain.queue import QueueRules
from batchd.engine.settings import EngineSettings
from batchd.outlook.simulation import Down, Scenario, simulate
from batchd.outlook.summary import Summary, summarized
from batchd.outlook.workload import DrawnWorkload, Lengths, parse_lengths
from batchd.store.ledger import make_blank
from batchd.store.schema import meta
from tests.support.definitions import job

_BEGIN = datetime(2026, 10, 20, tzinfo=UTC)
_SETTINGS = EngineSettings(
    slots=4,
    queues={"default": None},
    lease=LeaseTerms(timedelta(seconds=30), timedelta(seconds=10)),
    reap_every=timedelta(seconds=5),
    shutdown_grace=timedelta(seconds=25),
)


def _lived(scenario: Scenario) -> Summary:
    return summarized(simulate(scenario), scenario.jobs)


def _scenario(*jobs: object, hours: float = 6, takes: str = "10s", **fields: object) -> Scenario:
    length = parse_lengths(takes)
    whole = Scenario(jobs, _BEGIN, _BEGIN + timedelta(hours=hours), _SETTINGS, DrawnWorkload(1, usual=length))  # type: ignore[arg-type]
    return replace(whole, **fields)  # type: ignore[arg-type]


def test_each_fire_runs_and_nobody_waits() -> None:
    """Six hours of a job each ten minutes."""
    (found,) = _lived(_scenario(job("a", schedule="every 10m"))).jobs
    assert (found.fires, found.succeeded, found.missed, found.overlaps) == (37, 36, 0, 0)
    assert found.longest_wait == timedelta(0)


def test_a_run_that_takes_longer_than_the_interval_skips_fires() -> None:
    """A run of 25 minutes each ten: of three fires one runs and two overlap."""
    slow = job("slow", schedule="every 10m", overlap=Overlap.SKIP, timeout=None)
    (found,) = _lived(_scenario(slow, takes="25m")).jobs
    assert (found.fires, found.overlaps) == (37, 24)


@pytest.mark.parametrize("by_kill", [False, True])
def test_a_time_without_a_daemon_is_caught_up_by_policy(*, by_kill: bool) -> None:
    """Down from 02:00 to 05:00: `once` runs the latest, `all` each, `skip` none that is late."""
    jobs = [
        job(mode.value, schedule="30 * * * *", catch_up=CatchUpPolicy(mode, 100, timedelta(days=1))) for mode in CatchUp
    ]
    down = [Down(_BEGIN + timedelta(hours=2), _BEGIN + timedelta(hours=5), by_kill)]
    found = {each.job: each for each in _lived(_scenario(*jobs, hours=8, down=down)).jobs}
    assert {name: (each.missed, each.succeeded) for name, each in found.items()} == {
        "once": (2, 6),
        "all": (0, 8),
        "skip": (3, 5),
    }


def test_runs_wait_for_the_places_of_their_queue() -> None:
    """Three runs of ten minutes in a queue with one place: the last waits for twenty."""
    settings = replace(_SETTINGS, rules={"default": QueueRules(max_running=1)})
    jobs = [job(name, schedule="0 3 * * *", timeout=None) for name in "abc"]
    found = _lived(_scenario(*jobs, takes="10m", settings=settings))
    assert [each.longest_wait for each in found.jobs] == [timedelta(minutes=minutes) for minutes in (0, 10, 20)]
    assert found.most_at_once == 1


def test_failures_are_retried_as_the_policy_says() -> None:
    """All attempts fail: each run has three of them and then has failed."""
    workload = DrawnWorkload(1, usual=Lengths(), usually_failing=1.0)
    fails = job("fails", schedule="0 * * * *", retry=RetryPolicy(3, **_FIXED))
    (found,) = _lived(_scenario(fails, hours=5.5, workload=workload)).jobs
    assert (found.failed, found.retries) == (6, 12)


def test_a_killed_daemon_among_others_loses_its_runs_to_them() -> None:
    """With two daemons and a kill, leases run out and the other one takes over: nothing is lost."""
    down = [Down(_BEGIN + timedelta(minutes=61), _BEGIN + timedelta(minutes=62), by_kill=True)]
    long = job("long", schedule="0 * * * *", timeout=None)
    (found,) = _lived(_scenario(long, hours=2.5, takes="5m", down=down, daemons=2)).jobs
    assert (found.succeeded, found.failed, found.unfinished) == (3, 0, 0)


def test_durations_are_drawn_by_seed() -> None:
    """The same seed draws the same, another one something else."""
    first, again, other = (
        simulate(_scenario(job("a", schedule="every 10m"), workload=DrawnWorkload(seed, usual=parse_lengths("1s..9m"))))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


_FIXED = {"backoff": job().retry.backoff, "delay": timedelta(seconds=5), "max_delay": timedelta(seconds=5), "jitter": 0}


def test_statements_sent_straight_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is the same to the microsecond when SQLAlchemy sends every statement, with retries and overlaps."""
    slow = job("slow", schedule="every 10m", overlap=Overlap.SKIP, timeout=None)
    workload = DrawnWorkload(1, usual=parse_lengths("1m..30m"), usually_failing=0.3)
    scenario = _scenario(slow, job("b", schedule="*/15 * * * *"), hours=4, workload=workload)
    straight = simulate(scenario)
    monkeypatch.setattr(Straight, "execute", Connection.execute)
    assert simulate(scenario) == straight


def test_what_the_driver_refuses_is_told_as_sqlalchemy_does() -> None:
    """The claim and the planner tell a broken unique rule by it."""
    store = in_memory(lambda: _BEGIN, lambda _topics: None)
    with contextlib.closing(store):
        make_blank(store, "a")
        row = {"key": "k", "value": "v"}
        with pytest.raises(IntegrityError), store.writing() as connection:
            store.dialect.insert_all(connection, meta, [row, row])
        with store.reading() as connection:
            assert connection.execute(select(meta).where(meta.c.key == "k")).all() == []
