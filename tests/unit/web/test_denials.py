"""A flood of refused requests is a few lines in the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from batchd.web.denials import OTHERS, Denials


def test_refusals_are_told_at_once_then_ever_more_rarely_with_a_count_then_their_end() -> None:
    """By reason and address: a flood from one hides nobody else. A refusal alone is one line."""
    denials = Denials()
    with capture_logs() as logs:
        for tenth in range(7_000):
            denials.refused("/api/v1/runs", "unauthorized", "10.0.0.1", tenth / 10)
            denials.tell_ends(tenth / 10)
        denials.refused("/api/v1/runs", "unauthorized", "10.0.0.2", 700)
        denials.tell_ends(800)
        denials.refused("/api/v1/runs", "unauthorized", "10.0.0.1", 900)
    assert [(line["event"], line["address"], line["requests"]) for line in logs] == [
        ("http.denied", "10.0.0.1", 1),
        ("http.denied", "10.0.0.1", 601),
        ("http.denied", "10.0.0.1", 6001),
        ("http.denied", "10.0.0.2", 1),
        ("http.denials_ended", "10.0.0.1", 7000),
        ("http.denied", "10.0.0.1", 1),
    ]


def test_a_flood_from_everywhere_is_told_together() -> None:
    """Who changes the address with each request fills neither the log nor the memory."""
    denials = Denials()
    with capture_logs() as logs:
        for number in range(5_000):
            denials.refused("/api/v1/runs", "unauthorized", f"2001:db8::{number:x}", number / 100)
    assert len(logs) == 101
    assert logs[-1]["address"] == OTHERS
    assert len(denials._repeats) == 101
