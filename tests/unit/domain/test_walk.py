"""A walk does every row once, whatever the order in which its batches end and wherever it stops."""

from __future__ import annotations

import json
from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from batchd.domain.walk import Gap, Span, StoredKey, WalkState, walk_state


def _number(key: StoredKey | None) -> int:
    if key is None:
        return -1
    (number,) = key
    assert isinstance(number, int)
    return number


def _spans(gap: Gap, rows: list[int], size: int) -> list[tuple[Span, list[int]]]:
    """The batches of a gap, as a walk over these rows cuts it."""
    found: list[tuple[Span, list[int]]] = []
    after = gap.after
    while True:
        left = rows[bisect_right(rows, _number(after)) : bisect_right(rows, _number(gap.up_to))]
        is_end = len(left) <= size
        up_to: StoredKey = gap.up_to if is_end else [left[size - 1]]
        found.append((Span(gap.order(len(found) + 1), after, up_to), left[:size]))
        if is_end:
            return found
        after = up_to


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(0, 500), min_size=1, max_size=60, unique=True).map(sorted),
    size=st.integers(1, 7),
    parallel=st.integers(1, 5),
    data=st.data(),
)
def test_every_row_is_done_once_through_any_interruptions(
    rows: list[int], size: int, parallel: int, data: st.DataObject
) -> None:
    """Batches end in any order among those at work, attempts stop anywhere, and the state travels as JSON."""
    state = WalkState([rows[-1]])
    done: list[int] = []
    for _ in range(20):
        state = walk_state(json.loads(json.dumps(state.as_json())))
        coming = [batch for gap in state.gaps() for batch in _spans(gap, rows, size)]
        if not coming:
            break
        busy: list[tuple[Span, list[int]]] = []
        most = len(state.ahead) + parallel
        for _ in range(data.draw(st.integers(0, 8))):
            while coming and len(busy) < parallel:
                busy.append(coming.pop(0))
            if not busy:
                break
            span, taken = busy.pop(data.draw(st.integers(0, len(busy) - 1)))
            state = state.with_done(span, len(taken))
            done.extend(taken)
            assert len(state.ahead) <= most
    for gap in state.gaps():
        for span, taken in _spans(gap, rows, size):
            state = state.with_done(span, len(taken))
            done.extend(taken)
    assert sorted(done) == rows
    assert state.rows == len(rows)
    assert state.reached == state.last
    assert state.ahead == ()
