"""What a driver says, on one line."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from batchd.db.engine import brief_message, driver_message


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("refused\n\tIs the server running?\n", "refused; Is the server running?"),
        ("syntax error\nLINE 1: SELEC  1\n        ^", "syntax error; LINE 1: SELEC 1"),
        ("All failures were:\n- host: 'a'", "All failures were: - host: 'a'"),
        ("", "ValueError"),
    ],
)
def test_lines_are_put_together_as_sentences(said: str, line: str) -> None:
    """So that the second of them does not read as the end of the first."""
    assert driver_message(ValueError(said)) == line


def test_a_brief_message_has_no_details_of_rows() -> None:
    """Nor what held them together; an error that is no driver's says what it says."""
    refused = Exception(
        'duplicate key value violates unique constraint "one"\nDETAIL:  Key (name)=(ada) already exists.'
    )
    assert brief_message(DBAPIError("INSERT", {}, refused)) == 'duplicate key value violates unique constraint "one"'
    assert brief_message(KeyError("kind")) == "'kind'"
