"""batchd works behind a pooler, leaves nothing behind in its servers, and `doctor` tells which kind stands between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from sqlalchemy import Connection, text

from batchd.db.ailments import server_of
from batchd.db.engine import Database
from tests.support.databases import open_database
from tests.support.needs import require
from tests.support.pooler import missing_pooler, pooler_before

_PREPARED_AFTER = 5
"""psycopg prepares what is executed more often than this."""


@contextlib.contextmanager
def _pooled(url: str, mode: str) -> Iterator[tuple[Database, str]]:
    require(missing_pooler())
    with pooler_before(url, mode) as pooled, contextlib.closing(open_database(pooled, is_store=True)) as database:
        yield database, pooled


def _settings(connection: Connection) -> list[str]:
    return [
        connection.exec_driver_sql(f"SHOW {name}").scalar_one()
        for name in ("timezone", "statement_timeout", "lock_timeout", "transaction_isolation")
    ]


def test_transaction_mode_is_borne(postgres_url: str) -> None:
    """Each transaction on any server has batchd's settings, no other client gets them, and statements may repeat."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = serializable".encode())
    with _pooled(postgres_url, "transaction") as (database, pooled):
        with database.engine.connect() as first, database.engine.connect() as second:
            seen = set()
            for _ in range(2 * _PREPARED_AFTER):
                for connection in (first, second):
                    seen.add(connection.execute(text("SELECT pg_backend_pid() + :n"), {"n": 0}).scalar_one())
                assert _settings(first) == _settings(second) == ["UTC", "30s", "5s", "read committed"]
                for connection in (second, first):  # so that each finds the other's server the next time
                    connection.rollback()
            assert len(seen) > 1
        with psycopg.connect(pooled) as another:
            for name in ("statement_timeout", "lock_timeout"):
                assert another.execute(f"SHOW {name}".encode()).fetchone() == ("0",)
            assert another.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert server_of(database).pooler == "transaction"
        assert server_of(database).pooler == "transaction"  # whatever the first look has left behind


def test_session_mode_is_told_from_transaction_mode(postgres_url: str) -> None:
    """A session of one's own, though through a pooler; and none stands where none is."""
    with _pooled(postgres_url, "session") as (database, _):
        assert server_of(database).pooler == "session"
    with contextlib.closing(open_database(postgres_url)) as database:
        assert server_of(database).pooler is None
        with database.reading() as connection:
            assert _settings(connection) == ["UTC", "30s", "5s", "read committed"]
