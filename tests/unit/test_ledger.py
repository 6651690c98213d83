"""The storms' judge, on ledgers made by hand: it must see every kind of broken promise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from batchd.domain.attempt import AttemptOutcome
from batchd.domain.run import RunState
from tests.e2e.ledger import Fire, Try, fire_problems, try_problems

SECOND = timedelta(seconds=1)
START = datetime(2026, 5, 1, tzinfo=UTC)


def _fire(second: int, state: RunState = RunState.SUCCEEDED, *, count: int = 1, last: int | None = None) -> Fire:
    last = second + count - 1 if last is None else last
    return Fire(second, "tick", START + second * SECOND, START + last * SECOND, count, state)


def _problems(*fires: Fire, until: int) -> list[str]:
    return fire_problems(fires, every=SECOND, until=START + until * SECOND)


def _try(fence: int, start: int, end: int | None, outcome: AttemptOutcome | None) -> Try:
    return Try(1, fence, START + start * SECOND, None if end is None else START + end * SECOND, outcome)


def test_a_complete_ledger_has_no_problem() -> None:
    """Runs, a skip and a range of missed fires that follow each other without a gap are right."""
    fires = (_fire(0), _fire(1, RunState.SKIPPED), _fire(2, RunState.MISSED, count=5), _fire(7), _fire(8))
    assert _problems(*fires, until=8) == []


def test_a_lost_fire_is_seen() -> None:
    """A gap between two rows is a fire that nobody accounts for."""
    (problem,) = _problems(_fire(0), _fire(2), until=2)
    assert "1.0 lost" in problem


def test_a_doubled_fire_is_seen() -> None:
    """A run inside a missed range is accounted for twice."""
    (problem,) = _problems(_fire(0, RunState.MISSED, count=3), _fire(2), until=2)
    assert "twice" in problem


def test_a_wrong_count_is_seen() -> None:
    """A missed row's count must be that of its range."""
    (problem,) = _problems(_fire(0, RunState.MISSED, count=3, last=4), _fire(5), until=5)
    assert "counts 3" in problem


def test_an_unfinished_run_is_seen() -> None:
    """A run whose time has come must be final; one that is younger need not be."""
    assert len(_problems(_fire(0), _fire(1, RunState.QUEUED), until=1)) == 1
    assert _problems(_fire(0), _fire(1, RunState.RUNNING), until=0) == []


def test_a_schedule_that_fell_silent_is_seen() -> None:
    """The last fire must be as young as the end of the storm."""
    (problem,) = _problems(_fire(0), until=60)
    assert "nothing after" in problem


def test_attempts_in_sequence_have_no_problem() -> None:
    """A lost attempt and the one that finished after it are right."""
    tries = (_try(1, 0, 5, AttemptOutcome.LOST), _try(2, 6, 7, AttemptOutcome.SUCCEEDED))
    assert try_problems(tries, frozenset({1})) == []


def test_a_run_that_succeeds_twice_is_seen() -> None:
    """Two succeeded attempts of one run are one too many."""
    tries = (_try(1, 0, 5, AttemptOutcome.SUCCEEDED), _try(2, 6, 7, AttemptOutcome.SUCCEEDED))
    assert try_problems(tries, frozenset({1})) == ["run 1: 2 succeeded attempts"]


def test_attempts_that_overlap_are_seen() -> None:
    """An attempt that begins before the one before it has ended is a run at work twice."""
    tries = (_try(1, 0, 5, AttemptOutcome.LOST), _try(2, 3, 7, AttemptOutcome.SUCCEEDED))
    assert len(try_problems(tries, frozenset({1}))) == 1
    tries = (_try(1, 0, None, None), _try(2, 3, 7, AttemptOutcome.SUCCEEDED))
    assert len(try_problems(tries, frozenset({1}))) == 1


def test_a_success_without_an_attempt_is_seen() -> None:
    """A succeeded run has the attempt that did it."""
    assert try_problems((), frozenset({1})) == ["run 1 succeeded without an attempt"]
