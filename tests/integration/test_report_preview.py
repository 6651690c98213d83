"""`batchd report preview` writes what would be sent, sends nothing and changes nothing."""

from __future__ import annotations

import email.policy
import json
from email.parser import BytesParser
from pathlib import Path

from batchd.errors import ExitCode
from tests.support.daemon import batchd, write_config
from tests.support.databases import open_database

_REPORT = {
    "kind": "report",
    "database": "app",
    "to": ["ann@example.com"],
    "queries": {"orders": "SELECT count(*) AS orders FROM orders"},
}


def configured(folder: Path, **report: object) -> Path:
    """Write a config with a report over one order; mail would go to a folder."""
    app = f"sqlite:///{folder}/app.db"
    database = open_database(app)
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS orders (id integer PRIMARY KEY)")
        connection.exec_driver_sql("INSERT OR IGNORE INTO orders VALUES (1)")
    database.close()
    return write_config(
        folder,
        {
            "mail": {"folder": str(folder / "mail"), "from": "batchd@example.org"},
            "databases": {"app": {"url": app}},
            "jobs": {"shop": {**_REPORT, **report}, "daily": {"kind": "report", "ready": "daily", "to": ["a@b.c"]}},
        },
    )


def test_a_preview_is_a_file_and_nothing_else(tmp_path: Path) -> None:
    """No mail, no store, no run."""
    config = configured(tmp_path)
    done = batchd(config, "report", "preview", "shop", "--out", "out.html")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "subject  Shop, " in done.stdout
    assert ">1</div>" in (tmp_path / "out.html").read_text()
    assert not (tmp_path / "mail").exists()
    assert not (tmp_path / "batchd.db").exists()


def test_the_whole_message_and_the_text_can_be_had(tmp_path: Path) -> None:
    """By the file's ending; as of a given moment."""
    config = configured(tmp_path)
    done = batchd(config, "report", "preview", "shop", "--out", "out.eml", "--at", "2026-11-24T07:00Z", "--json")
    assert json.loads(done.stdout)["subject"] == "Shop, 2026-11-24"
    message = BytesParser(policy=email.policy.default).parsebytes((tmp_path / "out.eml").read_bytes())
    assert message["To"] == "ann@example.com"
    assert batchd(config, "report", "preview", "shop", "--out", "out.txt").returncode == ExitCode.OK
    assert "Orders  1" in (tmp_path / "out.txt").read_text()


def test_the_ready_report_needs_a_store(tmp_path: Path) -> None:
    """It says so, and shows an empty day once there is one."""
    config = configured(tmp_path)
    done = batchd(config, "report", "preview", "daily")
    assert (done.returncode, "no tables yet" in done.stderr) == (ExitCode.SCHEMA_MISMATCH, True)
    assert batchd(config, "migrate").returncode == ExitCode.OK
    assert "batchd daily: nothing ran" in batchd(config, "report", "preview", "daily").stdout
    assert (tmp_path / "daily.html").exists()


def test_what_is_wrong_is_one_clear_message(tmp_path: Path) -> None:
    """A job that is no report, a query that fails, a file that cannot be written."""
    config = configured(tmp_path, queries={"bad": "SELECT nope FROM orders"})
    for arguments, said in (
        (("nightly",), "no job 'nightly'"),
        (("shop",), "query 'bad' on database 'app': no such column: nope"),
        (("daily", "--out", "no/such/folder/x.html"), "no tables yet"),
    ):
        done = batchd(config, "report", "preview", *arguments)
        assert done.returncode != ExitCode.OK
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    done = batchd(configured(tmp_path), "report", "preview", "shop", "--out", "no/such/folder/x.html")
    assert (done.returncode, "cannot write" in done.stderr) == (ExitCode.CANNOT_CREATE, True)


def test_check_connect_tells_of_the_query_and_of_the_mail(tmp_path: Path) -> None:
    """With the line of the query; and how the mail server greets."""
    config = configured(tmp_path, queries={"good": "SELECT 1", "bad": "SELECT nope FROM orders"})
    done = batchd(config, "check", "--connect", "--json")
    answer = json.loads(done.stdout)
    (problem,) = answer["problems"]
    assert (done.returncode, problem["section"], problem["key"]) == (
        ExitCode.CONFIG_INVALID,
        "jobs.shop",
        "queries.bad",
    )
    assert answer["mail"]["ok"] is True
    text = config.read_text().replace(f'folder = "{tmp_path}/mail"', 'host = "127.0.0.1"\nport = 1\nsecurity = "none"')
    config.write_text(text.replace("SELECT nope", "SELECT id"))
    done = batchd(config, "check", "--connect")
    assert done.returncode == ExitCode.STORE_UNREACHABLE
    assert "mail: 127.0.0.1:1: the greeting failed: Connection refused" in done.stdout
