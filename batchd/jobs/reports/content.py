"""A report before it has a look: every number is text already, every change has its sense."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


class Sense(enum.StrEnum):
    """Whether a change is welcome."""

    GOOD = "good"
    BAD = "bad"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure moved: an arrow, the difference with its sign, and what it was before."""

    arrow: str
    text: str
    sense: Sense
    before: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One headline number; `change` None when there is nothing to compare with."""

    label: str
    text: str
    change: Change | None = None
    sense: Sense = Sense.NEUTRAL


@dataclass(frozen=True, slots=True)
class Figures:
    """Headline numbers side by side."""

    title: str
    figures: tuple[Figure, ...]
    kind: str = field(default="figures", init=False)


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column. `longest` is the length of its longest cell: short ones are never wrapped."""

    label: str
    is_number: bool
    longest: int = 0


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table; `left_out` rows are not shown, `empty` is said when there are none."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0
    note: str = ""
    empty: str = "No rows."
    is_empty_good: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart, or one part of its bars. `color` None: the next of the palette."""

    name: str
    values: tuple[float, ...]
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart that no picture was drawn of: its share of the longest one, in percent."""

    label: str
    text: str
    percent: int


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. `image` is the Content-ID of its picture; without one `bars` stand for it."""

    name: str
    title: str
    style: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    bars: tuple[Bar, ...]
    alt: str
    image: str | None = None
    note: str = ""
    unit: str = ""
    kind: str = field(default="chart", init=False)


Block = Figures | TableBlock | Chart


def table_of(
    title: str,
    columns: Iterable[tuple[str, bool]],
    rows: Iterable[tuple[str, ...]],
    *,
    left_out: int = 0,
    note: str = "",
    empty: str = "No rows.",
    is_empty_good: bool = False,
) -> TableBlock:
    """Return a table; each column is its label, and whether it holds numbers."""
    kept = tuple(rows)
    measured = tuple(
        Column(label, is_number, max((len(row[index]) for row in kept), default=0))
        for index, (label, is_number) in enumerate(columns)
    )
    return TableBlock(title, measured, kept, left_out, note, empty, is_empty_good)


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `alert` is the sentence of the banner; `summary` the line that a mailbox shows beside the subject."""

    title: str
    subtitle: str
    blocks: tuple[Block, ...]
    summary: str
    alert: str | None = None
    footer: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query said. `is_cut` when there were more rows than the limit."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    is_cut: bool

    @property
    def records(self) -> list[Mapping[str, object]]:
        """The rows as mappings, for a person's own template."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    @property
    def value(self) -> object:
        """The first cell, or None."""
        return self.rows[0][0] if self.rows and self.columns else None
