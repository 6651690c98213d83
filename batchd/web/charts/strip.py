"""A job's last 24 hours as a strip: one cell a half hour, coloured by the worst that ended in it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo

from markupsafe import Markup, escape

from batchd.web.charts.svg import counts_text, image, number, worst

_CELL = 10.0
_GAP = 2.0
_HEIGHT = 20.0


def strip(parts: Sequence[Mapping[str, int]], start: datetime, length: timedelta, zone: tzinfo) -> Markup:
    """Return the strip; `parts` are runs by state, each of that length, the first from `start` on."""
    empty: list[str] = []
    cells: list[str] = []
    totals: dict[str, int] = {}
    for states, shape, head in zip(parts, *_frames(start, length, len(parts), zone), strict=True):
        if not states:
            empty.append(shape)
            continue
        for state, count in states.items():
            totals[state] = totals.get(state, 0) + count
        colour, said = _mix(tuple(states.items()))
        cells.append(f'<rect class="cell is-{colour}" {head}{said}</title></rect>')
    background = Markup('<path class="cell is-empty" d="{}"/>').format("".join(empty))
    # Not Markup.format: a page has two thousand cells, and would spend half of its time on them.
    drawn = Markup("".join(cells))  # noqa: S704 (all that is not a number or a time is escaped)
    label = f"Last 24 hours: {counts_text(totals)}"
    return image(label, len(parts) * _CELL - _GAP, _HEIGHT, [background, drawn], css="chart strip")


@functools.lru_cache(maxsize=16)
def _frames(start: datetime, length: timedelta, count: int, zone: tzinfo) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return each cell's shape as a path, and how its rectangle with its tooltip begins: the same on all strips."""
    wide, high = number(_CELL - _GAP), number(_HEIGHT)
    lefts = [number(place * _CELL) for place in range(count)]
    edges = [f"{(start + place * length).astimezone(zone):%H:%M}" for place in range(count + 1)]
    times = [f"{since}–{until}" for since, until in itertools.pairwise(edges)]  # noqa: RUF001 (a range of times)
    heads = (
        f'x="{left}" y="0" width="{wide}" height="{high}"><title>{time}: '
        for left, time in zip(lefts, times, strict=True)
    )
    return tuple(f"M{left} 0h{wide}v{high}h-{wide}z" for left in lefts), tuple(heads)


@functools.lru_cache(maxsize=2_000)
def _mix(states: tuple[tuple[str, int], ...]) -> tuple[str, str]:
    """Return how a cell with these is coloured, and what its tooltip says, escaped."""
    counts = dict(states)
    return worst(counts) or "empty", str(escape(counts_text(counts)))
