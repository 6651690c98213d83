"""Random configs and random misfortunes, each wholly decided by its seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from batchd.domain.job import Backoff, CatchUp, CatchUpPolicy, JobDefinition, Overlap, RetryPolicy
from batchd.domain.lease import LeaseTerms
from batchd.domain.queue import QueueOrder, QueueRules, Rate
from batchd.engine.settings import EngineSettings
from batchd.outlook.machine import Fidelity
from batchd.outlook.workload import Work
from batchd.store.claimed import Claim
from tests.support.definitions import job

_BEGINNINGS = (
    datetime(2026, 3, 28, 23, 30, tzinfo=UTC),  # before the clocks of Europe go forward
    datetime(2026, 10, 25, 0, 10, tzinfo=UTC),  # before they go back
    datetime(2026, 11, 1, 5, 20, tzinfo=UTC),  # before those of New York do
    datetime(2026, 4, 4, 14, 30, tzinfo=UTC),  # before those of Lord Howe do, by half an hour
    datetime(2027, 2, 28, 23, 40, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 45, tzinfo=UTC),
)
_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
_SCHEDULES = (
    "every 1m",
    "every 2m",
    "every 150s",
    "*/3 * * * *",
    "*/5 * * * *",
    "0,7,9 * * * *",
    "*/10 1-3 * * *",
    "30 2 * * *",
    "*/40 * * * * *",
    "@hourly",
    "@reboot",
)
_MUTEXES = (None, None, None, "ledger", "mail")
_KEYS = (None, None, "acme", "umbrella")
QUEUES = ("default", "slow", "shared")


@dataclass(frozen=True, slots=True)
class Misfortune:
    """One thing that goes wrong, `after` so long, for `lasting` so long; `which` daemon, where that matters."""

    what: str
    after: timedelta
    lasting: timedelta
    which: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one seed stands for."""

    seed: int
    begin: datetime
    jobs: tuple[JobDefinition, ...]
    daemons: int
    settings: EngineSettings
    fidelity: Fidelity
    troubled: timedelta
    misfortunes: tuple[Misfortune, ...]


@dataclass(frozen=True, slots=True)
class RandomWork:
    """Attempts that are short or long, fail or not, and heed a stop soon or never."""

    seed: int

    def work_of(self, claim: Claim) -> Work:
        random = Random(f"{self.seed}:{claim.run_id}:{claim.attempt}")
        longest = random.choice((2, 20, 20, 100, 400))
        return Work(
            timedelta(seconds=random.uniform(0.01, longest)),
            fails=random.random() < 0.25,
            is_retryable=random.random() < 0.9,
            reacts_in=timedelta(seconds=random.choice((0, 0.2, 3, 1000))),
        )


def trial_of(seed: int) -> Trial:
    """Return the seed's trial."""
    random = Random(seed)
    daemons = random.choice((1, 1, 2, 3))
    lease = random.choice((LeaseTerms(timedelta(seconds=30), timedelta(seconds=10)), _lease(90), _lease(60)))
    troubled = timedelta(minutes=random.choice((15, 20, 30)))
    settings = EngineSettings(
        slots=random.randint(1, 5),
        queues={"default": None, "slow": random.choice((None, 1, 2)), "shared": None},
        lease=lease,
        reap_every=timedelta(seconds=random.choice((5, 15))),
        shutdown_grace=timedelta(seconds=random.choice((1, 10, 25))),
        rules=_rules(random),
        queue_order=random.choice((QueueOrder.STRICT, QueueOrder.STRICT, QueueOrder.WEIGHTED)),
    )
    delay = timedelta(seconds=random.choice((0, 0, 0.2, 4)))
    count = random.randint(0, 7)
    return Trial(
        seed=seed,
        begin=random.choice(_BEGINNINGS) + timedelta(seconds=random.randint(0, 600)),
        jobs=tuple(_job(random, number) for number in range(random.randint(2, 5))),
        daemons=daemons,
        settings=settings,
        fidelity=Fidelity(heartbeats=True, ahead=random.choice((0, 0, 2)), plan_delay=delay),
        troubled=troubled,
        misfortunes=(*(_misfortune(random, troubled, daemons) for _ in range(count)), *_long_freezes(daemons, seed)),
    )


def without(trial: Trial, index: int) -> Trial:
    """Return the trial without one of its misfortunes, to find out which of them it takes."""
    left = trial.misfortunes[:index] + trial.misfortunes[index + 1 :]
    return replace(trial, misfortunes=left)


def _lease(seconds: int) -> LeaseTerms:
    return LeaseTerms(timedelta(seconds=seconds), timedelta(seconds=seconds / 3))


def _rules(random: Random) -> dict[str, QueueRules]:
    rate = Rate(random.randint(1, 4), timedelta(seconds=random.choice((20, 60, 200))))
    return {
        "default": QueueRules(priority=random.randint(-1, 1)),
        "slow": QueueRules(weight=3, max_running_per_key=random.choice((None, 1, 2))),
        "shared": QueueRules(
            max_running=random.choice((None, 1, 2)),
            rate=random.choice((None, None, rate)),
            rate_per_key=random.choice((None, None, rate)),
        ),
    }


def _job(random: Random, number: int) -> JobDefinition:
    seconds = random.choice((1, 10, 60))
    return job(
        f"job{number}",
        schedule=random.choice(_SCHEDULES),
        timezone=random.choice(_ZONES),
        queue=random.choice(QUEUES),
        priority=random.randint(-2, 2),
        catch_up=CatchUpPolicy(
            random.choice(list(CatchUp)), random.choice((1, 3, 50)), timedelta(minutes=random.choice((2, 10, 600)))
        ),
        overlap=random.choice(list(Overlap)),
        start_deadline=random.choice((None, None, timedelta(seconds=20), timedelta(minutes=4))),
        jitter=timedelta(seconds=random.choice((0, 0, 7, 40))),
        timeout=random.choice((None, timedelta(seconds=15), timedelta(minutes=3))),
        retry=RetryPolicy(
            random.randint(1, 4), random.choice(list(Backoff)), timedelta(seconds=seconds), timedelta(minutes=2), 0.2
        ),
        mutex=random.choice(_MUTEXES),
        limit_key=random.choice(_KEYS),
    )


def _long_freezes(daemons: int, seed: int) -> list[Misfortune]:
    """Freeze daemons among others for longer than a lease: what they held is taken back, and they do not know."""
    random = Random(f"{seed}:freezes")
    return [
        Misfortune(
            "freeze", timedelta(seconds=random.randint(60, 700)), timedelta(seconds=random.randint(100, 300)), which
        )
        for which in range(daemons - 1)
    ]


_FORTUNES = ("kill", "kill", "stop", "freeze", "clock", "clock", "outage", "answers", "store-clock", "cancel", "queue")


def _misfortune(random: Random, troubled: timedelta, daemons: int) -> Misfortune:
    what = random.choice(_FORTUNES)
    seconds = random.choice((0.5, 5, 40, 200, 600))
    if what == "clock":
        seconds = random.choice((-4000, -90, -2, 2, 90, 4000))
    return Misfortune(
        what,
        after=troubled * random.random(),
        lasting=timedelta(seconds=seconds),
        which=random.randrange(daemons),
    )
