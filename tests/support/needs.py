"""What a test needs and a machine may lack: there it is skipped, but in CI nothing is ever left out."""

from __future__ import annotations

import os

import pytest


def require(obstacle: str | None) -> None:
    """Skip, and fail in CI, when something is in the way: the reason says what is missing."""
    if obstacle and os.environ.get("CI"):
        pytest.fail(obstacle)
    if obstacle:
        pytest.skip(obstacle)
