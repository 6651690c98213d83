"""From a record to the texts of its columns. The database makes values of them, by the column's own type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from batchd.db.catalogue_facts import ColumnFacts
from batchd.domain.job import JsonValue
from batchd.jobs.sync.json_text import Digits, json_text
from batchd.jobs.sync.record_path import MISSING, found_at, parse_path
from batchd.jobs.sync.sources import BadLine

_JSON = {"json", "jsonb"}
_PLAIN = {str, Digits, type(None)}
_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class Field:
    """One column and where its value is in a record."""

    column: ColumnFacts
    path: tuple[str, ...]
    is_key: bool
    is_optional: bool

    @property
    def written_path(self) -> str:
        """Return the path as it is configured, roughly."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Mapped:
    """What became of a record: its texts in the order of the columns, or why it is rejected.

    `key` holds the texts of the key's columns when all are there, whatever is wrong with the others.
    """

    texts: list[str | None]
    reason: str | None = None
    key: tuple[str, ...] | None = None


class FieldMap:
    """The fields of one job on its table, the key's columns first. `is_json`: the source's texts are JSON strings."""

    def __init__(self, fields: Sequence[Field], *, is_json: bool) -> None:
        self.fields = tuple(sorted(fields, key=lambda field: not field.is_key))
        self.keys = tuple(field.column.name for field in self.fields if field.is_key)
        self.columns = tuple(field.column for field in self.fields)
        self._plan = [(field, _only(field.path), _Writer(field.column, is_json=is_json)) for field in self.fields]

    def mapped(self, record: Any) -> Mapped:
        """Return the record's texts, or the reason why it has none."""
        if not isinstance(record, dict):
            return Mapped([], record.reason if isinstance(record, BadLine) else "is not an object")
        texts: list[str | None] = []
        reason = None
        for field, name, writer in self._plan:
            value = record.get(name, MISSING) if name is not None else found_at(record, field.path)
            if type(value) is str and writer.takes_plain:
                texts.append(value)
                continue
            if value is MISSING:
                value = None
                if not field.is_optional:
                    reason = reason or f"has no `{field.written_path}` (column {field.column.name})"
            text = writer.text(value)
            if text is None and (field.is_key or not field.column.nullable):
                reason = reason or f"column {field.column.name}: may not be NULL"
            texts.append(text)
        if reason is None:
            return Mapped(texts)
        return Mapped(texts, reason, _whole_key(texts[: len(self.keys)]))

    def mapped_together(self, records: Sequence[Any]) -> list[tuple[str | None, ...]] | None:
        """Return the texts of all the records, or None when one of them has to be looked at by itself."""
        try:
            return self.texts_of([_column(records, field) for field in self.fields])
        except (KeyError, TypeError, AttributeError):
            return None  # a value is missing, or a record is no object

    def texts_of(self, columns: Sequence[Sequence[Any]]) -> list[tuple[str | None, ...]] | None:
        """Return the texts of records by their values in each field, or None when one may not be stored.

        Column by column, which is several times as fast: most pages hold nothing odd.
        """
        texts: list[Sequence[str | None]] = []
        for (field, _, writer), values in zip(self._plan, columns, strict=True):
            kinds = set(map(type, values))
            if type(None) in kinds and (field.is_key or not field.column.nullable):
                return None
            is_plain = writer.takes_plain and kinds <= _PLAIN
            texts.append(values if is_plain else list(map(str if kinds == {int} else writer.text, values)))
        return list(zip(*texts, strict=True))

    def key_text(self, texts: Sequence[str | None]) -> str | None:
        """Return the key of a record for messages, or None when it has none."""
        found = texts[: len(self.keys)]
        shown = ", ".join(str(text) for text in found) if found and None not in found else None
        return None if shown is None else shown[:_LONGEST_KEY]


class _Writer:
    """Writes the values of one column as its type reads them."""

    def __init__(self, column: ColumnFacts, *, is_json: bool) -> None:
        kind = column.type.lower()
        self._is_document = is_json and is_document(column)
        self._is_array = kind.endswith("[]")
        self._is_number = "int" in kind or kind in {"numeric", "real", "double precision"}
        self.takes_plain = not self._is_document

    def text(self, value: Any) -> str | None:
        if value is None:
            return None
        if self._is_document:
            return json_text(value)
        match value:
            case str():
                return value
            case bool():
                return str(int(value)) if self._is_number else str(value).lower()
            case list() if self._is_array:
                return _array(value)
            case dict() | list():
                return json_text(_plain(value))
            case _:
                return _scalar(value)


def _column(records: Sequence[Any], field: Field) -> list[Any]:
    """Return the field's value in each record; raises KeyError, TypeError or AttributeError where there is none."""
    first, *further = field.path
    if field.is_optional and not further:
        return [record.get(first) for record in records]
    values = [record[first] for record in records]
    for name in further:
        values = [value[name] for value in values]
    return values


def is_document(column: ColumnFacts) -> bool:
    """Whether the column holds JSON."""
    return column.type.lower() in _JSON


def record_json(record: Any) -> JsonValue:
    """Return a record as it is kept with its reason."""
    return record.text if isinstance(record, BadLine) else _plain(record)


def by_column(columns: Sequence[str], texts: Sequence[str | None]) -> Mapping[str, str | None]:
    """Return the texts by the names of their columns."""
    return dict(zip(columns, texts, strict=True))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return _scalar(value)


def _scalar(value: Any) -> str:
    match value:
        case float():
            return repr(value)
        case Decimal():
            return format(value, "f")
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
        case UUID() | int():
            return str(value)
        case _:
            return str(value)


def _array(values: list[Any]) -> str:
    """Return the text of a PostgreSQL array."""
    parts = []
    for value in values:
        if value is None:
            parts.append("NULL")
        elif isinstance(value, list):
            parts.append(_array(value))
        else:
            plain = str(value).lower() if isinstance(value, bool) else _inner(value)
            parts.append('"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"


def _inner(value: Any) -> str:
    if isinstance(value, Digits | str):
        return str(value)
    return json_text(value) if isinstance(value, dict) else _scalar(value)


def _only(path: tuple[str, ...]) -> str | None:
    return path[0] if len(path) == 1 else None


def _whole_key(texts: Sequence[str | None]) -> tuple[str, ...] | None:
    whole = tuple(text for text in texts if text is not None)
    return whole if len(whole) == len(texts) else None


def fields_of(
    columns: Mapping[str, ColumnFacts], paths: Mapping[str, str], key: Sequence[str], optional: Sequence[str]
) -> list[Field]:
    """Return the fields by the columns' names as the config writes them; `columns` holds what each name means."""
    keys = {columns[name].name for name in key}
    free = {columns[name].name for name in optional}
    return [
        Field(columns[name], parse_path(path), columns[name].name in keys, columns[name].name in free)
        for name, path in paths.items()
    ]
