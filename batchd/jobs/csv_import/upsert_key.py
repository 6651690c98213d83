"""By which key `on_conflict = "update"` finds the row, and which columns it sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchd.db.catalogue import TableFacts
from batchd.errors import JobError
from batchd.jobs.csv_import.mapping import TableMapping
from batchd.jobs.csv_import.writing import Conflict


@dataclass(frozen=True, slots=True)
class UpsertKey:
    """The unique key's columns and those that an update sets; both empty where nothing is updated."""

    columns: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()


def upsert_key(
    table: TableFacts,
    from_file: Sequence[str],
    mapping: TableMapping,
    conflict: Conflict,
    key: Sequence[str] | None,
    update: Sequence[str] | None,
) -> UpsertKey:
    """Return the key; raises JobError when there is none, when several could be meant, or when it gets no value."""
    if conflict is not Conflict.UPDATE:
        return UpsertKey()
    given = {column.name for column in mapping.columns}
    columns = chosen_key(table, key, given)
    missing = [name for name in columns if name not in given]
    if missing:
        raise JobError(f"column {missing[0]} of the key gets no value from the file", retryable=False)
    if update is None:
        return UpsertKey(columns, tuple(name for name in from_file if name not in columns))
    named = tuple(table.column_named(name).name for name in update)
    without = [name for name in named if name not in given]
    if without:
        raise JobError(f"column {without[0]} is to be updated, but gets no value from the file", retryable=False)
    return UpsertKey(columns, named)


def chosen_key(table: TableFacts, key: Sequence[str] | None, given: set[str] | None) -> tuple[str, ...]:
    """Return the unique key that is meant; `given` are the columns that get values, None when nobody knows yet."""
    known = table.unique_keys
    listed = " or ".join(f"({', '.join(columns)})" for columns in known) or "none at all"
    if key is not None:
        wanted = {table.column_named(name).name for name in key}
        for columns in known:
            if set(columns) == wanted:
                return columns
        raise JobError(
            f"{table.written} has no unique key over ({', '.join(key)}); it has {listed}",
            hint="make a unique index over these columns, not a partial one nor one of expressions",
            retryable=False,
        )
    usable = [columns for columns in known if given is None or given.issuperset(columns)]
    if len(usable) == 1 or (given is None and usable):
        return usable[0]
    raise JobError(
        f"which key of {table.written} says that a record is there already? It has {listed}"
        + ("" if usable else ", none of which the file fills"),
        hint='name its columns: `key = ["email"]`',
        retryable=False,
    )
