"""The SQL of docs/enqueue.md works as it stands there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg

from batchd.store.known_names import KindParams, register
from batchd.store.migrate import migrate
from tests.support.databases import open_database

PAGE = (Path(__file__).parents[2] / "docs" / "enqueue.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
ANY = KindParams(None, frozenset(), frozenset())
KINDS = {"send-email": ANY, "send-receipt": ANY, "sync-user": ANY}


def prepare(url: str) -> None:
    """Make a store that knows what the page names."""
    with closing(open_database(url)) as store:
        migrate(store)
        register(store, KINDS, ["critical"])


def test_the_statements_for_postgresql(postgres_url: str) -> None:
    """Each of them, and the ways in which `pg` and Rails send it."""
    prepare(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (number integer); CREATE ROLE shop")
        try:
            for block in BLOCKS:
                if not block.startswith("-- SQLite"):
                    connection.execute(block.encode())
            raw = psycopg.RawCursor(connection)
            (call,) = re.findall(r'"(SELECT batchd_enqueue\(\$1.*?)"', PAGE)
            raw.execute(call.encode(), ["send-receipt", '{"order": 7}', "critical", "receipt:7"])
            assert raw.fetchone()
            count = connection.execute("SELECT count(*) FROM batchd_runs").fetchone()
            assert count == (4,)
        finally:
            connection.execute("DROP OWNED BY shop; DROP ROLE shop")


def test_the_statements_for_sqlite(sqlite_url: str) -> None:
    """Each of them."""
    prepare(sqlite_url)
    (block,) = (block for block in BLOCKS if block.startswith("-- SQLite"))
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.executescript(block)
        rows = connection.execute("SELECT kind, queue, retry FROM batchd_runs ORDER BY id").fetchall()
    assert [row[:2] for row in rows] == [("send-email", "default"), ("sync-user", "critical")]
    assert '"delay_seconds":2,' in rows[1][2]
