"""A schedule in words."""

from __future__ import annotations

import pytest

from batchd.domain.schedule_words import in_words


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("15 3 * * *", "At 03:15 every day"),
        ("0 9 * * 1-5", "At 09:00 on Monday through Friday"),
        ("@daily", "Every day at midnight"),
        ("@reboot", "Whenever a daemon starts"),
        ("every 5m", "Every 5 minutes"),
        ("every 1h", "Every hour"),
        ("every 1h30m", "Every 1 hour 30 minutes"),
        ("every monday at 18:30", "Every Monday at 18:30"),
        ("every  2 days at 09:00", "Every 2 days at 09:00"),
        ("every 10 minutes", "Every 10 minutes"),
        ("at 2027-01-01T00:00", "Once, at 2027-01-01 00:00"),
        (None, "Only when triggered"),
    ],
)
def test_it_says_when(schedule: str | None, said: str) -> None:
    """Every way to write a schedule has words."""
    assert in_words(schedule) == said
