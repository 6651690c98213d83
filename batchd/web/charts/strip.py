"""A job's last 24 hours as a strip: one cell a half hour, coloured by the worst that ended in it."""

from __future__ import annotations

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
    for place, states in enumerate(parts):
        left = place * _CELL
        colour = worst(states)
        if colour is None:
            empty.append(f"M{number(left)} 0h{number(_CELL - _GAP)}v{number(_HEIGHT)}h-{number(_CELL - _GAP)}z")
            continue
        for state, count in states.items():
            totals[state] = totals.get(state, 0) + count
        since = (start + place * length).astimezone(zone)
        until = (start + (place + 1) * length).astimezone(zone)
        title = f"{since:%H:%M}–{until:%H:%M}: {counts_text(states)}"  # noqa: RUF001 (a range of times)
        cells.append(rect(left, 0, _CELL - _GAP, _HEIGHT, css=f"cell is-{colour}", title=title))
    background = Markup('<path class="cell is-empty" d="{}"/>').format("".join(empty))
    label = f"Last 24 hours: {counts_text(totals)}"
    return image(label, len(parts) * _CELL - _GAP, _HEIGHT, [background, *cells], css="chart strip")
