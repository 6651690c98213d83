"""A run's result as its page shows it: what a sync changed, what a cleanup deleted, and everything else in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from batchd.domain.result_parts import Part, nested_parts, plain_values
from batchd.web.charts.svg import image, rect

_SHOWN: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "sync": (
        ("added", "Added", "added"),
        ("changed", "Changed", "changed"),
        ("removed", "Removed", "removed"),
        ("unchanged", "Unchanged", "unchanged"),
        ("rejected", "Rejected", "rejected"),
    ),
    "cleanup": (
        ("rows_deleted", "Rows deleted", "deleted"),
        ("rows_matching", "Rows matching", ""),
        ("chunks", "Transactions", ""),
    ),
    "csv_import": (
        ("inserted", "Inserted", "inserted"),
        ("updated", "Updated", "updated"),
        ("skipped", "Skipped", "skipped"),
        ("rejected", "Rejected", "rejected"),
    ),
    "csv_export": (("rows", "Rows", ""), ("bytes", "Bytes", "")),
}
"""The numbers that a kind's runs are about, in this order, with their colours."""

_WITH_A_BAR = frozenset({"sync", "csv_import"})
_BAR = 600.0


@dataclass(frozen=True, slots=True)
class Counted:
    """One of the numbers; `css` is empty for one without a colour."""

    name: str
    count: int
    css: str


@dataclass(frozen=True, slots=True)
class ResultView:
    """The numbers, a bar of their shares, and everything that the result says."""

    counts: tuple[Counted, ...]
    bar: Markup | None
    plain: Sequence[tuple[str, object]]
    tables: Sequence[Part]


def result_view(kind: str, result: Mapping[str, object] | None) -> ResultView | None:
    """Return how to show the result; None for none."""
    if not result:
        return None
    planned = result.get("would")
    numbers = {**result, **_planned(planned)} if isinstance(planned, dict) else result
    counts = tuple(
        Counted(f"Would be {name.lower()}" if planned and css else name, number, css)
        for key, name, css in _SHOWN.get(kind, ())
        if isinstance(number := numbers.get(key), int) and not isinstance(number, bool)
    )
    bar = _bar(counts) if kind in _WITH_A_BAR else None
    return ResultView(counts, bar, plain_values(result), nested_parts(result))


def _planned(planned: Mapping[str, object]) -> dict[str, object]:
    """Return what a dry run would have done, under the names of what is done."""
    names = {"add": "added", "change": "changed", "remove": "removed"}
    return {names[key]: value for key, value in planned.items() if key in names}


def _bar(counts: Sequence[Counted]) -> Markup | None:
    parts = [each for each in counts if each.css and each.count]
    whole = sum(each.count for each in parts)
    if not whole:
        return None
    drawn, left = [], 0.0
    for each in parts:
        wide = _BAR * each.count / whole
        title = f"{each.name}: {each.count:,}"
        drawn.append(rect(left, 0, max(wide, 1.5), 10, css=f"part is-{each.css}", title=title))
        left += wide
    label = ", ".join(f"{each.count:,} {each.name.lower()}" for each in parts)
    return image(label, _BAR, 10, drawn, css="ratio")
