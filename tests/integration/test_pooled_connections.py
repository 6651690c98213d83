"""Connections that the pool keeps: one that has ended is never handed out, and one in use is not asked each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import psycopg
import pytest

from batchd.db import liveness
from batchd.db.dialect import Failure
from batchd.db.engine import Database
from batchd.errors import DatabaseUnavailable
from batchd.store.claimed import ClaimRequest
from batchd.store.claims import claim
from tests.support.databases import open_database
from tests.support.store_rows import add_run
from tests.support.waiting import wait_until


@pytest.fixture
def store(postgres_url: str) -> Iterator[Database]:
    """A daemon's store, with the questions that its pool asks counted in `asked`."""
    opened = Database(replace(open_database(postgres_url, is_store=True).settings, replans=True))
    yield opened
    opened.close()


@pytest.fixture
def asked(store: Database, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections that were asked whether they stand."""
    seen: list[object] = []
    ping = store.engine.dialect.do_ping

    def do_ping(connection: object) -> bool:
        seen.append(connection)
        return ping(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(store.engine.dialect, "do_ping", do_ping)
    return seen


def session(store: Database) -> int:
    """The number of the session that the pool hands out."""
    with store.reading() as connection:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def prepared(store: Database) -> list[str]:
    """The statements that the session keeps."""
    with store.reading() as connection:
        return list(connection.exec_driver_sql("SELECT statement FROM pg_prepared_statements").scalars())


def test_a_connection_in_use_is_not_asked(store: Database, asked: list[object]) -> None:
    """It was there a moment ago, and the server has not said that it ended."""
    assert len({session(store) for _ in range(5)}) == 1
    assert asked == []


def test_one_that_was_idle_for_long_is_asked(
    store: Database, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something in between may have forgotten it."""
    before = session(store)
    monkeypatch.setattr(liveness, "_TRUSTED_SECONDS", 0.0)
    assert session(store) == before
    assert len(asked) == 1


@pytest.mark.parametrize("trusted_seconds", [10.0, 0.0], ids=["seen", "asked"])
def test_one_that_the_server_ended_is_replaced(
    store: Database, postgres_url: str, trusted_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who takes it from the pool notices anything."""
    monkeypatch.setattr(liveness, "_TRUSTED_SECONDS", trusted_seconds)
    before = session(store)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (before,))
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: admin.execute(alive, (before,)).fetchone() == (0,), what="the session's end")
    assert session(store) != before


def test_only_what_follows_an_order_keeps_its_plan(store: Database) -> None:
    """It does so over other transactions; what is planned by the size of its tables is planned anew each time."""
    for _ in range(8):
        with store.writing() as connection:
            store.dialect.follow_order(connection)
            connection.exec_driver_sql("SELECT 1 AS followed")
        with store.reading() as connection:
            connection.exec_driver_sql("SELECT 2 AS measured")
    kept = prepared(store)
    assert "SELECT 1 AS followed" in kept
    assert not any("measured" in statement for statement in kept)


def test_what_goes_by_itself_is_a_transaction_and_keeps_its_plan(store: Database) -> None:
    """The settings of the order hold; an error of the driver says what it means as any other does."""
    with store.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE kept (id int PRIMARY KEY)")
    adding = "INSERT INTO kept VALUES (%(id)s) RETURNING id"
    assert store.by_itself(adding, {"id": 1}) == (1,)
    with pytest.raises(psycopg.errors.UniqueViolation) as failed:
        store.by_itself(adding, {"id": 1})
    assert store.failure(failed.value) is Failure.UNIQUE
    assert store.by_itself("SHOW enable_seqscan", {}) == ("off",)
    assert store.by_itself("SHOW jit", {}) == ("off",)  # or a server with LLVM compiles each claim: for seconds
    assert store.by_itself("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%%'", {}) == (1,)
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT id FROM kept").scalar_one() == 1


def test_the_store_is_read_committed(store: Database) -> None:
    """Whatever the default of the role or the database: under a stricter one, daemons fail at each other's rows."""
    with store.writing() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    store.close()
    asked = "SHOW transaction_isolation"
    with store.reading() as connection:
        assert connection.exec_driver_sql(asked).scalar_one() == "read committed"
    assert store.by_itself(asked, {}) == ("read committed",)
    with store.reading() as connection, store.dialect.read_only(connection):
        assert connection.exec_driver_sql(asked).scalar_one() == "repeatable read"


def test_a_database_may_have_other_defaults(store: Database) -> None:
    """Those of dates, of text and of compilers are no business of batchd's store."""
    with store.writing() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        for setting in ("datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'", "client_encoding = latin1", "jit = on"):
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting}")
    store.close()
    add_run(store, job=None, queue="€")
    for is_at_once in (True, False):
        store.dialect.changes_in_ctes = is_at_once
        assert [each.queue for each in claim(store, ClaimRequest("w", 1, timedelta(minutes=1), {}))] == ["€"]
        add_run(store, job=None, queue="€")
    with store.reading() as connection:
        day = connection.exec_driver_sql("SELECT CAST('02/01/2026' AS date), interval '1 day'").one()
    assert tuple(day) == (date(2026, 1, 2), timedelta(days=1))


def test_a_session_that_may_only_read_is_left(store: Database) -> None:
    """It would stay so for good; the next one asks the database anew, and the pool logs nothing of its own."""
    with store.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE kept (id int)")
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    adding = "INSERT INTO kept VALUES (1) RETURNING id"
    with psycopg.connect(store.settings.url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        store.close()
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                store.by_itself(adding, {})
            with pytest.raises(DatabaseUnavailable), store.writing() as connection:
                connection.exec_driver_sql(adding)
        admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    assert store.by_itself(adding, {}) == (1,)
    with store.writing() as connection:
        assert connection.exec_driver_sql(adding).scalar_one() == 1


def test_what_goes_by_itself_connects_anew(store: Database, postgres_url: str) -> None:
    """A session that the server has ended is replaced before it is used."""
    (before,) = store.by_itself("SELECT pg_backend_pid()", {}) or ()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (before,))
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: admin.execute(alive, (before,)).fetchone() == (0,), what="the session's end")
    assert store.by_itself("SELECT 1", {}) == (1,)
