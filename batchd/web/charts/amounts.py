"""How many rows a job processed over time, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from batchd.web.charts.svg import image, nice_ceiling, number, path, rect

_WIDTH = 600.0
_HEIGHT = 120.0
_LEAST = 1.5


def highest_amount(sums: Sequence[int]) -> int:
    """Return the upper end of the chart's scale."""
    return max(1, round(nice_ceiling(max(sums, default=1))))


def amounts(sums: Sequence[int], titles: Sequence[str], label: str) -> Markup:
    """Return the chart of the sums, one bar each; a part with nothing has none."""
    top = highest_amount(sums)
    step = _WIDTH / max(1, len(sums))
    gap = min(3.0, step * 0.25)
    grid = [path(f"M0 {number(_HEIGHT * share)}h{number(_WIDTH)}", css="grid") for share in (0, 0.5, 1)]
    bars = []
    for place, amount in enumerate(sums):
        if amount > 0:
            tall = max(_LEAST, _HEIGHT * amount / top)
            at = place * step + gap / 2
            bars.append(rect(at, _HEIGHT - tall, step - gap, tall, css="bar", title=titles[place]))
    return image(label, _WIDTH, _HEIGHT, [*grid, *bars], css="chart plot")
