"""Tables and JSON on stdout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from batchd.cli.output import emit_facts, emit_json, emit_table, jsonable
from batchd.domain.run import RunState


@dataclass(frozen=True)
class Fact:
    at: datetime
    took: timedelta
    state: RunState


def test_json_says_moments_in_utc_and_durations_in_seconds() -> None:
    """Dataclasses become objects, enums their values."""
    fact = Fact(datetime(2026, 1, 2, tzinfo=UTC), timedelta(minutes=1), RunState.FAILED)
    assert jsonable({"facts": (fact,)}) == {
        "facts": [{"at": "2026-01-02T00:00:00Z", "took": 60.0, "state": "failed"}],
    }


def test_json_escapes_what_could_move_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is lost for a program, and nothing beyond ASCII is printed."""
    emit_json({"error": "\x1b[2J\u202e"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed) == {"error": "\x1b[2J\u202e"}


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Upper-case headers, no colour, no box, None as a dash, no row broken by what was stored."""
    emit_table(("run", "job"), [(1, "a\nb\x1b[31m"), (22, None)])
    assert capsys.readouterr().out == "RUN  JOB\n1    a b[31m\n22   -\n"


def test_facts_that_are_none_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The others are aligned."""
    emit_facts([("run", 1), ("error", None), ("state", "failed")])
    assert capsys.readouterr().out == "run    1\nstate  failed\n"
