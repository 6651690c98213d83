"""Tables and JSON on stdout."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from batchd.cli.output import emit_facts, emit_json, emit_table
from batchd.domain.jsonable import jsonable
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


_TABLE = "from batchd.cli.output import emit_table; emit_table(('run', 'state'), [(1, 'failed')], color_column='state')"


def _on_a_terminal(script: str = _TABLE, *, columns: int = 80, **environment: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    given = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    subprocess.run(
        [sys.executable, "-c", script], stdout=theirs, env=given | {"TERM": "xterm"} | environment, check=True
    )
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 4096):
            printed += part
    except OSError:  # Linux says EIO at the end of a terminal
        pass
    os.close(ours)
    return printed.decode()


def test_a_table_on_a_terminal_has_colours() -> None:
    """Unless NO_COLOR says otherwise (https://no-color.org)."""
    assert "\x1b[31mfailed" in _on_a_terminal()
    plain = _on_a_terminal(NO_COLOR="1")
    assert "failed" in plain
    assert "\x1b" not in plain
    assert "\x1b" not in _on_a_terminal(TERM="dumb")


def test_a_table_without_room_becomes_a_list() -> None:
    """On a terminal so narrow that a word would be broken, each row is a block of lines; empty cells are left out."""
    script = (
        "from batchd.cli.output import emit_table;"
        "emit_table(('job', 'next run', 'note'), [('cleanup-sessions', '2026-11-26 02:15:00', '-'), ('b', 'c', 'd')])"
    )
    printed = _on_a_terminal(script, columns=30).replace("\r", "")
    assert (
        printed
        == "job       cleanup-sessions\nnext run  2026-11-26 02:15:00\n\njob       b\nnext run  c\nnote      d\n"
    )
    assert "cleanup-sessions  2026-11-26 02:15:00" in _on_a_terminal(script, columns=60)


def test_truth_is_written_as_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Not as Python has it."""
    emit_facts([("dry_run", False), ("params", {"on": True})])
    assert capsys.readouterr().out == 'dry_run  false\nparams   {"on": true}\n'
