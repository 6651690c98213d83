"""The pieces of which the charts are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape

GOOD = "succeeded"
_WORST_FIRST = ("failed", "quarantined", "missed", "cancelled", "succeeded", "skipped")


def image(
    label: str, width: float, height: float, parts: Iterable[Markup], *, css: str, stretch: bool = True
) -> Markup:
    """Return an SVG of that coordinate system; `stretch` lets it take any size, else it keeps its own."""
    how = (
        Markup('preserveAspectRatio="none"')
        if stretch
        else Markup('width="{}" height="{}"').format(number(width), number(height))
    )
    return Markup('<svg class="{}" viewBox="0 0 {} {}" {} role="img" aria-label="{}">{}</svg>').format(
        css, number(width), number(height), how, label, Markup("").join(parts)
    )


def rect(x: float, y: float, width: float, height: float, *, css: str, title: str = "") -> Markup:
    """Return a rectangle, with a tooltip when there is a title."""
    size = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    inside = f"><title>{escape(title)}</title></rect>" if title else "/>"
    return Markup(f'<rect class="{escape(css)}" {size}{inside}')  # noqa: S704 (what is not a number is escaped)


def path(commands: str, *, css: str) -> Markup:
    """Return a path whose line keeps its width when the chart is stretched."""
    return Markup('<path class="{}" d="{}" vector-effect="non-scaling-stroke"/>').format(css, commands)


def number(value: float) -> str:
    """Return the number with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def worst(states: Iterable[str]) -> str | None:
    """Return the state that a mixed lot is coloured by; None for none."""
    present = set(states)
    return next((state for state in _WORST_FIRST if state in present), None)


def counts_text(states: Mapping[str, int]) -> str:
    """Return "12 succeeded, 1 failed"; "no runs" for none."""
    ordered = sorted(states, key=lambda state: (state != GOOD, state))
    return ", ".join(f"{states[state]:,} {state}" for state in ordered if states[state]) or "no runs"


def nice_ceiling(value: float) -> float:
    """Return the next number up that reads well at an axis: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))
