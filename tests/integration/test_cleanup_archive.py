"""What lies in an archive is what was in the table, and the way through the table is the right one."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.errors import JobError
from batchd.jobs.archive import open_archive
from tests.support.cleaning import NOW, clean, context_on, execute, fetch, logs_table

_OLD = int(NOW.timestamp() * 1000) - 30 * 86_400_000
_ODD = 'line\nbreak, "quote" and 100 % ü'


def _table_of_odd_values(database: Database) -> None:
    execute(database, "CREATE TABLE logs (id bigint PRIMARY KEY, at bigint, note text, amount numeric(30, 10))")
    with database.writing() as connection:
        insert = text("INSERT INTO logs VALUES (:id, :at, :note, :amount)")
        for number, note in enumerate(["", None, _ODD, "\\."]):
            connection.execute(insert, {"id": number, "at": _OLD + number, "note": note, "amount": 1.5})


def test_csv_tells_null_from_empty(database: Database, tmp_path: Path) -> None:
    """NULL is an empty field, an empty text a quoted one, and every other value comes back as it was."""
    _table_of_odd_values(database)
    clean(database, archive_to=str(tmp_path / "logs.csv.gz"))
    content = gzip.decompress((tmp_path / "logs.csv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["note"] for row in rows] == ["", "", _ODD, "\\."]
    lines = content.splitlines()
    assert lines[0] == "id,at,note,amount"
    assert f'0,{_OLD},"",' in lines[1]
    assert f"1,{_OLD + 1},,1.5" in lines[2]


def test_json_lines_keep_types(database: Database, tmp_path: Path) -> None:
    """Numbers stay numbers and NULL stays null."""
    _table_of_odd_values(database)
    clean(database, archive_to=str(tmp_path / "logs.jsonl.gz"))
    lines = gzip.decompress((tmp_path / "logs.jsonl.gz").read_bytes()).decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["note"] for row in rows] == ["", None, _ODD, "\\."]
    assert all(row["amount"] == 1.5 and row["at"] == _OLD + row["id"] for row in rows)


def test_postgres_reads_its_csv_back(database: Database, tmp_path: Path) -> None:
    """COPY FROM of the archive gives the same table."""
    if database.dialect.name == "sqlite":
        pytest.skip("COPY is PostgreSQL's")
    _table_of_odd_values(database)
    query = "SELECT md5(string_agg(logs::text, '|' ORDER BY id)) FROM logs"
    before = fetch(database, query)
    clean(database, archive_to=str(tmp_path / "logs.csv.gz"))
    assert fetch(database, "SELECT count(*) FROM logs") == [0]
    with database.writing() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor().copy("COPY logs FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(gzip.decompress((tmp_path / "logs.csv.gz").read_bytes()))
    assert fetch(database, query) == before


def test_later_runs_append_under_one_header(database: Database, tmp_path: Path) -> None:
    """The second run's rows follow the first one's."""
    archive = tmp_path / "logs.csv.gz"
    logs_table(database, 300)
    clean(database, archive_to=str(archive), max_rows=10)
    first = archive.stat().st_size
    result = clean(database, archive_to=str(archive))
    assert result["bytes_archived"] == archive.stat().st_size - first
    lines = gzip.decompress(archive.read_bytes()).decode().splitlines()
    assert len(lines) == 60
    assert [number for number, line in enumerate(lines) if line.startswith("id,")] == [0]


def test_an_archive_in_use_or_too_short_deletes_nothing(database: Database, tmp_path: Path) -> None:
    """A file that another run writes, or that lost what was archived, stops the run before the next delete."""
    archive = tmp_path / "logs.csv.gz"
    logs_table(database, 300)
    with open_archive(archive, "sqlite", ["id"]), pytest.raises(JobError, match="being written"):
        clean(database, archive_to=str(archive))
    assert len(fetch(database, "SELECT id FROM logs")) == 300
    context = context_on(database)
    clean(database, context, archive_to=str(archive), max_rows=5)
    archive.write_bytes(b"")
    with pytest.raises(JobError, match="were written before"):
        clean(database, context.next_attempt(), archive_to=str(archive))
    assert len(fetch(database, "SELECT id FROM logs")) == 295


def test_rows_in_random_order_are_walked_by_key(database: Database) -> None:
    """Where the column's order says nothing about where rows lie, the key's windows are taken."""
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite keeps no correlation")
    logs_table(database, 2000)
    execute(database, f"UPDATE logs SET at = {_OLD} - (hashtext(id::text)::bigint + 2147483648) / 1000")
    execute(database, "CREATE TABLE heap AS SELECT * FROM logs ORDER BY id", "ALTER TABLE heap ADD PRIMARY KEY (id)")
    execute(database, "CREATE INDEX heap_at ON heap (at)", "ANALYZE heap")
    assert clean(database, table="heap")["method"] == "key_windows"
    assert fetch(database, "SELECT count(*) FROM heap") == [0]


def test_a_composite_key_without_index_works(database: Database) -> None:
    """Windows compare the key's columns as a row."""
    execute(database, "CREATE TABLE logs (tenant text, number integer, at bigint, PRIMARY KEY (tenant, number))")
    with database.writing() as connection:
        rows = [{"tenant": f"t{n % 7}", "number": n, "at": _OLD + n * 20_000_000} for n in range(300)]
        connection.execute(text("INSERT INTO logs VALUES (:tenant, :number, :at)"), rows)
    result = clean(database, batch_size=9)
    assert result["rows_deleted"] == 87
    assert min(fetch(database, "SELECT number FROM logs")) == 87
