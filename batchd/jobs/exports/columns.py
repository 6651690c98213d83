"""Rows as a Parquet file: pyarrow (the extra `parquet`), a row group for some ten thousand rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchd.db.row_source import RowSource
from batchd.domain.template import plain
from batchd.errors import JobError
from batchd.jobs.exports.libraries import library

_INTEGERS = ("smallint", "integer", "bigint", "int", "tinyint", "mediumint", "int2", "int8")
_FLOATS = ("real", "double precision", "float", "double")


def write_parquet(path: Path, source: RowSource, rows: Iterator[Sequence[Sequence[Any]]]) -> Iterator[int]:
    """Write the file; yield the number of rows written after each of the given parts.

    Numbers, booleans, dates, moments and bytes keep their types; numeric, uuid, JSON and the rest become text.
    """
    arrow = library("pyarrow", "parquet")
    parquet = library("pyarrow.parquet", "parquet")
    kinds = [_kind(arrow, source.dialect, source.types[name]) for name in source.columns]
    schema = arrow.schema([(name, kind) for name, (kind, _) in zip(source.columns, kinds, strict=True)])
    done = 0
    with parquet.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for part in rows:
            columns = list(zip(*part, strict=True)) if part else [()] * len(kinds)
            try:
                arrays = [
                    arrow.array([None if value is None else convert(value) for value in column], type=kind)
                    for column, (kind, convert) in zip(columns, kinds, strict=True)
                ]
            except (arrow.ArrowException, OverflowError, TypeError, ValueError) as error:
                raise JobError(
                    f"rows {done + 1:,} to {done + len(part):,} of {source.name} have a value that does not fit its "
                    f"column: {' '.join(str(error).split())}",
                    hint="convert it in a `query`, or leave the column out with `columns`",
                    retryable=False,
                ) from error
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            done += len(part)
            yield done


def _kind(arrow: Any, dialect: str, declared: str) -> tuple[Any, Callable[[Any], Any]]:
    """Return the column's type in the file, and how a value gets there."""
    name = declared.lower()
    if name in _INTEGERS:
        return arrow.int64(), _as_is
    if name in _FLOATS:
        return arrow.float64(), float
    if dialect == "postgresql":
        exact: Mapping[str, Any] = {
            "boolean": arrow.bool_(),
            "date": arrow.date32(),
            "timestamp with time zone": arrow.timestamp("us", tz="UTC"),
            "timestamp without time zone": arrow.timestamp("us"),
            "bytea": arrow.binary(),
        }
        if name in exact:
            return exact[name], _as_is
    return arrow.string(), _text


def _as_is(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    flat = plain(value)
    return flat if isinstance(flat, str) else json.dumps(flat, ensure_ascii=False)
