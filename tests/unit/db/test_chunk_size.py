"""The size of a chunk follows the time that the last one took."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from batchd.db.chunk_size import ChunkSize

_TARGET = timedelta(milliseconds=50)


def _size(rows: int) -> ChunkSize:
    return ChunkSize(rows, smallest=50, largest=50_000, target=_TARGET)


@given(st.integers(50, 50_000), st.integers(0, 10_000_000))
def test_it_stays_within_its_bounds(rows: int, took_microseconds: int) -> None:
    """Whatever a chunk took, the next is neither too small nor too big; it grows fast only where that is far off."""
    took = timedelta(microseconds=took_microseconds)
    following = _size(rows).after(took, rows)
    assert 50 <= following.rows <= min(50_000, round(rows * (3 if took <= _TARGET * 0.85 / 4 else 1.6)))


def test_it_settles_below_the_target() -> None:
    """With a steady 1,000 rows a millisecond and more, chunks grow to a little less than the target, and stay."""
    size = _size(500)
    for _ in range(30):
        size = size.after(timedelta(microseconds=size.rows * 2), size.rows)
    assert timedelta(milliseconds=35) < timedelta(microseconds=size.rows * 2) <= _TARGET


def test_a_slow_chunk_shrinks_it_at_once() -> None:
    """Four times too long means at most a quarter, a small remainder at the end means nothing."""
    assert _size(8000).after(_TARGET * 4, 8000).rows <= 2000
    assert _size(8000).after(timedelta(milliseconds=1), 10).rows == 8000
