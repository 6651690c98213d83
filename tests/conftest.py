"""Real databases for the tests: a PostgreSQL server for the session, and a fresh database for each test that asks."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from batchd.db.engine import Database
from tests.support.canary import CANARY
from tests.support.databases import open_database
from tests.support.postgres import PostgresServer, fresh_database, start_server
from tests.support.stores import StoreTemplates
from tests.support.web import Surface, opened_surface

hypothesis.settings.register_profile("batchd", deadline=None)  # a slow machine is no bug
hypothesis.settings.load_profile("batchd")


_SERVERS = ("postgresql", "postgresql-18")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run each test of all dialects on SQLite and on one of the two PostgreSQL servers, by turns.

    BATCHD_TEST_SERVERS=all, as in `make stress`, and a test that is asked for by its name, mean both servers.
    """
    if os.environ.get("BATCHD_TEST_SERVERS") == "all" or any("::" in word for word in config.args):
        return
    kept, left_out = [], []
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        server = params.get("database_url", params.get("empty_url"))
        turn = _SERVERS[zlib.crc32(item.nodeid.partition("[")[0].encode()) % len(_SERVERS)]
        (left_out if server in _SERVERS and server != turn else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose own output, captured or logged, shows the secret that is planted in every server's URL."""
    report = yield
    for title, content in report.sections if report.passed else ():
        if CANARY in content:
            report.outcome = "failed"
            report.longrepr = f"{title} shows the planted secret {CANARY!r}"
    return report


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of the older major version, or the one that BATCHD_TEST_DATABASE_URL names."""
    given = os.environ.get("BATCHD_TEST_DATABASE_URL")
    if given:
        yield PostgresServer(admin_url=given, data=None, binaries=None)
        return
    with start_server(tmp_path_factory.mktemp("postgres"), "older") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server_18(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL 18 server."""
    with start_server(tmp_path_factory.mktemp("postgres18"), "18") as server:
        yield server


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreTemplates]:
    """What stores are copied from."""
    made = StoreTemplates(tmp_path_factory.mktemp("templates"))
    yield made
    made.drop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, templates: StoreTemplates) -> Iterator[str]:
    """The URL of a database of its own, in which a store's tables are and nothing else."""
    with templates.store_on(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path, templates: StoreTemplates) -> str:
    """The URL of a SQLite file, in which a store's tables are and nothing else."""
    return templates.copy_to(tmp_path / "batchd.db")


@pytest.fixture(params=["sqlite", "postgresql", "postgresql-18"])
def database_url(request: pytest.FixtureRequest, templates: StoreTemplates) -> Iterator[str]:
    """A database with a store's tables, once for each dialect and server version that the contract suites run on."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
    elif request.param == "postgresql":
        yield request.getfixturevalue("postgres_url")
    else:
        with templates.store_on(request.getfixturevalue("postgres_server_18")) as url:
            yield url


@pytest.fixture(params=["sqlite", "postgresql", "postgresql-18"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table, likewise; the SQLite file does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server = "postgres_server" if request.param == "postgresql" else "postgres_server_18"
    with fresh_database(request.getfixturevalue(server)) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A `Database` on `database_url`."""
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def surface(request: pytest.FixtureRequest) -> Iterator[Surface]:
    """The HTTP application on a store with its tables, a client on it and a token of each role."""
    with _surface_on(
        request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    ) as opened:
        yield opened


@pytest.fixture
def surface_on_sqlite(sqlite_url: str) -> Iterator[Surface]:
    """The same on SQLite alone, for what no database has a part in."""
    with _surface_on(sqlite_url) as opened:
        yield opened


@contextlib.contextmanager
def _surface_on(url: str) -> Iterator[Surface]:
    with contextlib.closing(open_database(url)) as store, opened_surface(store) as opened:
        yield opened
