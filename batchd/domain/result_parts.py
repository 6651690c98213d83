"""What a run came to, taken apart for people: its plain values, and its lists as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a result; `name` says where in the result it stands: "databases.app.checks"."""

    name: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


def plain_values(result: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return what is plain, nested objects included, one line a key: ("databases.app.state", "ok")."""
    return list(_plain("", result))


def nested_parts(result: Mapping[str, object]) -> list[Part]:
    """Return the lists as tables: of objects with a column for each key, of anything else with one.

    What a query answered is one table, with the query's columns and its values as they are.
    """
    return list(_parts("", result))


def _plain(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _plain(f"{path}.{key}".lstrip("."), inner)
    elif not isinstance(value, list):
        yield path, _grouped(value)


def _parts(path: str, value: object) -> Iterator[Part]:
    if isinstance(value, dict) and _is_answer(value):
        yield Part(path, tuple(map(str, value["columns"])), [tuple(row) for row in value["rows"]])
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _parts(f"{path}.{key}".lstrip("."), inner)
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        headers = tuple(dict.fromkeys(key for row in value for key in row))
        yield Part(path, headers, [tuple(_grouped(row.get(key)) for key in headers) for row in value])
    elif isinstance(value, list) and value:
        yield Part(path, ("value",), [(_grouped(inner),) for inner in value])


def _is_answer(value: Mapping[str, object]) -> bool:
    """Whether it is what a query answered: the names of its columns, and rows with a value for each of them."""
    columns, rows = value.get("columns"), value.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list) or not columns:
        return False
    return all(isinstance(row, list) and len(row) == len(columns) for row in rows)


def _grouped(value: object) -> object:
    """Return a whole number with its thousands marked, a large one with a fraction without it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value.is_integer() else value
