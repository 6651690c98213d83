"""A store and an application's database for each test with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.kind_contract import Place
from tests.support.postgres import PostgresServer, fresh_database, start_server
from tests.support.stores import StoreTemplates


@dataclass(frozen=True)
class Urls:
    """Two databases of one dialect: a store, in which a daemon has been before, and an empty one."""

    dialect: str
    store: str
    app: str


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, templates: StoreTemplates
) -> Iterator[Urls]:
    """A store and an application's database, once for each dialect."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("databases")
        yield Urls("sqlite", templates.copy_to(folder / "batchd.db"), f"sqlite:///{folder}/app.db")
        return
    server = request.getfixturevalue("postgres_server")
    with templates.store_on(server) as store, fresh_database(server) as app:
        yield Urls("postgresql", store, app)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that the test may stop and start."""
    with start_server(tmp_path_factory.mktemp("server"), "older") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def places(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, templates: StoreTemplates
) -> Iterator[Callable[[], Place]]:
    """Makes places for `tests.support.kind_contract`, once for each dialect."""
    with ExitStack() as stack:

        def place() -> Place:
            folder = tmp_path_factory.mktemp("place")
            if request.param == "sqlite":
                store = templates.copy_to(folder / "batchd.db")
                return Place("sqlite", folder, store, f"sqlite:///{folder}/app.db")
            server = request.getfixturevalue("postgres_server")
            store = stack.enter_context(templates.store_on(server))
            app = stack.enter_context(fresh_database(server))
            return Place("postgresql", folder, store, app)

        yield place
