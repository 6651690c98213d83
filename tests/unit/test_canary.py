"""The check of the suite's own output works: a test that shows the planted secret fails."""

from __future__ import annotations

import pytest

from tests.support.canary import CANARY, assert_no_canary


def test_output_with_the_secret_is_refused_without_repeating_it() -> None:
    """Neither the check's own message shows it."""
    assert_no_canary("all is well", "a process")
    with pytest.raises(AssertionError) as raised:
        assert_no_canary(f"one\npostgresql://u:{CANARY}@h/d", "a process")
    assert CANARY not in str(raised.value)
