"""report: its queries on real databases, what it says, when it goes out, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import io
import threading
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import JobError, RunInterrupted, StopReason
from batchd.jobs.kinds.report import KIND
from batchd.jobs.reports import charts
from tests.support.job_context import DirectContext
from tests.support.reporting import UNTIL, body, context_on, mails
from tests.support.store_rows import add_run, add_schedule, make_tables
from tests.support.waiting import wait_until

UNTIL_EARLIER = UNTIL - timedelta(hours=3)
_ORDERS = [
    (1, "Ann", "100.50", "2026-11-24 08:00:00"),
    (2, "<b>Bob</b>", "1234.25", "2026-11-24 09:00:00"),
    (3, "=HYPERLINK(1)", "7.00", "2026-11-24 23:59:59"),
    (4, "Zoë", "1.00", "2026-11-25 07:00:00"),
    (5, "Old", "9.00", "2026-11-24 06:59:59"),
]
_SLOW = {
    "postgresql": "SELECT pg_sleep(30)",
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n",
}
_OF_THE_DAY = "FROM orders WHERE created_at >= :since AND created_at < :until"


@pytest.fixture
def shop(database: Database) -> Database:
    """A shop with five orders, three of them in the period."""
    moment = "timestamptz" if database.dialect.name == "postgresql" else "text"
    columns = f"id integer PRIMARY KEY, customer text, total numeric(10, 2), created_at {moment}"
    with database.writing() as connection:
        connection.execute(text(f"CREATE TABLE orders ({columns})"))
        for row in _ORDERS:
            connection.execute(
                text("INSERT INTO orders VALUES (:id, :customer, :total, :at)"),
                dict(zip(("id", "customer", "total", "at"), row, strict=True)),
            )
    return database


def report(context: DirectContext, **params: Any) -> JsonObject:
    """Run a report on "app" to Ann."""
    filled = {"database": "app", "to": ["Ann <ann@example.com>"]} | params
    return KIND.run(KIND.params.model_validate(filled), context)


@pytest.fixture
def context(shop: Database, tmp_path: Path) -> DirectContext:
    """A context with the shop as "app"."""
    return context_on({"app": shop}, tmp_path, job="shop-report")


def test_figures_tables_and_attachments_are_in_one_mail(context: DirectContext, tmp_path: Path) -> None:
    """Of the period alone; numbers with separators; whatever people typed is text."""
    result = report(
        context,
        queries={
            "orders": {
                "sql": f"SELECT count(*) AS orders, sum(total) AS revenue {_OF_THE_DAY};",
                "unit": {"revenue": "€"},
            },
            "customers": {
                "sql": f"SELECT customer, total {_OF_THE_DAY} ORDER BY id",
                "attach": "csv",
                "rows": 2,
            },
            "nothing": "SELECT id, customer FROM orders WHERE 1 = 0",
        },
        subject="Shop {{ date }}: {{ queries.orders.value }}\norders",
        cc=["bob@example.com"],
        bcc=["eve@example.com"],
    )
    (mail,) = mails(tmp_path)
    assert mail["Subject"] == "Shop 2026-11-25: 3 orders"
    assert (mail["To"], mail["Cc"], mail["List-Id"]) == (
        "Ann <ann@example.com>",
        "bob@example.com",
        "<shop-report.batchd.example.org>",
    )
    assert mail.get_all("X-Envelope-To") == ["ann@example.com", "bob@example.com", "eve@example.com"]
    html, plain = body(mail, "html"), body(mail, "plain")
    assert "1,341.75\xa0€" in html
    assert "&lt;b&gt;Bob&lt;/b&gt;" in html
    assert "<b>Bob" not in html
    assert "and 1 more row" in html
    assert "No rows." in html
    assert "2026-11-24 07:00 to 2026-11-25 07:00 (UTC)" in html
    for said in ("Revenue  1,341.75\xa0€", "<b>Bob</b>", "1,234.25", "and 1 more row", "No rows."):
        assert said in plain
    (file,) = mail.iter_attachments()
    rows = list(csv.reader(io.StringIO(file.get_payload(decode=True).decode("utf-8-sig"))))  # type: ignore[union-attr]
    assert file.get_filename() == "customers.csv"
    assert [row[0] for row in rows] == ["customer", "Ann", "<b>Bob</b>", "'=HYPERLINK(1)"]
    assert result["sent"] is True
    assert result["rows"] == {"orders": 1, "customers": 3, "nothing": 0}
    assert result["mail"]["accepted"] == 3  # type: ignore[index,call-overload]


def test_the_change_against_the_run_before_is_shown(context: DirectContext, tmp_path: Path) -> None:
    """With arrow, sign, and the earlier value; a dry run in between changes nothing about it."""
    queries = {"day": {"sql": f"SELECT count(*) AS orders, 5 AS errors {_OF_THE_DAY}", "good": {"errors": "down"}}}
    context.previous_result = {"baseline": {"figures": {"day.orders": 2, "day.errors": 4}, "fingerprint": "x"}}
    dry = report(context, queries=queries, dry_run=True)
    assert dry["baseline"] == context.previous_result["baseline"]
    assert not mails(tmp_path)
    result = report(context, queries=queries)
    html = body(mails(tmp_path)[0], "html")
    assert "▲&nbsp;+50.0\xa0%" in html
    assert "▲&nbsp;+25.0\xa0%" in html
    assert html.index("#15803d") < html.index("#b91c1c"), "more orders are good, more errors are not"
    assert "from 2" in html
    assert result["baseline"]["figures"] == {"day.orders": 3.0, "day.errors": 5.0}  # type: ignore[index,call-overload]


def test_a_query_cannot_write(context: DirectContext, shop: Database) -> None:
    """The transaction is read-only, and another attempt would not help."""
    for statement in ("DELETE FROM orders", "DELETE FROM orders RETURNING id"):
        with pytest.raises(JobError, match="job 'shop-report', query 'bad' on database 'app'") as raised:
            report(context, queries={"bad": statement})
        assert not raised.value.retryable
    with shop.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM orders")).scalar_one() == 5


def test_a_query_that_is_wrong_says_which_and_where(context: DirectContext) -> None:
    """With the database's own words, and no traceback."""
    with pytest.raises(JobError, match=r"query 'bad' on database 'app': .*nope") as raised:
        report(context, queries={"good": "SELECT 1", "bad": "SELECT nope FROM orders"})
    assert not raised.value.retryable


def test_a_query_has_its_time(context: DirectContext, shop: Database) -> None:
    """Beyond it the database ends it, and the error says whose time it was."""
    with pytest.raises(JobError, match=r"query 'slow' on database 'app' took longer than 1 s"):
        report(context, queries={"slow": _SLOW[shop.dialect.name]}, query_timeout="1s")


def test_a_stop_ends_a_running_query(context: DirectContext, shop: Database, tmp_path: Path) -> None:
    """And nothing is sent."""
    stopper = threading.Timer(0.5, context.stop)
    stopper.start()
    with pytest.raises((RunInterrupted, JobError)):
        report(context, queries={"slow": _SLOW[shop.dialect.name]})
    stopper.join()
    assert context.interrupts.reason is not None
    assert not mails(tmp_path)


def test_rows_beyond_the_limit_are_not_read(context: DirectContext, tmp_path: Path) -> None:
    """And the report says so."""
    result = report(context, queries={"all": {"sql": "SELECT id FROM orders ORDER BY id", "show": "table"}}, max_rows=2)
    assert result["rows"] == {"all": 2}
    assert "more rows than the report reads" in body(mails(tmp_path)[0], "html")


def test_colons_and_percent_signs_of_a_query_are_its_own(context: DirectContext, tmp_path: Path) -> None:
    """Only :since and :until are ours; casts, times and LIKE patterns stay."""
    sql = (
        "SELECT '12:30' AS a, ':x' AS b, 'a%b' AS c, count(*) AS n FROM orders WHERE customer LIKE 'A%' OR '%:y' = ':z'"
    )
    report(context, queries={"q": {"sql": sql, "show": "table"}})
    html = body(mails(tmp_path)[0], "html")
    for said in ("12:30", ":x", "a%b"):
        assert f">{said}</td>" in html


@pytest.mark.parametrize(
    ("when", "sql", "sent"),
    [
        ("always", "SELECT 1 AS a WHERE 1 = 0", True),
        ("rows", "SELECT 1 AS a WHERE 1 = 0", False),
        ("rows", "SELECT 1 AS a", True),
    ],
)
def test_when_says_whether_it_is_worth_a_mail(
    context: DirectContext, tmp_path: Path, when: str, sql: str, *, sent: bool
) -> None:
    """A report that is not sent is a success with its reason."""
    result = report(context, queries={"q": sql}, when=when)
    assert (result["sent"], bool(mails(tmp_path))) == (sent, sent)
    assert bool(result.get("reason")) is not sent


def test_an_unchanged_report_is_sent_once(context: DirectContext, shop: Database, tmp_path: Path) -> None:
    """Until an answer differs from the last report's."""
    params: dict[str, Any] = {"queries": {"q": "SELECT id, customer FROM orders ORDER BY id"}, "when": "changed"}
    first = report(context, **params)
    again = context_on({"app": shop}, tmp_path, job="shop-report", previous_result=first)
    second = report(again, **params)
    assert (first["sent"], second["sent"]) == (True, False)
    with shop.writing() as connection:
        connection.execute(text("UPDATE orders SET customer = 'Eve' WHERE id = 5"))
    third = report(context_on({"app": shop}, tmp_path, job="shop-report", previous_result=second), **params)
    assert third["sent"] is True
    assert len(mails(tmp_path)) == 2


def test_an_alert_marks_the_subject_and_overrules_when(context: DirectContext, tmp_path: Path) -> None:
    """`fail` also fails the run, once the mail is out."""
    params: dict[str, Any] = {
        "queries": {"q": "SELECT 1 AS a WHERE 1 = 0"},
        "when": "rows",
        "alert_if": "(SELECT count(*) FROM orders WHERE created_at >= :since) > 2 -- too many",
        "alert_text": "Too many\norders",
    }
    result = report(context, **params)
    (mail,) = mails(tmp_path)
    assert str(mail["Subject"]).startswith("[ALERT] Shop report")
    assert "Too many orders" in body(mail, "html")
    assert "!!  Too many orders" in body(mail, "plain")
    assert result["alert"] == "Too many orders"
    assert "report.alert" in context.log.events("warning")
    failing = context_on(dict(context.databases), tmp_path, job="shop-report")
    with pytest.raises(JobError, match="its alert is on") as raised:
        report(failing, **params, on_alert="fail")
    assert not raised.value.retryable
    assert raised.value.result is not None
    assert raised.value.result["mail"]["accepted"] == 1
    assert len(mails(tmp_path)) == 2
    calm = context_on(dict(context.databases), tmp_path)
    assert report(calm, **params | {"alert_if": "1 = 0"})["alert"] is None


def test_a_report_can_be_a_file(context: DirectContext, tmp_path: Path) -> None:
    """One that each run replaces, or a folder that keeps one for each; pictures inside, attachments beside."""
    queries = {
        "q": {"sql": "SELECT id, total FROM orders ORDER BY id", "show": "bar", "attach": "xlsx"},
    }
    one = report(context, queries=queries, to=[], save_to=str(tmp_path / "out" / "shop.html"))
    page = (tmp_path / "out" / "shop.html").read_text()
    assert one["file"] == str(tmp_path / "out" / "shop.html")
    assert 'src="data:image/png;base64,' in page
    assert "cid:" not in page
    assert zipfile.is_zipfile(tmp_path / "out" / "shop-q.xlsx")
    report(context, queries=queries, to=[], save_to=f"{tmp_path}/kept/")
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {
        f"shop-report-20261125T070000Z-{context.run_id}.html",
        f"shop-report-20261125T070000Z-{context.run_id}-q.xlsx",
    }
    assert not mails(tmp_path)


def test_charts_are_pictures_with_the_extra_and_bars_without(
    context: DirectContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inline by Content-ID, with their meaning in words; the same chart in HTML where nobody can draw."""
    params: dict[str, Any] = {
        "queries": {
            "line": {"sql": "SELECT customer, total, id FROM orders ORDER BY id", "show": "line", "title": "Totals"},
            "empty": {"sql": "SELECT customer, total FROM orders WHERE id > 9", "show": "bar"},
        }
    }
    result = report(context, **params)
    (mail,) = mails(tmp_path)
    html = body(mail, "html")
    assert result["pictures"] == 1
    assert 'src="cid:chart-1"' in html
    assert "Totals: 5 values of Total from Ann to Old, lowest 1.00, highest 1,234.25, last 9.00" in html
    assert "No values." in html
    (picture,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert picture.get_content().startswith(b"\x89PNG")
    assert picture["Content-ID"] == "<chart-1>"

    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    plain = report(context_on(dict(context.databases), tmp_path), **params)
    assert plain["pictures"] == 0
    without = body(mails(tmp_path)[1], "html")
    assert "<img" not in without
    assert 'width="100%" bgcolor="#3b82f6"' in without


def test_a_child_that_cannot_draw_costs_the_pictures_only(
    context: DirectContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report goes out with bars, and a warning says why."""
    monkeypatch.setattr(charts, "_CHILD", "no.such.module")
    report(context, queries={"q": {"sql": "SELECT customer, total FROM orders", "show": "bar"}})
    assert "<img" not in body(mails(tmp_path)[0], "html")
    (line,) = [line for line in context.log.lines if line.event == "report.charts_failed"]
    assert "no.such" in line.fields["reason"] or "No module" in line.fields["reason"]


def test_a_child_that_hangs_is_left_when_the_run_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that has not read what it is to draw, however much that is."""
    monkeypatch.setattr(charts, "_CHILD", "tests.support.deaf")

    class Stopped:
        def wait(self, _pause: timedelta) -> None:
            raise RunInterrupted(StopReason.CANCELLED)

    with pytest.raises(RunInterrupted):
        charts._draw(Stopped(), [{"name": "x" * 1_000_000}])  # type: ignore[arg-type]


def test_own_templates_see_everything_and_are_sandboxed(context: DirectContext, tmp_path: Path) -> None:
    """HTML is escaped, batchd's own blocks can be used, and a template's error names its file and line."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "report.html").write_text(
        '{% extends "batchd/base.html" %}{% import "batchd/blocks.html" as show with context %}{% block content %}'
        "<p>{{ queries.q.records[1].customer }} {{ number(1234567.891, '€', 2) }}</p>"
        "{{ show.block(report.blocks[0]) }}{% endblock %}"
    )
    params: dict[str, Any] = {"queries": {"q": "SELECT id, customer FROM orders ORDER BY id"}, "templates": str(folder)}
    report(context, **params)
    (mail,) = mails(tmp_path)
    assert "<p>&lt;b&gt;Bob&lt;/b&gt; 1,234,567.89\xa0€</p>" in body(mail, "html")
    assert "<b>Bob</b> 1,234,567.89 €" in body(mail, "plain")
    for source, said in (
        ("line one\n{{ nope }}", "template report.html: .*nope"),
        ("{% if %}", "template report.html, line 1"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ):
        (folder / "report.html").write_text(source)
        with pytest.raises(JobError, match=said) as raised:
            report(context_on(dict(context.databases), tmp_path), **params)
        assert not raised.value.retryable


def test_check_connected_asks_the_database(shop: Database) -> None:
    """Each wrong query by its name; nothing is executed."""

    def complaints(**params: Any) -> list[tuple[str, str]]:
        filled = KIND.params.model_validate({"database": "app", "save_to": "x.html"} | params)
        assert KIND.check_connected
        return list(KIND.check_connected(filled, {"app": shop}))

    assert complaints(queries={"q": f"SELECT count(*) {_OF_THE_DAY};"}, alert_if="1 = 1") == []
    found = complaints(queries={"a": "SELECT nope FROM orders", "b": "SELECT 1", "c": "SELEC 1"}, alert_if="x.y > 1")
    assert [key for key, _ in found] == ["queries.a", "queries.c", "alert_if"]
    assert complaints(queries={"d": "-- all of them\nDELETE FROM orders"})[0][1] == "writes; a report only reads"
    assert "nope" in found[0][1]
    filled = KIND.params.model_validate({"database": "app", "save_to": "x", "queries": {"q": "SELECT nope"}})
    assert KIND.check_connected
    assert list(KIND.check_connected(filled, {})) == [], "a database that did not answer is not blamed"


def test_the_ready_report_needs_no_sql(tmp_path: Path, database: Database) -> None:
    """Runs, failures, rows and slow jobs from batchd's own store, on every dialect."""
    make_tables(database)
    add_schedule(database, "nightly")
    add_schedule(database, "paused-one", paused_at=UNTIL_EARLIER)
    at = {"started_at": UNTIL_EARLIER, "finished_at": UNTIL_EARLIER}
    add_run(database, "succeeded", **at, result={"rows_deleted": 1234567})
    add_run(database, "failed", **at, error="disk <full>")
    context = context_on({}, tmp_path, store=database, job="daily")
    result = report(context, ready="daily", database=None)
    (mail,) = mails(tmp_path)
    html = body(mail, "html")
    assert mail["Subject"] == "batchd daily: 1 of 2 runs failed"
    for said in ("1,234,567", "disk &lt;full&gt;", "paused-one", "Slowest jobs", "Runs per hour"):
        assert said in html
    assert result["sent"] is True
    quiet = context_on({}, tmp_path, store=database, job="daily", scheduled_for=UNTIL_EARLIER.replace(year=2020))
    report(quiet, ready="daily", database=None)
    assert mails(tmp_path)[1]["Subject"] == "batchd daily: nothing ran"


def test_progress_is_told_once_and_never_goes_back(context: DirectContext) -> None:
    """A report that starts anew has nothing to take back."""
    report(context, queries={f"q{n}": "SELECT 1 AS a" for n in range(5)})
    assert context.progressed == [(5, 5, None)]


def is_drawing() -> bool:
    """Whether a child draws charts."""
    with contextlib.suppress(psutil.Error):
        return any(charts._CHILD in child.cmdline() for child in psutil.Process().children())
    return False


def test_drawing_ends_with_the_run(context: DirectContext, tmp_path: Path) -> None:
    """A stop while the child draws: the child is gone, and nothing is sent."""

    def wait_and_stop() -> None:
        wait_until(is_drawing, seconds=60, what="the child")
        context.stop()

    stopper = threading.Thread(target=wait_and_stop)
    stopper.start()
    with pytest.raises(RunInterrupted):
        report(context, queries={"q": {"sql": "SELECT customer, total FROM orders", "show": "bar"}})
    stopper.join()
    assert not mails(tmp_path)
