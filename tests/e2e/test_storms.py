"""Short storms; `make stress` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Urls
from tests.e2e.storm import Battlefield, kill_storm, outage_storm, pair_storm
from tests.support.postgres import PostgresServer, fresh_database

pytestmark = pytest.mark.timeout(300)


def test_kills_lose_and_double_nothing(tmp_path: Path, urls: Urls) -> None:
    """Five daemons killed in a row: every fire has one outcome, the right rows are gone and no others."""
    verdict = kill_storm(Battlefield(tmp_path, urls.store, urls.app), kills=5, seed=7)
    assert not verdict.problems, verdict
    assert verdict.fires >= 100


def test_kills_of_one_of_two_daemons_lose_and_double_nothing(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Two daemons on one store, one killed every few seconds: the same."""
    with fresh_database(postgres_server) as store, fresh_database(postgres_server) as app:
        verdict = pair_storm(Battlefield(tmp_path, store, app), kills=3, seed=7)
    assert not verdict.problems, verdict


def test_outages_of_the_database_lose_and_double_nothing(tmp_path: Path, own_server: PostgresServer) -> None:
    """The server stopped and started under load, politely and not: the same."""
    with fresh_database(own_server) as store, fresh_database(own_server) as app:
        verdict = outage_storm(Battlefield(tmp_path, store, app), own_server, outages=2, seed=7)
    assert not verdict.problems, verdict
