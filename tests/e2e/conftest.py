"""A store and an application's database for each test with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.kind_contract import Place
from tests.support.postgres import PostgresServer, fresh_database, start_server


@dataclass(frozen=True)
class Urls:
    """Two empty databases of one dialect."""

    dialect: str
    store: str
    app: str


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    """A store and an application's database, once for each dialect."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("databases")
        yield Urls("sqlite", f"sqlite:///{folder}/batchd.db", f"sqlite:///{folder}/app.db")
        return
    server = request.getfixturevalue("postgres_server")
    with fresh_database(server) as store, fresh_database(server) as app:
        yield Urls("postgresql", store, app)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that the test may stop and start."""
    with start_server(tmp_path_factory.mktemp("server"), "older") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Place]]:
    """Makes places for `tests.support.kind_contract`, once for each dialect."""
    with ExitStack() as stack:

        def place() -> Place:
            folder = tmp_path_factory.mktemp("place")
            if request.param == "sqlite":
                return Place("sqlite", folder, f"sqlite:///{folder}/batchd.db", f"sqlite:///{folder}/app.db")
            server = request.getfixturevalue("postgres_server")
            store, app = (stack.enter_context(fresh_database(server)) for _ in range(2))
            return Place("postgresql", folder, store, app)

        yield place
