"""cleanup deletes what is before the cutoff, and nothing else, whatever the table looks like."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.errors import JobError
from tests.support.cleaning import NOW, clean, context_on, execute, fetch
from tests.support.databases import open_database

_CUTOFF = NOW - timedelta(days=10)
_OFFSETS = [
    timedelta(days=-400),
    timedelta(days=-2),
    timedelta(days=-1),
    timedelta(hours=-13),
    timedelta(hours=-1),
    timedelta(seconds=-1),
    timedelta(milliseconds=-1),
    timedelta(0),
    timedelta(milliseconds=1),
    timedelta(seconds=1),
    timedelta(hours=1),
    timedelta(hours=11, minutes=29),
    timedelta(hours=13),
    timedelta(days=1),
    timedelta(days=3),
    timedelta(days=40),
]


def _day_is_over(moment: datetime) -> bool:
    return moment.date() < _CUTOFF.date()


def _second_is_over(moment: datetime) -> bool:
    return int(moment.timestamp()) < int(_CUTOFF.timestamp())


def _is_before(moment: datetime) -> bool:
    return moment < _CUTOFF


_FORMATS: dict[str, tuple[str, str, Any, Any]] = {
    "timestamptz": ("postgresql", "timestamptz", lambda m: m.isoformat(), _is_before),
    "timestamp": ("postgresql", "timestamp", lambda m: m.replace(tzinfo=None).isoformat(), _is_before),
    "date": ("postgresql", "date", lambda m: m.date().isoformat(), _day_is_over),
    "bigint seconds": ("both", "bigint", lambda m: int(m.timestamp()), _second_is_over),
    "bigint milliseconds": ("both", "bigint", lambda m: round(m.timestamp() * 1000), _is_before),
    "numeric seconds": ("postgresql", "numeric(20,3)", lambda m: f"{m.timestamp():.3f}", _second_is_over),
    "T and Z": ("sqlite", "TEXT", lambda m: m.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), _is_before),
    "space": ("sqlite", "DATETIME", lambda m: m.strftime("%Y-%m-%d %H:%M:%S.%f"), _is_before),
    "whole seconds": (
        "sqlite",
        "TIMESTAMP",
        lambda m: m.strftime("%Y-%m-%d %H:%M:%S"),
        lambda m: m.replace(microsecond=0) < _CUTOFF,
    ),
    "offset": ("sqlite", "TEXT", lambda m: (m + timedelta(hours=5)).isoformat()[:-6] + "+05:00", _is_before),
    "day": ("sqlite", "DATE", lambda m: m.date().isoformat(), _day_is_over),
}


@pytest.mark.parametrize("indexed", [True, False])
def test_exactly_what_is_before_the_cutoff_goes(database: Database, indexed: bool) -> None:
    """In every format, with and without an index: rows around the cutoff stay or go as the rule says; NULLs stay."""
    moments = [_CUTOFF + offset for offset in _OFFSETS] * 3
    forms = [form for form, (dialect, *_) in _FORMATS.items() if dialect in {"both", database.dialect.name}]
    for run_id, form in enumerate(forms, start=1):
        _, sql_type, write, goes = _FORMATS[form]
        execute(database, "DROP TABLE IF EXISTS logs", f"CREATE TABLE logs (id bigint PRIMARY KEY, at {sql_type})")
        if indexed:
            execute(database, "CREATE INDEX logs_at ON logs (at)")
        value = ":at" if database.dialect.name == "sqlite" else f"CAST(CAST(:at AS text) AS {sql_type})"
        rows = [{"id": number, "at": write(moment)} for number, moment in enumerate(moments)]
        with database.writing() as connection:
            connection.execute(text(f"INSERT INTO logs (id, at) VALUES (:id, {value})"), rows)
            connection.execute(text("INSERT INTO logs (id, at) VALUES (999, NULL)"))
        result = clean(database, context_on(database, run_id=run_id), batch_size=4)
        staying = {number for number, moment in enumerate(moments) if not goes(moment)} | {999}
        assert set(fetch(database, "SELECT id FROM logs")) == staying, form
        assert result["rows_deleted"] == len(moments) + 1 - len(staying), form


def test_a_missing_table_is_named_with_its_nearest(database: Database) -> None:
    """A typo in the table or the column fails at once and says what exists."""
    execute(database, "CREATE TABLE logs (id bigint PRIMARY KEY, created_at bigint)")
    with pytest.raises(JobError, match="no table lgos") as missing_table:
        clean(database, table="lgos")
    assert not missing_table.value.retryable
    assert "logs" in str(missing_table.value.hint)
    with pytest.raises(JobError, match="no column create_at") as missing_column:
        clean(database, column="create_at")
    assert "created_at" in str(missing_column.value.hint)


@pytest.mark.parametrize(("unit", "per_second"), [("microseconds", 10**6), ("nanoseconds", 10**9)])
@pytest.mark.parametrize("said", [True, False])
def test_finer_units_are_known(database: Database, unit: str, per_second: int, *, said: bool) -> None:
    """Named by `column_unit`, or found by the size of the numbers."""
    execute(database, "CREATE TABLE logs (id bigint PRIMARY KEY, at bigint)", "CREATE INDEX logs_at ON logs (at)")
    cutoff = int(_CUTOFF.timestamp() * 1_000) * (per_second // 1_000)
    rows = ", ".join(f"({number}, {cutoff + offset})" for number, offset in enumerate((-per_second, -1, 0, 1)))
    execute(database, f"INSERT INTO logs VALUES {rows}")
    clean(database, **({"column_unit": unit} if said else {}))
    assert fetch(database, "SELECT id FROM logs ORDER BY id") == [2, 3]


def test_a_local_timestamp_is_read_in_its_zone(postgres_url: str) -> None:
    """`column_timezone` says in which local time a column without one was written."""
    database = open_database(postgres_url)
    local = _CUTOFF.astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    execute(database, "CREATE TABLE logs (id bigint PRIMARY KEY, at timestamp)")
    execute(database, f"INSERT INTO logs VALUES (1, '{local - timedelta(seconds=1)}'), (2, '{local}')")
    assert clean(database, dry_run=True)["rows_matching"] == 0
    clean(database, column_timezone="Asia/Tokyo")
    assert fetch(database, "SELECT id FROM logs") == [2]
    database.close()


def test_an_archive_is_on_the_disk_before_the_rows_are_gone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each fsync of the archive, every other session still sees the chunk's rows."""
    execute(database, "CREATE TABLE logs (id bigint PRIMARY KEY, at bigint)")
    old = int(_CUTOFF.timestamp() * 1_000) - 86_400_000
    execute(database, "INSERT INTO logs VALUES " + ", ".join(f"({n}, {old + n})" for n in range(20)))
    synced = os.fsync
    seen: list[tuple[int, int]] = []

    def watched(descriptor: int) -> None:
        synced(descriptor)
        if archive.exists() and os.fstat(descriptor).st_ino == archive.stat().st_ino:
            seen.append((fetch(database, "SELECT count(*) FROM logs")[0], archive.stat().st_size))

    archive = tmp_path / "logs.jsonl.gz"
    monkeypatch.setattr(os, "fsync", watched)
    clean(database, archive_to=str(archive), batch_size=10)
    assert [rows for rows, size in seen if size] == [20, 10]
    assert fetch(database, "SELECT count(*) FROM logs") == [0]
