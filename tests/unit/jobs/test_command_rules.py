"""What a command's end means, and what becomes of its output."""

from __future__ import annotations

import signal

import pytest

from batchd.jobs.commands.endings import Ended, ExitRules, Verdict, description, verdict_on
from batchd.jobs.commands.lines import Lines
from batchd.jobs.commands.surroundings import environment
from batchd.jobs.kinds.command import KIND
from tests.support.job_context import CollectedLog

_RULES = ExitRules(success=[0, 1], skip=[75], fail=[64], retry=None)
_ONLY_THESE = ExitRules(success=[0], skip=[], fail=[], retry=[2])


def _ended(status: int, **facts: bool) -> Ended:
    usual = {"has_core": False, "out_of_memory": False}
    return Ended(status=status, seconds=1, cpu_seconds=0, max_rss_bytes=0, left=0, **{**usual, **facts})


@pytest.mark.parametrize(
    ("rules", "status", "verdict"),
    [
        (_RULES, 0, Verdict.SUCCEEDED),
        (_RULES, 1, Verdict.SUCCEEDED),
        (_RULES, 75, Verdict.SKIPPED),
        (_RULES, 64, Verdict.FAIL),
        (_RULES, 3, Verdict.RETRY),
        (_RULES, -signal.SIGKILL, Verdict.RETRY),
        (_ONLY_THESE, 2, Verdict.RETRY),
        (_ONLY_THESE, 3, Verdict.FAIL),
        (_ONLY_THESE, -signal.SIGSEGV, Verdict.RETRY),
    ],
)
def test_exit_codes_mean_what_the_rules_say(rules: ExitRules, status: int, verdict: Verdict) -> None:
    """Success, nothing to do, try again, or no use trying."""
    assert verdict_on(status, rules) is verdict


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (_ended(3), "ended with exit code 3"),
        (_ended(127), "did not find a program"),
        (_ended(137), "SIGKILL has killed"),
        (_ended(-signal.SIGSEGV, has_core=True), "SIGSEGV: a segmentation fault (a core was dumped)"),
        (_ended(-signal.SIGTERM), "SIGTERM, which batchd did not send"),
        (_ended(-signal.SIGKILL), "SIGKILL, which batchd did not send"),
        (_ended(-signal.SIGKILL, out_of_memory=True), "out of memory"),
        (_ended(-60), "signal 60"),
    ],
)
def test_a_death_is_told_as_what_it_was(ended: Ended, words: str) -> None:
    """The signal by its name, and what it means."""
    assert words in description(ended, by_shell=True)


def test_output_is_logged_from_its_beginning_and_kept_from_its_end() -> None:
    """However it is cut into pieces, lines are lines; the last one needs no end."""
    log = CollectedLog()
    lines = Lines(log, logged=3, kept=2)
    for part in (b"on", b"e\ntwo\nth", b"ree\nfour\n", b"five"):
        lines.feed("stdout", part)
    lines.close()
    assert [line.fields.get("line") for line in log.lines] == ["one", "two", "three", None]
    assert log.events()[-1] == "command.output_cut"
    assert lines.last() == ["four", "five"]
    assert lines.counts == {"stdout": 5, "stderr": 0}


def test_a_line_without_end_takes_no_memory() -> None:
    """Its beginning is kept, up to a blank: half a secret would not be masked."""
    log = CollectedLog()
    lines = Lines(log, logged=3, kept=2)
    lines.feed("stderr", b"x" * 3_900 + b" ")
    for _ in range(1_000):
        lines.feed("stderr", b"secret" * 1_000)
    lines.feed("stderr", b"\nnext\n")
    lines.close()
    assert lines.counts["stderr"] == 2
    first, second = (line.fields["line"] for line in log.lines)
    assert first == "x" * 3_900 + " …"
    assert second == "next"
    assert lines.last_of("stderr") == "next"
    assert lines.last_of("stdout") is None


def test_a_progress_bar_is_what_the_terminal_shows_at_last() -> None:
    """Carriage returns overwrite; Windows' line ends are line ends; bytes that are no UTF-8 are shown as such."""
    lines = Lines(CollectedLog(), logged=0, kept=9)
    lines.feed("stdout", b"10 %\r50 %\r100 %\nhi\r\n\xff\n")
    assert lines.last() == ["100 %", "hi", "\ufffd"]


def test_the_daemons_environment_stays_with_the_daemon() -> None:
    """Only harmless names are handed on, and what the job gives."""
    own = {"PATH": "/bin", "LC_TIME": "C", "APP_DATABASE_URL": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert environment(own, {"MINE": "1", "PATH": "/usr/bin"}, None) == {
        "PATH": "/usr/bin",
        "LC_TIME": "C",
        "MINE": "1",
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"command": "ls -l"}, "write the command as a list"),
        ({"command": ["ls"], "shell": True}, "one text"),
        ({"command": []}, "empty"),
        ({"command": ["ls"], "stdin": "a", "stdin_file": "b"}, "not both"),
        ({"command": ["ls"], "group": "users"}, "needs a `user`"),
        ({"command": ["ls"], "fail_codes": [0]}, "exit code 0 stands in two lists"),
        ({"command": ["ls"], "fail_codes": [256]}, "less than or equal to 255"),
        ({"command": ["ls"], "env": {"A=B": "c"}}, "no name of a variable"),
        ({"command": ["ls"], "grace": "1h"}, "at most 10m"),
    ],
)
def test_params_that_contradict_each_other_are_refused(wrong: dict[str, object], said: str) -> None:
    """With a message that says what to write instead."""
    with pytest.raises(ValueError, match=said):
        KIND.params.model_validate(wrong)
