"""A Ctrl-C is a Ctrl-C, whatever a driver in the middle of a statement makes of it."""

from __future__ import annotations

import pytest

from batchd.cli.direct_run import as_interrupts
from batchd.errors import JobError


def fail_in_the_middle_of(error: BaseException) -> None:
    """Raise what a kind does when the driver's clean-up fails: its own error, on the driver's, on this."""
    try:
        try:
            raise error
        finally:
            raise ValueError("can't change 'autocommit' now")
    except ValueError as driver:
        raise JobError("lines 142 to 161: can't change 'autocommit' now") from driver


def test_an_interrupt_is_told_as_one() -> None:
    """However deep it stands."""
    with pytest.raises(KeyboardInterrupt), as_interrupts():
        fail_in_the_middle_of(KeyboardInterrupt())


def test_another_error_stays_what_it_is() -> None:
    """Nobody interrupted anything."""
    with pytest.raises(JobError, match="lines 142"), as_interrupts():
        fail_in_the_middle_of(OSError("broken"))
