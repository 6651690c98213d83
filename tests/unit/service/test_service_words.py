"""The daemon's state in a sentence, and what deserves a sign of life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchd.scheduler.apscheduler_bridge import Passes
from batchd.service.pulse import Pulse, complaint_of
from batchd.service.status_line import Situation, draining, serving
from batchd.systemd import Notifier

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(hours=3, minutes=12, seconds=5), "in 3 h 12 min"),
        (timedelta(days=2, hours=4), "in 2 d 4 h"),
        (timedelta(minutes=59, seconds=59), "in 59 min"),
        (timedelta(hours=1), "in 1 h"),
        (timedelta(seconds=3), "in less than a minute"),
        (timedelta(0), "in less than a minute"),
        (timedelta(minutes=-2), "overdue"),
    ],
)
def test_a_serving_daemon_says_what_comes_next(span: timedelta, said: str) -> None:
    """No finer than minutes."""
    assert serving(Situation(12, 2, "daily-report", NOW + span), NOW) == f"12 jobs, 2 running, next daily-report {said}"


def test_what_is_wrong_stands_behind_it() -> None:
    """And an idle daemon without a schedule says no more than it knows."""
    assert serving(Situation(1, 0, None, None, ("the store does not answer",)), NOW) == (
        "1 job; the store does not answer"
    )


def test_a_stopping_daemon_names_what_it_waits_for() -> None:
    """The first few."""
    assert draining([]) == "stopping"
    assert draining([("a", 1), ("b", 2)]) == "stopping, waiting for a (run 1), b (run 2)"
    assert draining([("a", number) for number in range(7)]).endswith("a (run 4) and 2 more")


@pytest.mark.parametrize(
    ("passes", "turned_at", "dead", "complains"),
    [
        (Passes(NOW, sound_since=0.0), 990.0, (), False),
        (Passes(NOW, sound_since=0.0), 900.0, (), True),
        (Passes(NOW, sound_since=0.0), 990.0, ("engine",), True),
        (Passes(NOW, failing_since=0.0, is_store_away=True), 0.0, (), False),
        (Passes(NOW, sound_since=980.0), 0.0, (), False),
        (Passes(NOW, failing_since=900.0), 990.0, (), False),
        (Passes(NOW, failing_since=600.0), 990.0, (), True),
    ],
    ids=["well", "a loop hangs", "a part died", "outage", "just back", "fails for a moment", "fails for long"],
)
def test_a_sign_of_life_is_deserved(passes: Passes, turned_at: float, dead: tuple[str, ...], complains: bool) -> None:
    """An outage is excused, and what hangs is not."""
    assert (complaint_of(passes, ("dispatcher", turned_at), dead, 1_000.0) is not None) is complains


class _Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.seconds


class _Counting(Notifier):
    def __init__(self) -> None:
        super().__init__(None)
        self.fed = 0

    def feed(self) -> None:
        self.fed += 1


def test_the_watchdog_is_fed_by_beats_alone_and_only_when_deserved() -> None:
    """At half its time; nothing is fed between beats, and nothing while there is a complaint."""
    clock, notifier, complaints = _Clock(), _Counting(), [""]
    pulse = Pulse(notifier, timedelta(seconds=30), lambda: complaints[0] or None, clock)
    assert pulse.every == timedelta(seconds=15)
    pulse.beat()
    pulse.beat()
    assert notifier.fed == 1
    clock.seconds = 15
    pulse.beat()
    complaints[0] = "the dispatcher hangs"
    clock.seconds = 30
    pulse.beat()
    assert notifier.fed == 2
    complaints[0] = ""
    clock.seconds = 45
    pulse.beat()
    assert notifier.fed == 3
