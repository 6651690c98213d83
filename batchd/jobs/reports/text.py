"""A report as plain text: for those who read mail so, and for the line that a phone shows. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from batchd.jobs.reports.content import Block, Chart, Figures, Report, TableBlock

_WIDEST_CELL = 48
_BAR = 24
_MOST_BARS = 31


def report_text(report: Report) -> str:
    """Return the whole report."""
    lines = [report.title, "=" * len(report.title), report.subtitle, ""]
    if report.alert:
        lines += [f"!!  {report.alert}", ""]
    for block in report.blocks:
        lines += [*_block(block), ""]
    if report.attachments:
        lines += [f"Attached: {', '.join(report.attachments)}", ""]
    lines += ["-- ", " · ".join(report.footer)]
    return "\n".join(line.rstrip() if line != "-- " else line for line in lines) + "\n"


def _block(block: Block) -> Iterator[str]:
    if block.title:
        yield block.title
        yield "-" * len(block.title)
    match block:
        case Figures():
            yield from _figures(block)
        case TableBlock():
            yield from _table(block)
        case Chart():
            yield from _chart(block)


def _figures(block: Figures) -> Iterator[str]:
    widest = max((len(figure.label) for figure in block.figures), default=0)
    longest = max((len(figure.text) for figure in block.figures), default=0)
    for figure in block.figures:
        change = figure.change
        moved = ""
        if change is not None:
            moved = "   no change" if change.arrow == "=" else f"   {change.arrow} {change.text} from {change.before}"
        yield f"{figure.label.ljust(widest)}  {figure.text.rjust(longest)}{moved}"


def _table(block: TableBlock) -> Iterator[str]:
    if not block.rows:
        yield block.empty
    else:
        head = [column.label for column in block.columns]
        rows = [[_cell(cell) for cell in row] for row in block.rows]
        widths = [max(_width(line[index]) for line in [head, *rows]) for index in range(len(head))]
        for line in [head, *rows]:
            cells = zip(line, widths, block.columns, strict=True)
            yield "  ".join(
                _right(text, width) if column.is_number else _left(text, width) for text, width, column in cells
            )
    if block.left_out:
        yield f"and {block.left_out:,} more {'row' if block.left_out == 1 else 'rows'}"
    if block.note:
        yield block.note


def _chart(block: Chart) -> Iterator[str]:
    if not block.labels:
        yield "No values."
        return
    if len(block.bars) > _MOST_BARS:
        yield block.alt
        return
    if len(block.series) > 1:
        yield " / ".join(series.name for series in block.series)
    widest = max(_width(_cell(bar.label)) for bar in block.bars)
    longest = max(_width(bar.text) for bar in block.bars)
    for bar in block.bars:
        marks = "#" * round(bar.percent * _BAR / 100)
        yield f"{_left(_cell(bar.label), widest)}  {_right(bar.text, longest)}  {marks}"
    if block.note:
        yield block.note


def _left(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _right(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text


def _width(text: str) -> int:
    """Return how many columns the text takes in a monospaced font: two for an ideograph, none for a combining mark."""
    wide = sum(1 for char in text if unicodedata.east_asian_width(char) in "WF")
    return len(text) + wide - sum(1 for char in text if unicodedata.combining(char))


def _cell(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDEST_CELL else line[: _WIDEST_CELL - 1] + "…"
