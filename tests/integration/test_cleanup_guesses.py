"""cleanup guesses where a chunk ends when rows lie evenly: it saves time, and changes nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from batchd.db.engine import Database
from tests.support.cleaning import NOW, clean, execute, fetch
from tests.support.databases import open_database

_OLD = int(NOW.timestamp()) - 30 * 86_400
_TYPES = {
    "timestamptz": "to_timestamp({})",
    "timestamp": "to_timestamp({}) AT TIME ZONE 'UTC'",
    "date": "to_timestamp({})::date",
    "bigint": "{}",
    "numeric(20, 3)": "{} + 0.125",
    "double precision": "{}",
    "real": "{}",
}


class Statements:
    """What one cleanup sent: looks at where a window ends, chunks, and the rows of each that was committed."""

    def __init__(self, database: Database) -> None:
        self.looks = self.undone = 0
        self.chunks: list[int] = []
        self._open: list[int] = []
        event.listen(database.engine, "after_cursor_execute", self._executed)
        event.listen(database.engine, "commit", self._committed)
        event.listen(database.engine, "rollback", self._rolled_back)
        event.listen(database.engine, "handle_error", self._failed)

    def _executed(self, _connection: Connection, cursor: Any, statement: str, *_: object) -> None:
        self.looks += "OFFSET" in statement
        if statement.startswith("DELETE"):
            self._open.append(cursor.rowcount)

    def _committed(self, _connection: Connection) -> None:
        self.chunks += self._open
        self._open.clear()

    def _failed(self, _context: object) -> None:
        self.undone += 1

    def _rolled_back(self, _connection: Connection) -> None:
        self.undone += len(self._open)
        self._open.clear()


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    """A database on PostgreSQL: on SQLite no chunk is large enough to be worth it."""
    opened = open_database(postgres_url)
    yield opened
    opened.close()


def _logs(database: Database, seconds: list[int], sql_type: str = "bigint") -> None:
    """Make `logs` with a row at each of the seconds after `_OLD`."""
    execute(database, f"CREATE TABLE logs (id bigint PRIMARY KEY, at {sql_type})", "CREATE INDEX logs_at ON logs (at)")
    value = _TYPES[sql_type].format(f"({_OLD} + second)")
    with database.writing() as connection:
        rows = text(
            f"INSERT INTO logs SELECT number, {value} FROM unnest(CAST(:seconds AS int[])) WITH ORDINALITY "
            "AS given (second, number)"
        )
        connection.execute(rows, {"seconds": seconds})


def _dawdle(database: Database, where: str, *, under: str) -> None:
    """Have the deletion of such rows hang in a statement with this `statement_timeout`, that of a guess."""
    execute(
        database,
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
        f"'BEGIN IF {where} AND current_setting(''statement_timeout'') = ''{under}'' THEN PERFORM pg_sleep(60); "
        "END IF; RETURN OLD; END'",
        "CREATE TRIGGER slow BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )


def test_most_windows_of_an_even_table_are_guessed(database: Database) -> None:
    """One look where the walk begins, and where it ends."""
    _logs(database, list(range(40_000)))
    sent = Statements(database)
    assert clean(database, column_unit="seconds", target="10s", batch_size=1000)["rows_deleted"] == 40_000
    assert len(sent.chunks) > 40
    assert sent.looks <= 5
    assert (max(sent.chunks), sum(sent.chunks), sent.undone) == (1000, 40_000, 0)


@pytest.mark.parametrize("sql_type", _TYPES)
def test_rows_that_lie_anyhow_all_go_in_chunks_of_the_batch_size(database: Database, sql_type: str) -> None:
    """Bursts, gaps and ties, in every type: no row is left, and no transaction deletes more than it may."""
    dice = random.Random(sql_type)
    seconds: list[int] = []
    at = 0
    while len(seconds) < 12_000:
        pace = dice.choice([0, 0.01, 1, 1, 1, 30, 4000])
        for _ in range(dice.randrange(1, 900)):
            at += round(pace * dice.random() * 2)
            seconds.append(at % 1_500_000)
    _logs(database, seconds, sql_type)
    sent = Statements(database)
    options = {"column_unit": "seconds"} if sql_type not in {"timestamptz", "timestamp", "date"} else {}
    result = clean(database, target="10s", batch_size=200, older_than="1d", **options)
    assert (result["rows_deleted"], fetch(database, "SELECT count(*) FROM logs")) == (len(seconds), [0])
    assert max(sent.chunks) <= 200
    assert sum(sent.chunks) == len(seconds)


def test_a_burst_in_a_guessed_window_is_undone_and_looked_up(database: Database) -> None:
    """A guess that meets a thousand times as many rows is rolled back; nothing of it counts."""
    _logs(database, [*range(0, 50_000, 10), *(50_000 + number // 100 for number in range(20_000))])
    sent = Statements(database)
    assert clean(database, column_unit="seconds", target="10s", batch_size=500)["rows_deleted"] == 25_000
    assert sent.undone >= 1
    assert max(sent.chunks) <= 500


def test_a_guess_that_takes_too_long_is_ended_by_the_server(database: Database) -> None:
    """Others wait for its locks: after two targets it is undone, and the walk goes on with what it looks up."""
    _logs(database, list(range(20_000)))
    _dawdle(database, "OLD.id = 9000", under="900ms")
    sent = Statements(database)
    result = clean(database, column_unit="seconds", target="450ms", batch_size=1000)
    assert result["rows_deleted"] == 20_000
    assert sent.undone == 1
    assert fetch(database, "SELECT count(*) FROM logs") == [0]


def test_a_guess_keeps_to_the_statement_timeout_of_its_database(postgres_url: str) -> None:
    """Where that is shorter than two targets, nothing of a job runs longer all the same."""
    database = open_database(postgres_url)
    database.close()
    database = Database(replace(database.settings, statement_timeout=timedelta(seconds=3)))
    _logs(database, list(range(5_000)))
    execute(
        database,
        "CREATE TABLE seen (name text PRIMARY KEY)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen VALUES (current_setting(''statement_timeout'')) ON CONFLICT DO NOTHING; "
        "RETURN NULL; END'",
        "CREATE TRIGGER noted AFTER DELETE ON logs FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    sent = Statements(database)
    assert clean(database, column_unit="seconds", target="10s", batch_size=500)["rows_deleted"] == 5_000
    assert sent.looks < len(sent.chunks)
    assert fetch(database, "SELECT name FROM seen") == ["3s"]
    database.close()


def test_guesses_that_miss_again_and_again_are_given_up_for_a_while(database: Database) -> None:
    """Each chunk is too slow for a guess: a few are done twice, not every second one."""
    _logs(database, list(range(20_000)))
    _dawdle(database, "OLD.id % 50 = 0", under="20ms")
    sent = Statements(database)
    assert clean(database, column_unit="seconds", target="10ms", batch_size=100)["rows_deleted"] == 20_000
    assert len(sent.chunks) >= 200
    assert 1 <= sent.undone <= 12


def test_only_rows_that_are_all_of_a_window_are_guessed(database: Database) -> None:
    """With a further condition, or a number of rows to keep to, each window is looked up."""
    _logs(database, list(range(5_000)))
    sent = Statements(database)
    assert clean(database, column_unit="seconds", batch_size=500, max_rows=1200)["rows_deleted"] == 1200
    assert clean(database, column_unit="seconds", batch_size=500, dry_run=True)["rows_matching"] == 3800
    assert clean(database, column_unit="seconds", batch_size=500, where="id % 2 = 0")["rows_deleted"] == 1900
    assert sent.looks >= 3 + 8 + 8


def test_floats_are_walked_whatever_digits_the_server_shows(postgres_url: str) -> None:
    """A database that shows six digits of a float has many alike: no row is passed over, and the walk ends."""
    opened = open_database(postgres_url)
    (name,) = fetch(opened, "SELECT current_database()")
    execute(opened, f'ALTER DATABASE "{name}" SET extra_float_digits = 0')
    opened.close()
    database = open_database(postgres_url)
    _logs(database, list(range(0, 600_000, 100)), "real")
    assert clean(database, column_unit="seconds", batch_size=200)["rows_deleted"] == 6_000
    assert fetch(database, "SELECT count(*) FROM logs") == [0]
    database.close()
