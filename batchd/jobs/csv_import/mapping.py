"""Which field of the file goes into which column of the table, and what else goes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, Table, case, func, literal

from batchd.db.catalogue import TableFacts
from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.fitting import Value
from batchd.db.identifiers import nearest
from batchd.db.staging import POSITION, Staging
from batchd.errors import JobError

_PLAIN_TEXT = ("CHAR", "CLOB", "TEXT", "CITEXT", "NAME")
_ALL = "*"


@dataclass(frozen=True, slots=True)
class MappingRequest:
    """What the params say. `columns` maps a column to a field; None: fields have their columns' names."""

    columns: Mapping[str, str] | None
    ignore: Sequence[str]
    constants: Mapping[str, str | None]
    computed: Mapping[str, str]
    nulls: Sequence[str]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A column and the number of the field that goes into it."""

    column: ColumnFacts
    field: int


@dataclass(frozen=True, slots=True)
class TableMapping:
    """The whole mapping: columns from fields, from constants, and those computed (`now`, `file`, `line`, `run_id`)."""

    table: TableFacts
    width: int
    fields: tuple[Mapped, ...]
    fixed: Mapping[str, str | None]
    by_line: tuple[str, ...]
    nulls: tuple[str, ...]
    core: Table

    @property
    def columns(self) -> tuple[ColumnFacts, ...]:
        """Return every column that an INSERT names, in its order."""
        names = [*(mapped.column.name for mapped in self.fields), *self.fixed, *self.by_line]
        known = {column.name: column for column in self.table.columns}
        return tuple(known[name] for name in names)

    def values(self, staging: Staging) -> list[Value]:
        """Return what each column gets, as text."""
        found = [
            Value(mapped.column, self._text(mapped.column, staging.text(field_name(mapped.field))))
            for mapped in self.fields
        ]
        known = {column.name: column for column in self.table.columns}
        found += [Value(known[name], literal(value, String)) for name, value in self.fixed.items()]
        return found + [Value(known[name], staging.position.cast(String)) for name in self.by_line]

    def _text(self, column: ColumnFacts, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the field, NULL where it is a null marker. An empty text stays one where the column is never NULL."""
        markers = [marker for marker in self.nulls if marker or column.nullable or not is_plain_text(column)]
        match markers:
            case []:
                return text
            case [marker]:
                return func.nullif(text, literal(marker, String))
            case _:
                return case((text.in_(markers), None), else_=text)


def field_name(number: int) -> str:
    """Return the staging column of a field."""
    return f"f{number}"


def is_plain_text(column: ColumnFacts) -> bool:
    """Whether an empty text is a value of the column."""
    declared = column.type.upper()
    return not declared or any(word in declared for word in _PLAIN_TEXT)


def map_columns(
    table: TableFacts, header: Sequence[str], request: MappingRequest, computed: Mapping[str, str]
) -> TableMapping:
    """Return the mapping for a file with that header; raises JobError, not retryable, for one that does not work out.

    `computed` gives the text of every computed value but `line`.
    """
    _refuse_doubles(header)
    fields = _by_name(table, header, request) if request.columns is None else _as_told(table, header, request.columns)
    fixed = {table.column_named(name).name: value for name, value in request.constants.items()}
    by_line = []
    for name, word in request.computed.items():
        column = table.column_named(name).name
        if word == "line":
            by_line.append(column)
        else:
            fixed[column] = computed[word]
    mapping = TableMapping(
        table=table,
        width=len(header),
        fields=tuple(fields),
        fixed=fixed,
        by_line=tuple(by_line),
        nulls=tuple(request.nulls),
        core=table.as_table(),
    )
    problems = [message for _, message in column_problems(table, [column.name for column in mapping.columns])]
    if problems:
        raise JobError("; ".join(problems), retryable=False)
    return mapping


def column_problems(table: TableFacts, given: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong with an INSERT of these columns, each with the column: twice, not writable, missing."""
    problems = [(name, f"column {name} is given twice") for name in sorted({n for n in given if given.count(n) > 1})]
    for column in table.columns:
        if column.name in given and not column.is_writable:
            problems.append((column.name, f"column {column.name} is generated always and cannot be written"))
        if column.name not in given and not (column.nullable or column.fills_itself):
            problems.append((column.name, f"column {column.name} of {table.written} must have a value, and gets none"))
    return problems


def _as_told(table: TableFacts, header: Sequence[str], columns: Mapping[str, str]) -> list[Mapped]:
    places = {name: number for number, name in enumerate(header)}
    found = []
    for column, wanted in columns.items():
        if wanted not in places:
            raise JobError(
                f"the file has no field {wanted!r} for column {column}",
                hint=nearest(wanted, list(header)) or f"its fields are: {', '.join(header[:20])}",
                retryable=False,
            )
        found.append(Mapped(table.column_named(column), places[wanted]))
    return found


def _by_name(table: TableFacts, header: Sequence[str], request: MappingRequest) -> list[Mapped]:
    known: dict[str, ColumnFacts] = {}
    for column in table.columns:
        known.setdefault(_folded(column.name), column)
    given = {_folded(name) for name in (*request.constants, *request.computed)}
    found, unknown = [], []
    for number, name in enumerate(header):
        if name in request.ignore or _folded(name) in given:
            continue
        column_or_none = known.get(_folded(name))
        if column_or_none is not None:
            found.append(Mapped(column_or_none, number))
        elif _ALL not in request.ignore:
            unknown.append(name)
    if unknown or not found:
        said = ", ".join(repr(name) for name in unknown[:10]) or "any of the file's fields"
        names = [column.name for column in table.columns]
        near = nearest(unknown[0], names) if unknown else None
        raise JobError(
            f"table {table.written} has no column for {said}",
            hint=(f"{near} " if near else "")
            + 'say which column each field belongs to with `columns = { column = "Field" }`, or `ignore` them',
            retryable=False,
        )
    return found


def _folded(name: str) -> str:
    return name.strip().strip('"').lower().replace(" ", "_").replace("-", "_")


def _refuse_doubles(header: Sequence[str]) -> None:
    double = next((name for name in header if header.count(name) > 1), None)
    if double is not None:
        raise JobError(
            f"the header has the field {double!r} twice",
            hint="give the fields names of your own: `header = [...]` and `skip_lines = 1`",
            retryable=False,
        )
    if POSITION in header:
        raise JobError(f"no field may be named {POSITION}", retryable=False)
