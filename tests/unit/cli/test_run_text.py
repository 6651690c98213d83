"""A run in words, and what a command that waited for it returns."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from batchd.cli.run_text import (
    children_text,
    duration_text,
    exit_code_of,
    fire_text,
    parent_text,
    progress_text,
    run_json,
    state_text,
)
from batchd.domain.run import RunState
from batchd.errors import ExitCode
from batchd.store.queries import RunView

NOW = datetime(2026, 11, 24, 3, 15, tzinfo=UTC)

RUN = RunView(
    id=42,
    schedule_id="nightly",
    kind="cleanup",
    queue="default",
    priority=0,
    state="queued",
    reason=None,
    scheduled_for=None,
    scheduled_until=None,
    fire_count=1,
    available_at=NOW,
    timeout_seconds=None,
    attempt=0,
    max_attempts=3,
    losses=0,
    worker=None,
    created_at=NOW,
    started_at=None,
    finished_at=None,
    cancel_requested_at=None,
    progress_done=None,
    progress_total=None,
    progress_note=None,
    params={},
    result=None,
    error=None,
    created_by="cli",
    parent_id=None,
    child_key=None,
    unique_key=None,
    tags=None,
    metadata=None,
)


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("succeeded", None, ExitCode.OK),
        ("failed", "error", ExitCode.RUN_FAILED),
        ("failed", "timeout", ExitCode.RUN_TIMED_OUT_OR_CANCELLED),
        ("quarantined", "not_understood", ExitCode.RUN_FAILED),
        ("cancelled", "requested", ExitCode.RUN_TIMED_OUT_OR_CANCELLED),
        ("skipped", "overlap", ExitCode.RUN_SKIPPED),
        ("missed", "start_deadline", ExitCode.RUN_SKIPPED),
    ],
)
def test_each_final_state_has_its_exit_code(state: str, reason: str | None, code: ExitCode) -> None:
    """As documented."""
    assert exit_code_of(replace(RUN, state=state, reason=reason)) is code


def test_every_final_state_is_covered_above() -> None:
    """A new state needs an exit code."""
    assert {state.value for state in RunState if state.is_final} == {
        "succeeded", "failed", "quarantined", "cancelled", "skipped", "missed"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "queued"),
        ({"attempt": 1}, "queued (attempt 2 of 3 to come)"),
        ({"state": "skipped", "reason": "overlap"}, "skipped (overlap)"),
        ({"state": "running", "cancel_requested_at": NOW}, "running (asked to stop)"),
    ],
)
def test_a_state_says_what_makes_it_understandable(changes: dict[str, object], text: str) -> None:
    """The next attempt, the reason, a request to stop."""
    assert state_text(replace(RUN, **changes)) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("done", "total", "note", "text"),
    [
        (None, None, None, None),
        (None, None, "looking", "looking"),
        (1200, None, None, "1,200"),
        (1200, 5000, "rows", "1,200 of 5,000 (24 %) rows"),
        (6000, 5000, None, "6,000 of 5,000 (100 %)"),
    ],
)
def test_progress_is_a_count_with_what_is_known(
    done: int | None, total: int | None, note: str | None, text: str | None
) -> None:
    """An estimate that was too low never shows more than all of it."""
    assert progress_text(replace(RUN, progress_done=done, progress_total=total, progress_note=note)) == text


def test_a_missed_row_shows_its_range() -> None:
    """With the number of fires; a triggered run says who asked."""
    missed = replace(RUN, scheduled_for=NOW, scheduled_until=NOW + timedelta(days=1), fire_count=1440)
    assert "(1,440 fires)" in fire_text(missed)
    assert fire_text(RUN) == "by cli"


def test_a_running_run_shows_how_long_so_far() -> None:
    """A finished one how long it took."""
    began = NOW - timedelta(seconds=90)
    assert duration_text(replace(RUN, state="running", started_at=began), NOW) == "1m 30s so far"
    assert duration_text(replace(RUN, state="failed", started_at=began, finished_at=NOW), NOW) == "1m 30s"


def test_programs_get_the_job_and_the_duration() -> None:
    """`job` stands for the schedule's id."""
    shown = run_json(replace(RUN, started_at=NOW, finished_at=NOW + timedelta(seconds=2)))
    assert (shown["id"], shown["job"], shown["duration_seconds"]) == (42, "nightly", 2.0)
    assert "schedule_id" not in shown


@pytest.mark.parametrize(
    ("children", "expected"),
    [
        ({}, None),
        ({"queued": 3}, "0 of 3 succeeded, 3 remain"),
        (
            {"succeeded": 9_000, "failed": 1, "queued": 998, "running": 1},
            "9,000 of 10,000 succeeded, 1 failed, 999 remain",
        ),
        ({"succeeded": 2, "cancelled": 1, "quarantined": 2}, "2 of 5 succeeded, 1 cancelled, 2 quarantined"),
    ],
)
def test_children_are_counted_in_words(children: dict[str, int], expected: str | None) -> None:
    """How many succeeded of how many, what became of the others, how many remain."""
    assert children_text(children) == expected


def test_a_child_names_its_parent() -> None:
    """And for what it was queued; a run without a parent says nothing."""
    assert parent_text(RUN) is None
    assert parent_text(replace(RUN, parent_id=7, child_key="17")) == "run 7 for 17"
