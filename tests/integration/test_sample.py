"""The demo's sample database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from batchd.cli.sample import Sample, prepare_sample
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.errors import UsageError


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Database]:
    """A SQLite database in a folder that does not exist yet."""
    url = f"sqlite:///{tmp_path / 'var' / 'app.db'}"
    opened = Database(DatabaseSettings("app", url, 2, timedelta(seconds=5), None, None))
    yield opened
    opened.close()


def test_a_second_demo_fills_up_what_the_first_cleaned(app: Database) -> None:
    """The same numbers again, half of the sessions expired, two thirds of the log older than 30 days."""
    assert prepare_sample(app) == Sample(logs=200_000, sessions=20_000, users=10_000, added=230_000)
    with app.writing() as connection:
        logs = connection.exec_driver_sql("DELETE FROM logs WHERE created_at < datetime('now', '-30 days')").rowcount
        gone = connection.exec_driver_sql("DELETE FROM sessions WHERE expires_at < datetime('now')").rowcount
    assert abs(logs - 133_333) < 10
    assert gone == 10_000
    assert prepare_sample(app) == Sample(logs=200_000, sessions=20_000, users=10_000, added=logs + gone)
    assert prepare_sample(app).added == 0


def test_a_database_with_tables_of_its_own_is_left_alone(app: Database) -> None:
    """The demo's jobs delete rows."""
    Path(str(app.engine.url.database)).parent.mkdir()
    with app.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE logs (id INTEGER PRIMARY KEY)")
    with pytest.raises(UsageError, match="tables of its own"):
        prepare_sample(app)


def test_a_server_is_left_alone(postgres_url: str) -> None:
    """Sample rows go into SQLite only."""
    server = Database(DatabaseSettings("app", postgres_url, 1, timedelta(seconds=5), None, None))
    with pytest.raises(UsageError, match="SQLite only"):
        prepare_sample(server)
    server.close()
