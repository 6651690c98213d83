"""The tests' own `JobContext` keeps the contract that the engine's keeps."""

from __future__ import annotations

import pytest

from batchd.db.engine import Database
from batchd.errors import LeaseLost, RunInterrupted
from batchd.jobs.contract import JobContext
from tests.support.job_context import DirectContext


def test_a_checkpoint_outlives_its_attempt_and_fences_it_out(database: Database) -> None:
    """The next attempt reads what the last one saved, and the last one can save no more."""
    first = DirectContext({"app": database})
    as_contract: JobContext = first
    assert as_contract.checkpoint(database) is None
    with first.writing(database) as connection:
        first.save_checkpoint(connection, database, {"position": 7})
    second = first.next_attempt()
    assert second.checkpoint(database) == {"position": 7}
    with pytest.raises(LeaseLost), first.writing(database) as connection:
        first.save_checkpoint(connection, database, {"position": 8})


def test_it_stops_at_the_check_it_was_told(database: Database) -> None:
    """`stop_at_check` raises at exactly that call of `raise_if_stopping`."""
    context = DirectContext({"app": database}, stop_at_check=2)
    context.raise_if_stopping()
    with pytest.raises(RunInterrupted):
        context.raise_if_stopping()
