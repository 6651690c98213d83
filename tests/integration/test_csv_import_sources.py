"""Where csv_import gets its files: packed ones, an inbox, an HTTP server; and what it notices about them."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.errors import JobError, RunInterrupted
from batchd.jobs.csv_import.inbox import files_of, settled
from batchd.jobs.kinds.csv_import import KIND
from tests.support.cleaning import execute, fetch
from tests.support.databases import open_database
from tests.support.importing import HEADER, counts, lines, load, load_text, rows, users_table
from tests.support.job_context import DirectContext

_TEXT = HEADER + lines(range(200))


@pytest.fixture
def app(sqlite_url: str) -> Iterator[Database]:
    """A database with a table of users."""
    database = open_database(sqlite_url)
    users_table(database)
    yield database
    database.close()


class Handler(BaseHTTPRequestHandler):
    """Answers as its path says."""

    def do_GET(self) -> None:
        body = gzip.compress(_TEXT.encode()) if self.path == "/users.csv.gz" else _TEXT.encode()
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/users.csv?token=s3cret")
            self.end_headers()
            return
        if self.path == "/fault":
            self.send_error(503, "try later")
            return
        if self.path.startswith("/locked") and self.headers["Authorization"] != "Bearer key":
            self.send_error(403)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/login" else "text/csv")
        self.send_header("Content-Length", str(len(body) + (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """A real HTTP server; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_packed_file_goes_on_where_it_was(app: Database, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """It is unpacked again up to there, and nothing is imported twice."""
    path = tmp_path / "users.csv.packed"
    path.write_bytes(pack(_TEXT.encode()))
    context = DirectContext({"app": app}, stop_at_check=4)
    with pytest.raises(RunInterrupted):
        load(app, path, context, batch_size=30)
    assert 0 < len(fetch(app, "SELECT email FROM users")) < 200
    assert counts(load(app, path, context.next_attempt(), batch_size=30)) == [200, 0, 0, 0]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_that_changed_between_attempts_is_noticed(
    app: Database, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """What was imported may change no more; a touched file and one with more at its end go on."""
    path = tmp_path / "users.csv"
    path.write_bytes(pack(_TEXT.encode()))
    context = DirectContext({"app": app}, stop_at_check=4)
    with pytest.raises(RunInterrupted):
        load(app, path, context, batch_size=30)
    path.write_bytes(pack(_TEXT.replace("User 3", "User X").encode()))
    with pytest.raises(JobError, match="is not what it was when its first") as changed:
        load(app, path, context.next_attempt(), batch_size=30)
    assert not changed.value.retryable
    path.write_bytes(pack((_TEXT + lines([200])).encode()))
    result = load(app, path, context.next_attempt(fence=9), batch_size=30)
    assert result["inserted"] == 201


def test_a_download_is_imported(app: Database, server: str) -> None:
    """Plain, packed and behind a redirect, with headers; no secret of the URL is in a checkpoint or a message."""
    for path in ("/users.csv", "/users.csv.gz", "/moved"):
        context = DirectContext({"app": app})
        assert load(app, server + path, context, on_conflict="skip")["records"] == 200
        assert context.progressed[-1][1] is not None
    assert load(app, server + "/locked", headers={"Authorization": "Bearer key"}, on_conflict="skip")["skipped"] == 200
    with pytest.raises(JobError) as refused:
        load(app, server.replace("//", "//user:s3cret@") + "/locked?token=s3cret")
    assert "answered 403" in refused.value.message
    assert "s3cret" not in refused.value.message + str(fetch(app, "SELECT state FROM batchd_checkpoints"))


@pytest.mark.parametrize(
    ("path", "said", "retryable"),
    [("/fault", "answered 503", True), ("/login", "a web page", False), ("/cut", "broke off after", True)],
)
def test_a_bad_answer_is_told(app: Database, server: str, path: str, said: str, retryable: bool) -> None:
    """With the URL; whether another attempt may help depends on what it was."""
    with pytest.raises(JobError, match=said) as failed:
        load(app, server + path)
    assert failed.value.retryable is retryable


def test_a_server_that_is_not_there_is_told(app: Database) -> None:
    """Another attempt may help."""
    with pytest.raises(JobError, match=r"127\.0\.0\.1:1/x cannot be fetched") as failed:
        load(app, "http://127.0.0.1:1/x")
    assert failed.value.retryable


def test_an_inbox_is_emptied_once(app: Database, tmp_path: Path) -> None:
    """Good files go to done, bad ones to failed with the reason; a bad one does not hold up the others."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "1.csv").write_text(HEADER + lines(range(5)))
    (inbox / "2.csv").write_text("nonsense\nx\n")
    (inbox / "3.csv").write_text(HEADER + lines(range(5, 9)))
    with pytest.raises(JobError, match=r"1 of 3 files failed: .*2\.csv: .* no column") as failed:
        load(app, inbox / "*.csv", settle="0s")
    assert failed.value.result is not None
    assert failed.value.result["inserted"] == 9
    assert [path.name for path in sorted((inbox / "done").iterdir())] == ["1.csv", "3.csv"]
    assert [path.name for path in sorted((inbox / "failed").iterdir())] == ["2.csv", "2.csv.error"]
    assert load(app, inbox / "*.csv", settle="0s")["files"] == 0
    (inbox / "1.csv").write_text(HEADER + lines([9]))
    context = DirectContext({"app": app})
    load(app, inbox / "*.csv", context, settle="0s")
    assert (inbox / "done" / f"1.run{context.run_id}.csv").exists()
    assert len(fetch(app, "SELECT email FROM users")) == 10


def test_a_file_that_is_still_written_is_left_alone(tmp_path: Path) -> None:
    """Hidden and temporary names, files changed a moment ago, and files that somebody has open for writing."""
    for name in ("a.csv", "b.csv", ".c.csv", "d.csv.part", "e.csv~", "f.csv"):
        (tmp_path / name).write_text("x")
    long_ago = SystemClock().now().timestamp() - 100
    for name in ("a.csv", "b.csv"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    found = files_of(str(tmp_path / "*"), [])
    assert [path.name for path in found] == ["a.csv", "b.csv", "f.csv"]
    with (tmp_path / "b.csv").open("a"), (tmp_path / "a.csv").open():
        taken = settled(found, timedelta(seconds=50), SystemClock().now())
        assert [Path(facts.name).name for facts in taken] == ["a.csv"]
    taken = settled(found, timedelta(seconds=50), SystemClock().now())
    assert [Path(facts.name).name for facts in taken] == ["a.csv", "b.csv"]


def test_two_imports_do_not_take_one_file(app: Database, tmp_path: Path) -> None:
    """The second is told, and may try again."""
    path = tmp_path / "users.csv"
    path.write_text(_TEXT)

    class Second(DirectContext):
        def raise_if_stopping(self) -> None:
            with pytest.raises(JobError, match="is being imported by somebody else"):
                load(app, path)

    assert load(app, path, Second({"app": app}))["inserted"] == 200


def test_japanese_files_are_read(database: Database, tmp_path: Path) -> None:
    """Shift_JIS is seen by its kana, and told in the log; named encodings are not guessed at."""
    execute(database, "CREATE TABLE users (email text, name text)")
    context = DirectContext({"app": database})
    path = tmp_path / "users.csv"
    path.write_bytes("email,name\na@x,ヤマダ表示ソ\n".encode("cp932"))
    load(database, path, context)
    (line,) = [line for line in context.log.lines if line.event == "csv_import.format"]
    assert (line.fields["encoding"], line.fields["detected"]) == ("cp932", ["encoding", "delimiter"])
    load_text(database, tmp_path, "email,name\nb@x,é\n".encode("latin-1"), encoding="latin-1")
    load_text(database, tmp_path, "email\tname\nc@x\tñ\n".encode("utf-16"), encoding="utf-16", delimiter="tab")
    assert rows(database, "SELECT name FROM users ORDER BY email") == [("ヤマダ表示ソ",), ("é",), ("ñ",)]


def test_the_real_tables_are_asked_before(database: Database) -> None:
    """Table, columns, key and what the table needs are looked at, each told under its parameter."""
    users_table(database)
    execute(database, "CREATE TABLE plain (a integer NOT NULL)")

    def complaints(**params: object) -> list[str]:
        filled = {"database": "app", "table": "users", "path": "x.csv", **params}
        assert KIND.check_connected is not None
        found = KIND.check_connected(KIND.params.model_validate(filled), {"app": database})
        return [f"{key}: {message}" for key, message in found]

    assert complaints() == []
    assert complaints(columns={"email": "E"}, on_conflict="update", key=["email"]) == []
    assert complaints(table="user")[0].startswith("table: there is no table user; did you mean")
    assert complaints(columns={"emial": "E"})[0].startswith("columns: table")
    assert "must have a value" in complaints(columns={"name": "N"})[0]
    assert "no unique key over (name)" in complaints(on_conflict="update", key=["name"])[0]
    assert complaints(constants={"x": 1}, computed={"y": "now"})[1].startswith("computed: ")
    assert complaints(table="plain", on_conflict="update")[0].startswith("key: which key of ")
