"""A run for people and for programs; every command shows it the same way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from batchd.cli.text import moment, span
from batchd.domain.jsonable import jsonable
from batchd.domain.run import Reason, RunState
from batchd.domain.wording import how_far
from batchd.errors import ExitCode
from batchd.store.queries import RunView


def run_json(run: RunView) -> dict[str, Any]:
    """Return the run as programs get it: the columns of `batchd_runs`, `job` for the schedule, and its duration."""
    columns: dict[str, Any] = jsonable(run)
    return {
        "id": columns.pop("id"),
        "job": columns.pop("schedule_id"),
        **columns,
        "duration_seconds": None if run.duration is None else run.duration.total_seconds(),
    }


def state_text(run: RunView) -> str:
    """Return the state with what makes it understandable: "queued (attempt 2 of 3 later)", "skipped (overlap)"."""
    if run.state == RunState.QUEUED.value and run.attempt:
        return f"queued (attempt {run.attempt + 1} of {run.max_attempts} to come)"
    if run.cancel_requested_at is not None and not run.is_final:
        return f"{run.state} (asked to stop)"
    return run.state if run.reason is None else f"{run.state} ({run.reason})"


def progress_text(run: RunView) -> str | None:
    """Return how far the run is: "1,200 of 5,000 (24 %) users"; None when it never said."""
    return how_far(run.progress_done, run.progress_total, run.progress_note)


def duration_text(run: RunView, now: datetime) -> str:
    """Return how long the run took, or has been running so far."""
    if run.state == RunState.RUNNING.value and run.started_at is not None:
        return f"{span(now - run.started_at)} so far" if now > run.started_at else "0s so far"
    return span(run.duration)


def fire_text(run: RunView) -> str:
    """Return the fire time, or the range that a `missed` row stands for; who asked for a run without one."""
    if run.scheduled_for is None:
        return f"by {run.created_by}"
    if run.fire_count > 1:
        return f"{moment(run.scheduled_for)} to {moment(run.scheduled_until)} ({run.fire_count:,} fires)"
    return moment(run.scheduled_for)


def parent_text(run: RunView) -> str | None:
    """Return which run queued this one, and for what: "run 42 for 17", "after run 42"."""
    if run.parent_id is None and run.after_id is not None:
        return f"after run {run.after_id}"
    return None if run.parent_id is None else f"run {run.parent_id} for {run.child_key}"


def children_text(children: Mapping[str, int]) -> str | None:
    """Return what became of the runs that a run queued: "9 of 20 succeeded, 1 failed, 10 remain"; None without any."""
    if not children:
        return None
    remain = sum(count for state, count in children.items() if not RunState(state).is_final)
    others = [
        f"{children[state.value]:,} {state.value}"
        for state in RunState
        if state.is_final and state is not RunState.SUCCEEDED and children.get(state.value)
    ]
    text = f"{children.get(RunState.SUCCEEDED.value, 0):,} of {sum(children.values()):,} succeeded"
    return ", ".join([text, *others, *([f"{remain:,} remain"] if remain else [])])


def exit_code_of(run: RunView) -> ExitCode:
    """Return what a command that waited for the run tells its caller."""
    match RunState(run.state):
        case RunState.SUCCEEDED:
            return ExitCode.OK
        case RunState.CANCELLED:
            return ExitCode.RUN_TIMED_OUT_OR_CANCELLED
        case RunState.SKIPPED | RunState.MISSED:
            return ExitCode.RUN_SKIPPED
        case _:
            timed_out = run.reason == Reason.TIMEOUT.value
            return ExitCode.RUN_TIMED_OUT_OR_CANCELLED if timed_out else ExitCode.RUN_FAILED
