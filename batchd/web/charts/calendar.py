"""A job's last weeks as a calendar: one square a day, coloured by how many of its runs ended well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from markupsafe import Markup

from batchd.web.charts.svg import counts_text, image, number, rect

_CELL = 17.0
_SIZE = 14.0
_LEFT = 30.0
_TOP = 18.0
_LABELLED = {0: "Mon", 2: "Wed", 4: "Fri"}
_MOSTLY_GOOD = 0.9
_DAYS_FOR_A_LABEL = 21
_BAD = ("failed", "quarantined", "missed")


def calendar(first: date, days: Sequence[Mapping[str, int]], label: str) -> Markup:
    """Return the calendar of the days from `first` on, each with its runs by state; weeks are columns from Monday."""
    monday = first - timedelta(days=first.weekday())
    cells: list[Markup] = []
    month = None
    for place, states in enumerate(days):
        day = first + timedelta(days=place)
        column = (day - monday).days // 7
        left, top = _LEFT + column * _CELL, _TOP + day.weekday() * _CELL
        title = f"{day:%a} {day.day} {day:%b}: {counts_text(states)}"
        cells.append(rect(left, top, _SIZE, _SIZE, css=f"cell is-{_grade(states)}", title=title))
        # The month of a column is that of its Monday; one that begins late in its first column is named at its second.
        if day.weekday() == 0 and day.month != month and day.day <= _DAYS_FOR_A_LABEL:
            month = day.month
            cells.append(_label(left, 11, f"{day:%b}"))
    names = [_label(0, _TOP + place * _CELL + 11, name) for place, name in _LABELLED.items()]
    weeks = ((first + timedelta(days=len(days) - 1)) - monday).days // 7 + 1
    return image(label, _LEFT + weeks * _CELL, _TOP + 7 * _CELL, [*names, *cells], css="chart calendar", stretch=False)


def _grade(states: Mapping[str, int]) -> str:
    bad = sum(states.get(state, 0) for state in _BAD)
    good = states.get("succeeded", 0)
    if not bad and not good:
        return "quiet" if states else "empty"
    if not bad:
        return "succeeded"
    return "mixed" if good / (good + bad) >= _MOSTLY_GOOD else ("partly" if good else "failed")


def _label(x: float, y: float, said: str) -> Markup:
    return Markup('<text x="{}" y="{}" aria-hidden="true">{}</text>').format(number(x), number(y), said)
