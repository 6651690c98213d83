"""From answers to blocks: which columns are figures, how they moved, what a chart shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from batchd.errors import JobError
from batchd.jobs.reports.content import Answer, Bar, Block, Chart, Figure, Figures, Series, TableBlock, table_of
from batchd.jobs.reports.formats import Formats, decimals_of, humanised, is_finite, is_number, is_number_column

Show = Literal["auto", "figures", "table", "bar", "line", "none"]

_MOST_POINTS = {"line": 400, "bar": 60}
_MOST_FIGURES = 12


@dataclass(frozen=True, slots=True)
class View:
    """How a query is shown. `unit`, `good` and `decimals` hold for all its columns, or for those that they name."""

    show: Show = "auto"
    title: str | None = None
    rows: int = 50
    unit: str | Mapping[str, str] = ""
    good: str | Mapping[str, str] = "up"
    decimals: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def label(self, column: str) -> str:
        """Return the heading of a column."""
        return self.labels.get(column) or humanised(column)

    def unit_of(self, column: str) -> str:
        """Return the unit of a column."""
        return self.unit if isinstance(self.unit, str) else self.unit.get(column, "")

    def good_of(self, column: str) -> str:
        """Return the welcome direction of a column."""
        return self.good if isinstance(self.good, str) else self.good.get(column, "up")


def block_of(answer: Answer, view: View, formats: Formats, before: Mapping[str, Any]) -> Block | None:
    """Return what the answer looks like; `before` holds earlier figures by `query.column`. None: not to be shown."""
    show = _chosen(answer, view.show)
    match show:
        case "figures":
            return _figures(answer, view, formats, before)
        case "bar" | "line":
            return _chart(answer, view, formats, show)
        case "table":
            return _table(answer, view, formats)
        case _:
            return None


def figures_of(answers: Mapping[str, Answer], views: Mapping[str, View]) -> dict[str, float]:
    """Return every headline number by `query.column`: what the next run compares with."""
    return {
        f"{name}.{column}": _float(value)
        for name, answer in answers.items()
        if _chosen(answer, views[name].show) == "figures" and answer.rows
        for column, value in zip(answer.columns, answer.rows[0], strict=True)
        if is_finite(value)
    }


def _chosen(answer: Answer, show: Show) -> Show:
    """Return what "auto" means: one row of few numbers is figures, anything else a table."""
    if show != "auto":
        return show
    is_row = len(answer.rows) == 1 and len(answer.columns) <= _MOST_FIGURES
    return "figures" if is_row and all(value is None or is_number(value) for value in answer.rows[0]) else "table"


def _figures(answer: Answer, view: View, formats: Formats, before: Mapping[str, Any]) -> Figures:
    row: Sequence[Any] = answer.rows[0] if answer.rows else [None] * len(answer.columns)
    figures = []
    for column, value in zip(answer.columns, row, strict=True):
        unit = view.unit_of(column)
        decimals = decimals_of([value]) if view.decimals is None else view.decimals
        was = before.get(f"{answer.name}.{column}")
        change = None
        if is_finite(value) and is_finite(was):
            change = formats.change(_float(value), _float(was), view.good_of(column), unit, decimals)
        figures.append(Figure(view.label(column), formats.cell(value, unit, decimals), change))
    return Figures(view.title or "", tuple(figures))


def _table(answer: Answer, view: View, formats: Formats) -> TableBlock:
    values = list(zip(*answer.rows, strict=True)) or [() for _ in answer.columns]
    numeric = [is_number_column(column) for column in values]
    decimals = [decimals_of(column) if view.decimals is None else view.decimals for column in values]
    units = [view.unit_of(column) for column in answer.columns]
    shown = answer.rows[: view.rows]
    rows = tuple(
        tuple(formats.cell(value, units[index], decimals[index]) for index, value in enumerate(row)) for row in shown
    )
    columns = zip(map(view.label, answer.columns), numeric, strict=True)
    left_out = len(answer.rows) - len(shown)
    note = "There are more rows than the report reads." if answer.is_cut else ""
    return table_of(view.title or humanised(answer.name), columns, rows, left_out=left_out, note=note)


def _chart(answer: Answer, view: View, formats: Formats, style: Literal["bar", "line"]) -> Chart:
    columns = list(zip(*answer.rows, strict=True))
    numeric = [index for index in range(1, len(answer.columns)) if columns and is_number_column(columns[index])]
    if answer.rows and not numeric:
        raise JobError(
            f"query {answer.name!r} is shown as a {style} chart, but has no numbers",
            hint="let its first column be the label, the others numbers",
            retryable=False,
        )
    rows = answer.rows[-_MOST_POINTS[style] :]
    note = f"The last {len(rows)} of {len(answer.rows)} values." if len(rows) < len(answer.rows) else ""
    labels = tuple(formats.cell(row[0]) for row in rows)
    series = tuple(
        Series(view.label(answer.columns[index]), tuple(_float(row[index]) for row in rows)) for index in numeric
    )
    unit = view.unit_of(answer.columns[numeric[0]]) if numeric else ""
    title = view.title or humanised(answer.name)
    return chart_of(answer.name, title, style, labels, series, formats, unit=unit, note=note)


def chart_of(
    name: str,
    title: str,
    style: Literal["bar", "line"],
    labels: tuple[str, ...],
    series: tuple[Series, ...],
    formats: Formats,
    *,
    unit: str = "",
    note: str = "",
) -> Chart:
    """Return a chart with its bars, and its meaning in words for whoever sees no pictures."""
    # The parts of a bar add up; two lines do not: there the first one stands for the chart.
    values = [sum(parts) for parts in zip(*(each.values for each in series), strict=True)] if series else []
    if style == "line" and series:
        values = list(series[0].values)
    decimals = decimals_of(value for each in series for value in each.values)
    longest = max((abs(value) for value in values), default=0.0)
    texts = [
        " / ".join(formats.number(part, unit, decimals) for part in parts)
        for parts in zip(*(each.values for each in series), strict=True)
    ]
    bars = tuple(
        Bar(label, text, round(abs(value) / longest * 100) if longest else 0)
        for label, text, value in zip(labels, texts, values, strict=True)
    )
    alt = f"{title}: no values"
    if values:
        low, high, last = (formats.number(value, unit, decimals) for value in (min(values), max(values), values[-1]))
        of = f" of {series[0].name}" if style == "line" and len(series) > 1 else ""
        alt = f"{title}: {len(values)} values{of} from {labels[0]} to {labels[-1]}, "
        alt += f"lowest {low}, highest {high}, last {last}"
    return Chart(name, title, style, labels, series, bars, alt, note=note, unit=unit)


def _float(value: Any) -> float:
    """Return a number of any sort for a comparison or a chart; NULL, NaN and infinity are nothing."""
    return float(value) if is_finite(value) else 0.0
