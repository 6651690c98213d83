"""JSON records read straight into the texts of their columns, several times as fast as through dicts.

A record becomes a struct of only the values that are mapped; what no column takes is skipped over. That goes for a page
whose records are all ordinary. For any other there is no answer here, and it goes the way record by record, which knows
every oddity and says what is wrong with it. Both ways give the same texts: see tests/unit/jobs/test_sync_records.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec

from batchd.db.catalogue_facts import ColumnFacts
from batchd.jobs.sync.json_text import parse_json
from batchd.jobs.sync.mapping import FieldMap, is_document
from batchd.jobs.sync.read_records import ReadRecords

_AS_WRITTEN = ("numeric", "decimal", "real", "float", "double", "money", "json", "[]")
"""Types whose values are taken as they are written: a parsed number would have lost digits."""

_NUMBERS_AND_NULLS = b'0123456789+-.eE"nul\n'
_PLAIN = str | int | bool | None
_NULL = msgspec.Raw(b"null")


class RecordReader:
    """Reads for one job. Any thread may call it.

    `records_at` is the path of the list in a body, `moment_at` that of a record's moment of change. Raises ValueError
    when the paths contradict each other, as no record could have all of them.
    """

    def __init__(
        self, fields: FieldMap, records_at: tuple[str, ...] = (), moment_at: tuple[str, ...] | None = None
    ) -> None:
        self._fields = fields
        self._records_at = records_at
        tree = _Object()
        for each in fields.fields:
            tree.add(each.path, is_optional=each.is_optional, is_written=_is_taken_as_written(each.column))
        if moment_at is not None:
            tree.add(moment_at, is_optional=True, is_written=False)
        record = tree.struct()
        self._columns = [tree.column(each.path, digits_do=not is_document(each.column)) for each in fields.fields]
        self._moments = None if moment_at is None else tree.column(moment_at, digits_do=False)
        self._list = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
        self._line = msgspec.json.Decoder(record)
        self._object = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def body(self, data: bytes, parse: Callable[[], Sequence[Any]]) -> tuple[ReadRecords, Any] | None:
        """Return the records in a JSON body, and what is around them; None when a record is not ordinary.

        `parse` returns the records as the slow way reads them.
        """
        try:
            _check_utf8(data)
            listed, around = self._list_in(data, self._records_at)
            found = self._read(self._list.decode(listed), parse)
        except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
            return None
        return None if found is None else (found, around)

    def lines(self, lines: Sequence[bytes], parse: Callable[[], Sequence[Any]]) -> ReadRecords | None:
        """Return the records of NDJSON lines, none of which is blank; None when one is not ordinary."""
        try:
            for line in lines:
                _check_utf8(line)
            return self._read(list(map(self._line.decode, lines)), parse)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _list_in(self, data: bytes | msgspec.Raw, path: tuple[str, ...]) -> tuple[bytes | msgspec.Raw, Any]:
        """Return the text of the list, and the document without it."""
        if not path:
            return data, None
        parts = self._object.decode(data)
        listed, around = self._list_in(parts.pop(path[0]), path[1:])
        return listed, {path[0]: around, **{name: parse_json(bytes(part)) for name, part in parts.items()}}

    def _read(self, structs: Sequence[Any], parse: Callable[[], Sequence[Any]]) -> ReadRecords | None:
        try:
            texts = self._fields.texts_of([column.values(structs) for column in self._columns])
            moments = [] if self._moments is None else self._moments.values(structs)
        except AttributeError:  # null where there should be an object
            return None
        return None if texts is None else ReadRecords(texts, moments, parse)


@dataclass(frozen=True, slots=True)
class _Column:
    """`digits_do` says that a number's text serves as well as the number."""

    value: Callable[[Any], Any]
    is_written: bool
    digits_do: bool

    def values(self, structs: Sequence[Any]) -> list[Any]:
        found = list(map(self.value, structs))
        if not self.is_written:
            return found
        texts = _numbers(found) if self.digits_do else None
        return [parse_json(bytes(each)) for each in found] if texts is None else texts


@dataclass(slots=True)
class _Value:
    is_optional: bool
    is_written: bool


@dataclass(slots=True)
class _Object:
    """The values that are wanted of an object, by their names; a struct's own names are those of their places."""

    parts: dict[str, _Value | _Object] = field(default_factory=dict)

    def add(self, path: tuple[str, ...], *, is_optional: bool, is_written: bool) -> None:
        name, further = path[0], path[1:]
        if name.isdecimal():
            raise ValueError("a number may count the items of a list")
        part = self.parts.setdefault(name, _Object() if further else _Value(is_optional, is_written))
        if isinstance(part, _Object) != bool(further):
            raise ValueError(f"{name} cannot be both an object and a value")
        if isinstance(part, _Object):
            part.add(further, is_optional=is_optional, is_written=is_written)
        else:
            part.is_optional &= is_optional
            part.is_written |= is_written

    def struct(self) -> Any:
        own = {f"f{place}": part for place, part in enumerate(self.parts.values())}
        fields: list[Any] = []
        for name, part in sorted(own.items(), key=lambda item: isinstance(item[1], _Value) and item[1].is_optional):
            match part:
                case _Object():
                    fields.append((name, part.struct()))
                case _Value(is_optional=False):
                    fields.append((name, msgspec.Raw if part.is_written else _PLAIN))
                case _Value():
                    fields.append((name, msgspec.Raw, _NULL) if part.is_written else (name, _PLAIN, None))
        rename = dict(zip(own, self.parts, strict=True))
        return msgspec.defstruct("Record", fields, rename=rename, gc=False)

    def column(self, path: tuple[str, ...], *, digits_do: bool) -> _Column:
        names: list[str] = []
        part: _Value | _Object = self
        for name in path:
            assert isinstance(part, _Object)
            names.append(f"f{list(part.parts).index(name)}")
            part = part.parts[name]
        assert isinstance(part, _Value)
        return _Column(attrgetter(".".join(names)), part.is_written, digits_do)


def _is_taken_as_written(column: ColumnFacts) -> bool:
    kind = column.type.lower()
    return not kind or any(word in kind for word in _AS_WRITTEN)


def _numbers(written: Sequence[msgspec.Raw]) -> list[str | None] | None:
    """Return the texts of numbers, also of those in quotes, and None for null; None when something else is there."""
    together = b"\n".join(written)
    if not written or together.translate(None, _NUMBERS_AND_NULLS):
        return None
    texts = together.decode().split("\n")
    is_bare = b"n" not in together and b'"' not in together
    return list(texts) if is_bare else [None if text == "null" else text.strip('"') for text in texts]


def _check_utf8(data: bytes) -> None:
    """Raise ValueError for what is not UTF-8: msgspec does not look into what it skips."""
    if not data.isascii():
        data.decode()
