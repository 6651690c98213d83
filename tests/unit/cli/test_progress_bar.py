"""The line that says how far a command is, where there is no terminal for a bar."""

from __future__ import annotations

from batchd.cli.progress_bar import progress_line


def test_the_line_has_rate_and_time_left() -> None:
    """The rate counts what this command did, not what an earlier one had done."""
    assert (
        progress_line(6_000_000, 8_000_000, "bytes, line 9 of a.csv", 2_000_000, 4.0)
        == "6,000,000 of 8,000,000 (75 %) bytes, line 9 of a.csv; 1.0 MB/s, 2s left"
    )


def test_an_unknown_total_has_no_time_left() -> None:
    """Standard input ends when it ends."""
    assert progress_line(5, None, None, 0, 0.0) == "5; 0.0 MB/s"
