"""A job's last 24 hours as a strip: one cell a half hour, coloured by the worst that ended in it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo

from markupsafe import Markup

from batchd.web.charts.svg import counts_text, image, number, rect, worst

_CELL = 10.0
_GAP = 2.0
_HEIGHT = 20.0


def strip(parts: Sequence[Mapping[str, int]], start: datetime, length: timedelta, zone: tzinfo) -> Markup:
    """Return the strip; `parts` are runs by state, each of that length, the first from `start` on."""
    empty: list[str] = []
    cells: list[Markup] = []
    totals: dict[str, int] = {}
    times = _times(start, length, len(parts), zone)
    for place, states in enumerate(parts):
        left = place * _CELL
        colour = worst(states)
        if colour is None:
            empty.append(f"M{number(left)} 0h{number(_CELL - _GAP)}v{number(_HEIGHT)}h-{number(_CELL - _GAP)}z")
            continue
        for state, count in states.items():
            totals[state] = totals.get(state, 0) + count
        title = f"{times[place]}: {counts_text(states)}"
        cells.append(rect(left, 0, _CELL - _GAP, _HEIGHT, css=f"cell is-{colour}", title=title))
    background = Markup('<path class="cell is-empty" d="{}"/>').format("".join(empty))
    label = f"Last 24 hours: {counts_text(totals)}"
    return image(label, len(parts) * _CELL - _GAP, _HEIGHT, [background, *cells], css="chart strip")


@functools.lru_cache(maxsize=16)
def _times(start: datetime, length: timedelta, count: int, zone: tzinfo) -> tuple[str, ...]:
    """Return what the cells are called: the same on all the strips of a page."""
    edges = [f"{(start + place * length).astimezone(zone):%H:%M}" for place in range(count + 1)]
    return tuple(f"{since}–{until}" for since, until in itertools.pairwise(edges))  # noqa: RUF001 (a range of times)
