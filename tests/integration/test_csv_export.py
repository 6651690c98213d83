"""csv_export writes what the table holds, in every format, as a whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import JobError, RunInterrupted
from batchd.jobs.kinds.csv_export import KIND
from tests.support.cleaning import execute
from tests.support.job_context import DirectContext

_FIRE = datetime(2026, 5, 20, 3, 15, 7, tzinfo=UTC)
_NAMES = ["Ada", 'O\'Hara, "Bo"', "line\nbreak", "", None, "=1+1", "tab\there", "日本%s:x\\N", "\\.", "-5"]


@pytest.fixture
def people(database: Database) -> Database:
    """A database with 25 people, whose names need every rule of quoting."""
    blob, moment = ("bytea", "timestamptz") if database.dialect.name == "postgresql" else ("blob", "text")
    execute(
        database,
        f"CREATE TABLE people (id integer PRIMARY KEY, name text, ratio numeric(10,2), raw {blob}, at {moment})",
    )
    with database.writing() as connection:
        connection.execute(
            text("INSERT INTO people VALUES (:id, :name, :ratio, :raw, :at)"),
            [
                {
                    "id": n,
                    "name": _NAMES[n % len(_NAMES)],
                    "ratio": None if n % 3 == 0 else n / 4,
                    "raw": bytes([n, 0, 255]),
                    "at": "2026-05-01 12:00:00+00",
                }
                for n in range(1, 26)
            ],
        )
    return database


def export(
    database: Database, path: Path, context: DirectContext | None = None, **params: Any
) -> tuple[JsonObject, Path]:
    """Run the kind and return its result and the file."""
    rows = {} if "query" in params else {"table": "people"}
    filled = {"database": "app", "path": str(path), **rows} | params
    context = context or DirectContext({"app": database}, scheduled_for=_FIRE)
    result = KIND.run(KIND.params.model_validate(filled), context)
    return result, Path(str(result["path"]))


def read_csv(content: str, **options: Any) -> list[list[str]]:
    """The records of a CSV text."""
    return list(csv.reader(io.StringIO(content, newline=""), **options))


def only(folder: Path) -> list[str]:
    """What lies in the folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_csv_holds_every_value(people: Database, tmp_path: Path) -> None:
    """Quoted as COPY does, an empty text told from NULL; the same records on every database."""
    result, file = export(people, tmp_path / "out" / "people.csv", columns=["id", "name", "raw"], key=["id"])
    content = file.read_text()
    assert read_csv(content) == [
        ["id", "name", "raw"],
        *([str(n), _NAMES[n % 10] or "", f"\\x{n:02x}00ff"] for n in range(1, 26)),
    ]
    assert '\n3,"",' in content
    assert "\n4,,\\x" in content
    assert result == {
        "path": str(file),
        "rows": 25,
        "bytes": file.stat().st_size,
        "snapshots": 1,
        "removed_files": 0,
        "dry_run": False,
    }
    assert only(file.parent) == ["people.csv"]
    assert file.stat().st_mode & 0o777 == 0o640


def test_csv_as_other_programs_want_it(people: Database, tmp_path: Path) -> None:
    """Delimiter, NULL, quotes, header and byte order mark are told; a .tsv has tabs."""
    options = {"columns": ["id", "name"], "key": ["id"], "where": "id <= 4"}
    _, file = export(people, tmp_path / "a.csv", delimiter=";", null="NULL", quote_all=True, bom=True, **options)
    assert file.read_text() == '\ufeff"id";"name"\n"1";"O\'Hara, ""Bo"""\n"2";"line\nbreak"\n"3";""\n"4";NULL\n'
    records = read_csv(file.read_text(encoding="utf-8-sig"), delimiter=";")
    assert records[1:] == [["1", 'O\'Hara, "Bo"'], ["2", "line\nbreak"], ["3", ""], ["4", "NULL"]]
    _, file = export(people, tmp_path / "a.tsv", header=False, **options | {"where": "id = 6"})
    assert read_csv(file.read_text(), delimiter="\t") == [["6", "tab\there"]]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst", "ndjson", "jsonl.gz", "ndjson.zst"])
@pytest.mark.parametrize("resumable", [False, True])
def test_texts_can_be_packed(people: Database, tmp_path: Path, ending: str, resumable: bool) -> None:
    """In one piece or in frames of a few rows, the unpacked content is the same."""
    plain = ending.split(".", maxsplit=1)[0]
    options: dict[str, Any] = {"key": ["id"], "resumable": resumable, "slice_rows": 4}
    _, packed = export(people, tmp_path / f"a.{ending}", **options)
    _, bare = export(people, tmp_path / f"b.{plain}", key=["id"])
    data = packed.read_bytes()
    if ending.endswith(".gz"):
        data = gzip.decompress(data)
    elif ending.endswith(".zst"):
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    assert data == bare.read_bytes()
    assert len(data.splitlines()) >= 25


def test_json_lines_keep_types(people: Database, tmp_path: Path) -> None:
    """Numbers stay numbers, NULL is null, each row is one line whatever its texts hold."""
    _, file = export(people, tmp_path / "a.ndjson", key=["id"], columns=["id", "name", "ratio", "raw"])
    lines = file.read_text().splitlines()
    assert len(lines) == 25
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == list(range(1, 26))
    assert [row["name"] for row in rows] == [_NAMES[n % 10] for n in range(1, 26)]
    assert rows[0]["ratio"] == 0.25
    assert rows[2]["ratio"] is None
    assert rows[0]["raw"] == "\\x0100ff"


def test_a_workbook_opens_with_its_types(people: Database, tmp_path: Path) -> None:
    """Numbers, texts that look like formulas, NULLs and moments, under a bold header that stays in sight."""
    _, file = export(people, tmp_path / "a.xlsx", columns=["id", "name", "ratio", "at"])
    sheet = openpyxl.load_workbook(file).active
    assert sheet is not None
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0] == ("id", "name", "ratio", "at")
    assert [row[0] for row in rows[1:]] == list(range(1, 26))
    assert [row[1] for row in rows[1:]] == [_NAMES[n % 10] for n in range(1, 26)]
    assert sheet.cell(6, 2).data_type == "s"
    assert rows[1][2] == 0.25
    moment = "2026-05-01 12:00:00" + ("" if people.dialect.name == "postgresql" else "+00")
    assert str(rows[1][3]) == moment
    assert [name for name in only(tmp_path) if name.endswith((".xlsx", ".part"))] == ["a.xlsx"]


def test_parquet_keeps_types(people: Database, tmp_path: Path) -> None:
    """Integers, texts, bytes and moments as such; decimals as exact text."""
    _, file = export(people, tmp_path / "a.parquet", columns=["id", "name", "raw", "at"])
    table = pyarrow.parquet.read_table(file)
    assert table.column("id").to_pylist() == list(range(1, 26))
    assert table.column("name").to_pylist() == [_NAMES[n % 10] for n in range(1, 26)]
    if people.dialect.name == "postgresql":
        assert table.column("raw").to_pylist()[0] == b"\x01\x00\xff"
        assert table.column("at").to_pylist()[0] == datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_formulas_are_made_harmless_on_request(people: Database, tmp_path: Path, ending: str) -> None:
    """Texts that begin as formulas do get an apostrophe in CSV; numbers and other texts stay, a workbook needs none."""
    options = {"columns": ["id", "name", "ratio"], "key": ["id"], "where": "id IN (1, 5, 9)"}
    execute(people, "UPDATE people SET ratio = -1 WHERE id = 5")
    if ending == "xlsx":
        _, file = export(people, tmp_path / "a.xlsx", **options)
        sheet = openpyxl.load_workbook(file).active
        assert sheet is not None
        assert [row[1] for row in sheet.iter_rows(values_only=True)][2:] == ["=1+1", "-5"]
        return
    _, file = export(people, tmp_path / "a.csv", escape_formulas=True, **options)
    records = read_csv(file.read_text())
    assert [record[1] for record in records[1:]] == [_NAMES[1], "'=1+1", "'-5"]
    assert records[2][2].startswith("-1")
    execute(people, 'CREATE VIEW odd AS SELECT id, name AS "=cmd" FROM people')
    _, file = export(people, tmp_path / "b.csv", escape_formulas=True, query="SELECT * FROM odd")
    assert file.read_text().startswith("id,'=cmd\n")


def test_a_query_is_exported(people: Database, tmp_path: Path) -> None:
    """With what SQL it holds: percent signs, colons, quotes, an order."""
    query = """SELECT name || ':x%' AS "a, ""b", id % 3 AS m
               FROM people WHERE name LIKE '%a%' ORDER BY id DESC -- end"""
    _, file = export(people, tmp_path / "a.csv", query=query)
    assert read_csv(file.read_text()) == [
        ['a, "b', "m"],
        *([f"{_NAMES[n % 10]}:x%", str(n % 3)] for n in range(25, 0, -1) if "a" in (_NAMES[n % 10] or "")),
    ]


def test_the_file_holds_one_moment(people: Database, tmp_path: Path) -> None:
    """What others commit while it is written is not in it, also when it is read slice by slice."""
    context = DirectContext({"app": people}, scheduled_for=_FIRE)
    changed = threading.Event()

    def change(done: int, total: int | None = None, note: str | None = None) -> None:
        if not changed.is_set():
            changed.set()
            writer = threading.Thread(target=execute, args=(people, "UPDATE people SET name = 'later'"))
            writer.start()
            writer.join(20)

    context.progress = change  # type: ignore[method-assign]
    _, file = export(people, tmp_path / "a.csv", context, resumable=True, slice_rows=3)
    assert changed.is_set()
    assert "later" not in file.read_text()


def test_an_interrupted_export_leaves_what_was_there(people: Database, tmp_path: Path) -> None:
    """The old file stays as it was, nothing else is left, and the next attempt begins anew."""
    _, file = export(people, tmp_path / "a.csv", where="id = 1")
    before = file.read_bytes()
    context = DirectContext({"app": people}, scheduled_for=_FIRE, stop_at_check=2)
    with pytest.raises(RunInterrupted):
        export(people, tmp_path / "a.csv", context)
    assert file.read_bytes() == before
    assert [name for name in only(tmp_path) if "a.csv" in name] == ["a.csv"]
    result, _ = export(people, tmp_path / "a.csv", context.next_attempt())
    assert (result["rows"], result["snapshots"]) == (25, 1)


def test_what_a_dead_process_left_goes(people: Database, tmp_path: Path) -> None:
    """A part that nobody holds is removed by the next export of the file; one that is being written stays."""
    (tmp_path / ".a.csv.0123456789ab.part").write_text("half")
    (tmp_path / ".other.csv.0123456789ab.part").write_text("half")
    export(people, tmp_path / "a.csv")
    assert [name for name in only(tmp_path) if name.endswith(".part")] == [".other.csv.0123456789ab.part"]


@pytest.mark.parametrize("ending", ["csv", "ndjson.gz", "csv.zst"])
def test_a_resumable_export_goes_on_behind_its_last_slice(people: Database, tmp_path: Path, ending: str) -> None:
    """Stopped anywhere, with rubbish behind what counts: no row twice, none left out, and it says how many moments."""
    context = DirectContext({"app": people}, scheduled_for=_FIRE, stop_at_check=4)
    options: dict[str, Any] = {"resumable": True, "slice_rows": 3}
    for _ in range(30):
        try:
            result, file = export(people, tmp_path / f"a-{{time}}.{ending}", context, **options)
        except RunInterrupted:
            (part,) = tmp_path.glob(".a-*.part")
            with part.open("ab") as rubbish:
                rubbish.write(b"half a row,")
            context = context.next_attempt(stop_at_check=5, scheduled_for=_FIRE + timedelta(hours=context.attempt))
            continue
        break
    else:
        pytest.fail("it never came to its end")
    assert result["snapshots"] == context.attempt > 2
    assert file.name == f"a-031507.{ending}"
    _, plain = export(people, tmp_path / f"b.{ending}", key=["id"])
    assert unpacked(file) == unpacked(plain)
    assert [name for name in only(tmp_path) if name.startswith((".a", ".test"))] == []


def unpacked(file: Path) -> bytes:
    """The content of a packed file."""
    data = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(data)
    if file.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    return data


def test_a_name_that_is_taken_can_be_refused(people: Database, tmp_path: Path) -> None:
    """With `if_exists = "fail"` the file that is there stays."""
    export(people, tmp_path / "a.csv", where="id = 1")
    with pytest.raises(JobError, match="exists already") as raised:
        export(people, tmp_path / "a.csv", if_exists="fail")
    assert not raised.value.retryable
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2


def test_old_exports_go_and_nothing_else(people: Database, tmp_path: Path) -> None:
    """The newest `keep` stay, as do files that only look like exports."""
    for day in range(1, 6):
        file = tmp_path / f"p-2026-05-0{day}.csv"
        file.write_text("old")
        os.utime(file, (day * 86_400, day * 86_400))
    for name in ("p-latest.csv", "p-2026-05-01.csv.bak", "q-2026-05-01.csv"):
        (tmp_path / name).write_text("not mine")
    result, file = export(people, tmp_path / "p-{date}.csv", keep=3)
    assert file.name == "p-2026-05-20.csv"
    assert result["removed_files"] == 3
    left = [name for name in only(tmp_path) if name.startswith(("p-", "q-"))]
    assert left == [
        "p-2026-05-01.csv.bak",
        "p-2026-05-04.csv",
        "p-2026-05-05.csv",
        "p-2026-05-20.csv",
        "p-latest.csv",
        "q-2026-05-01.csv",
    ]
    result, _ = export(people, tmp_path / "p-{date}.csv", keep_for="30d")
    assert result["removed_files"] == 2


def test_progress_reaches_an_exact_total(people: Database, tmp_path: Path) -> None:
    """With `total = "exact"` the rows are counted first; progress never goes back or beyond."""
    context = DirectContext({"app": people}, scheduled_for=_FIRE)
    export(people, tmp_path / "a.csv", context, total="exact", resumable=True, slice_rows=4, where="id > 5")
    assert {total for _, total, _ in context.progressed} == {20}
    steps = [done for done, _, _ in context.progressed]
    assert steps == sorted(steps)
    assert steps[-1] == 20


def test_a_dry_run_writes_nothing(people: Database, tmp_path: Path) -> None:
    """No file, no folder; the rows are counted."""
    result, _ = export(people, tmp_path / "new" / "a.csv", dry_run=True, where="id > 20")
    assert (result["rows_matching"], result["rows"]) == (5, 0)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_written_is_told(people: Database, tmp_path: Path) -> None:
    """A folder that is a file, a text too long for a cell, a value that Python cannot hold: one clear error each."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(JobError, match="cannot be written"):
        export(people, tmp_path / "file" / "a.csv")
    with pytest.raises(JobError, match="40,000 characters in row 1"):
        long = "replace(hex(zeroblob(20000)), 'x', 'y')" if people.dialect.name == "sqlite" else "repeat('x', 40000)"
        export(people, tmp_path / "a.xlsx", query=f"SELECT {long} AS long")
    assert not (tmp_path / "a.xlsx").exists()
    if people.dialect.name == "postgresql":
        with pytest.raises(JobError, match="Python cannot hold"):
            export(people, tmp_path / "a.xlsx", query="SELECT timestamp 'infinity' AS at")
        _, file = export(people, tmp_path / "a.csv", query="SELECT timestamp 'infinity' AS at")
        assert file.read_text() == "at\ninfinity\n"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"path": "a.txt"}, "must end in one of"),
        ({"path": "a.xlsx.gz"}, "packed already"),
        ({"path": "{date}/a.csv"}, "name of a folder"),
        ({"path": "a-{day}.csv"}, "place {day}"),
        ({"path": "a.xlsx", "resumable": True}, "cannot be gone on with"),
        ({"path": "a.csv", "keep": 3}, "need {date}"),
        ({"path": "a.csv", "table": None}, "exactly one"),
        ({"path": "a.csv", "table": None, "query": "SELECT 1", "resumable": True}, "needs `key`"),
        ({"path": "a.csv", "delimiter": "x"}, "cannot be 'x'"),
        ({"path": "a.csv", "compression_level": 3}, "not 3 here"),
        ({"path": "a.csv.gz", "compression_level": 12}, "not 12 here"),
        ({"path": "a.csv", "null": "a,b", "delimiter": ","}, "may not hold the delimiter"),
    ],
)
def test_params_that_make_no_sense_are_told(params: dict[str, Any], said: str) -> None:
    """By `batchd check`, before anything runs."""
    with pytest.raises(ValidationError) as raised:
        KIND.params.model_validate({"database": "app", "table": "people"} | params)
    assert said in str(raised.value)


_CELLS = st.one_of(st.none(), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(_CELLS, _CELLS), max_size=12),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    null=st.sampled_from(["", "NULL", "-"]),
    quote_all=st.booleans(),
)
@example(rows=[("0", "\r"), ("\r\n", "\n")], delimiter=",", null="", quote_all=False)
def test_any_text_comes_back(
    database: Database,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str | None, str | None]],
    delimiter: str,
    null: str,
    quote_all: bool,
) -> None:
    """Whatever the texts hold, Python's own reader gets them back, and NULL is told from a text that looks like it."""
    execute(database, "DROP TABLE IF EXISTS cells", "CREATE TABLE cells (n integer PRIMARY KEY, a text, b text)")
    if rows:
        with database.writing() as connection:
            insert = text("INSERT INTO cells VALUES (:n, :a, :b)")
            connection.execute(insert, [{"n": n, "a": a, "b": b} for n, (a, b) in enumerate(rows)])
    options: dict[str, Any] = {"delimiter": delimiter, "null": null, "quote_all": quote_all, "header": False}
    options |= {"table": "cells", "key": ["n"]}
    folder = tmp_path_factory.mktemp("cells")
    _, file = export(database, folder / "a.csv", **options)
    read = read_csv(file.read_bytes().decode(), delimiter=delimiter)
    assert read == [[str(n), null if a is None else a, null if b is None else b] for n, (a, b) in enumerate(rows)]
    _, file = export(database, folder / "a.ndjson", table="cells", key=["n"])
    objects = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert objects == [{"n": n, "a": a, "b": b} for n, (a, b) in enumerate(rows)]


def test_a_query_speaks_of_its_period(people: Database, tmp_path: Path) -> None:
    """`:since` is included and `:until`, the scheduled time, is not; a cast and a text with colons stay as they are."""
    moment = "'2026-05-%02d 03:15:07'" if people.dialect.name == "sqlite" else "'2026-05-%02d 03:15:07+00'"
    for number, day in ((1, 12), (2, 13), (3, 19), (4, 20)):
        execute(people, f"UPDATE people SET at = {moment % day} WHERE id = {number}")
    execute(people, "DELETE FROM people WHERE id > 4")
    asked = "SELECT id, 'a::b :c' AS mark FROM people WHERE at >= :since AND at < :until ORDER BY id"
    for options in ({}, {"resumable": True, "key": ["id"]}):
        _, file = export(people, tmp_path / "week.csv", query=asked, period="7d", **options)
        assert read_csv(file.read_text()) == [["id", "mark"], ["2", "a::b :c"], ["3", "a::b :c"]]


def test_a_reports_name_is_no_business_of_a_run(people: Database, tmp_path: Path) -> None:
    """The config looks it up; a run that is given one says so."""
    with pytest.raises(JobError, match="looked up in the config"):
        KIND.run(
            KIND.params.model_validate({"report": "shop.top", "path": str(tmp_path / "a.csv")}),
            DirectContext({"app": people}),
        )
