"""Machines with a real systemd for the tests of this folder; tests.support.lab.machine says what one is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.lab.machine import Machine, obstacle


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine over this one's own root, booted once for the module's tests."""
    require_lab()
    with Machine() as booted:
        yield booted


def require_lab() -> None:
    """Skip, and fail in CI, where no systemd can be booted: the reason says what is missing."""
    reason = obstacle()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
