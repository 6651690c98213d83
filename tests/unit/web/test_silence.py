"""When a server that has not ended is given up."""

from __future__ import annotations

from collections.abc import Iterable

from batchd.web.silence import Silence


def _given_up(silence: Silence, *, served: int, at: Iterable[int]) -> int:
    """The first of these seconds at which it has not moved for too long."""
    return next(second for second in at if silence.is_too_long(served, float(second)))


def test_a_server_that_does_not_move_for_half_a_minute_is_given_up() -> None:
    """Not one that moves now and then; many questions within a second are one look."""
    silence = Silence(served=0, now=0.0)
    assert not any(silence.is_too_long(second // 29 + 1, float(second)) for second in range(1, 300))
    assert not any(silence.is_too_long(11, 300.0) for _ in range(100))
    assert _given_up(silence, served=12, at=range(301, 350)) == 331


def test_a_server_that_begins_has_five_minutes() -> None:
    """It has much to import, on a machine that may be busy."""
    silence = Silence(served=7, now=0.0)
    assert _given_up(silence, served=7, at=range(1, 310)) == 300


def test_a_sleep_of_both_is_no_silence() -> None:
    """A machine that was suspended for a day: the server may move before it is judged."""
    silence = Silence(served=0, now=0.0)
    assert not silence.is_too_long(1, 1.0)
    assert not silence.is_too_long(1, 86_400.0)
    assert not silence.is_too_long(2, 86_401.0)
