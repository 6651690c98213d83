"""The server's own loops outlive their turns."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from batchd.errors import DatabaseUnavailable
from batchd.web.going_on import going_on


def test_a_turn_that_fails_is_told_and_does_not_end_the_loop() -> None:
    """But for an outage of the store, which the daemon tells, and for the loop's own end."""
    with capture_logs() as logs:
        with going_on("tidy"):
            raise OSError("no such folder")
        with going_on("tidy"):
            raise DatabaseUnavailable("gone")
    assert [(line["loop"], line["reason"]) for line in logs] == [("tidy", "OSError: no such folder")]
    with pytest.raises(asyncio.CancelledError), going_on("tidy"):
        raise asyncio.CancelledError
