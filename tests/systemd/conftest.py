"""Machines with a real systemd for the tests of this folder; tests.support.lab.machine says what one is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab.machine import Machine, obstacle
from tests.support.lab.systems import SYSTEMS, System
from tests.support.needs import require


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder time: the first of them builds packages and a tree, and the others wait for it."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine over this one's own root, without batchd, booted once for the module's tests."""
    require(obstacle())
    with Machine() as booted:
        yield booted


@pytest.fixture(scope="module", params=SYSTEMS, ids=lambda system: f"systemd-{system.release.systemd}")
def system(request: pytest.FixtureRequest) -> System:
    """Debian 12 with systemd 252, then Debian 13 with 257."""
    chosen: System = request.param
    require(chosen.obstacle())
    return chosen
