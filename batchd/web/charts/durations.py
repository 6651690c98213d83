"""How long a job's runs took over time: the median as a line, up to the 95th percentile as a band."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from markupsafe import Markup

from batchd.store.job_history import Part
from batchd.web.charts.svg import image, nice_ceiling, number, path, rect

_WIDTH = 600.0
_HEIGHT = 120.0


def highest_duration(parts: Sequence[Part]) -> timedelta:
    """Return the upper end of the chart's scale."""
    return timedelta(seconds=nice_ceiling(max((part.p95.total_seconds() for part in parts if part.p95), default=1.0)))


def durations(parts: Sequence[Part], titles: Sequence[str], label: str) -> Markup:
    """Return the chart; `titles` say what each part's tooltip is. A part without runs is a gap."""
    top = highest_duration(parts).total_seconds()
    step = _WIDTH / max(1, len(parts))

    def height(took: timedelta | None) -> float:
        return _HEIGHT - _HEIGHT * (took.total_seconds() if took else 0.0) / top

    drawn: list[Markup] = [path(f"M0 {number(_HEIGHT * share)}h{number(_WIDTH)}", css="grid") for share in (0, 0.5, 1)]
    for first, last in _stretches(parts):
        places = range(first, last + 1)
        middle = [((place + 0.5) * step, height(parts[place].median)) for place in places]
        high = [((place + 0.5) * step, height(parts[place].p95)) for place in places]
        band = "M" + "L".join(_point(at) for at in [*high, *reversed(middle)]) + "z"
        drawn += [path(band, css="band"), path(_line(high), css="line is-p95"), path(_line(middle), css="line is-p50")]
    hover = [
        rect(place * step, 0, step, _HEIGHT, css="hover", title=titles[place])
        for place, part in enumerate(parts)
        if part.median is not None
    ]
    return image(label, _WIDTH, _HEIGHT, [*drawn, *hover], css="chart plot")


def _stretches(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Return from where to where there are runs without a gap."""
    found: list[tuple[int, int]] = []
    for place, part in enumerate(parts):
        if part.median is None:
            continue
        if found and found[-1][1] == place - 1:
            found[-1] = (found[-1][0], place)
        else:
            found.append((place, place))
    return found


def _line(points: Sequence[tuple[float, float]]) -> str:
    """Return the line through the points; a single one becomes a dot, by its round ends."""
    only = "h0.01" if len(points) == 1 else ""
    return "M" + "L".join(_point(at) for at in points) + only


def _point(at: tuple[float, float]) -> str:
    return f"{number(at[0])} {number(at[1])}"
