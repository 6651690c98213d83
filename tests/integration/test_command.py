"""command with real processes: what it starts, what it reads from it, and that it leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from batchd.domain.job import JsonObject
from batchd.errors import JobError, RunInterrupted, StopReason
from batchd.jobs.kinds.command import KIND
from tests.support.job_context import DirectContext
from tests.support.waiting import wait_until


def command(context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Run a command and return the run's result."""
    return KIND.run(KIND.params.model_validate(params), context or DirectContext({}))


def shell(text: str, context: DirectContext | None = None, **params: Any) -> JsonObject:
    """Run a text of the shell."""
    return command(context, command=text, shell=True, **params)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_in(file: Path, count: int) -> list[int]:
    """The process ids that a command has written into a file, once there are so many."""
    return wait_until(
        lambda: (
            found if file.exists() and len(found := [int(pid) for pid in file.read_text().split()]) == count else []
        ),
        seconds=30,
        what=f"{count} pids in {file}",
    )


def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    """No shell comes between: blanks, quotes, wildcards and semicolons are text."""
    arguments = ["a b", "$HOME", "*", "'; rm -rf /", ""]
    context = DirectContext({})
    result = command(context, command=[sys.executable, "-c", "import sys; print(sys.argv[1:])", *arguments])
    assert result["last_lines"] == [str(arguments)]
    assert result["exit_code"] == 0
    assert [line.fields for line in context.log.lines] == [{"stream": "stdout", "line": str(arguments)}]


def test_a_command_sees_its_own_environment_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the job gives and what the run is; none of the daemon's secrets."""
    monkeypatch.setenv("APP_DATABASE_URL", "postgresql://app:hidden@db/app")
    script = "import os; print(os.getcwd(), dict(os.environ))"
    result = command(command=[sys.executable, "-c", script], env={"COLOUR": "green"}, cwd=str(tmp_path), last_lines=1)
    (line,) = result["last_lines"]
    assert str(line).startswith(str(tmp_path))
    assert "'COLOUR': 'green'" in str(line)
    assert "'BATCHD_JOB': 'test-job'" in str(line)
    assert "hidden" not in str(line)
    assert "APP_DATABASE_URL" not in str(line)


def test_stdin_comes_from_a_text_or_a_file(tmp_path: Path) -> None:
    """However long it is and whether the command reads it or not; without either it is empty."""
    text = "line\n" * 100_000
    (tmp_path / "given").write_text(text)
    for given in ({"stdin": text}, {"stdin_file": str(tmp_path / "given")}):
        assert command(command=["wc", "-l"], **given)["last_lines"] == ["100000"]
        assert command(command=["true"], **given)["exit_code"] == 0
    assert command(command=["wc", "-l"])["last_lines"] == ["0"]
    with pytest.raises(JobError, match="cannot read"):
        command(command=["wc"], stdin_file=str(tmp_path / "missing"))


def test_a_flood_of_output_neither_blocks_nor_stays(tmp_path: Path) -> None:
    """Forty megabytes on one stream, six on the other: the first lines are logged, the last kept, the rest counted."""
    context = DirectContext({})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = shell("yes out | head -c 40000000; yes error | head -c 6000000 >&2; printf last", context, log_lines=5)
    assert (result["stdout_lines"], result["stderr_lines"]) == (10_000_001, 1_000_000)
    assert result["last_lines"][-1] in {"last", "error"}
    assert context.log.events() == ["command.output"] * 5 + ["command.output_cut"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kilobytes"


def test_the_result_tells_time_and_memory() -> None:
    """Of the command, and not of whoever started it."""
    result = command(command=[sys.executable, "-c", "a = bytearray(80_000_000); a[::4096] = b'x' * len(a[::4096])"])
    assert 75_000_000 < result["max_rss_bytes"] < 200_000_000
    assert 0 < result["cpu_seconds"] <= 60
    assert result["seconds"] > 0


@pytest.mark.parametrize(
    ("code", "rules", "retryable"),
    [
        (3, {}, True),
        (3, {"fail_codes": [3]}, False),
        (3, {"retry_codes": [4]}, False),
        (3, {"retry_codes": [3]}, True),
    ],
)
def test_a_bad_exit_code_fails_with_what_was_said(code: int, rules: dict[str, Any], retryable: bool) -> None:
    """The last line of stderr is the reason; the result stays."""
    with pytest.raises(JobError, match=r"exit code 3; it said last: no such table") as caught:
        shell(f"echo 'no such table' >&2; echo done; exit {code}", **rules)
    assert caught.value.retryable is retryable
    assert caught.value.result is not None
    assert caught.value.result["exit_code"] == 3


def test_an_exit_code_may_mean_success_or_nothing_to_do() -> None:
    """As the job says."""
    assert "skipped" not in shell("exit 1", success_codes=[0, 1])
    assert shell("exit 75", skip_codes=[75])["skipped"] is True


def test_a_death_by_signal_is_told() -> None:
    """By its name, and it is worth another attempt."""
    with pytest.raises(JobError, match=r"killed by SIGSEGV: a segmentation fault") as caught:
        shell("kill -SEGV $$")
    assert caught.value.retryable
    assert caught.value.result is not None
    assert caught.value.result["signal"] == signal.SIGSEGV
    with pytest.raises(JobError, match=r"killed by SIGKILL, which batchd did not send"):
        shell("kill -KILL $$")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"command": ["no-such-program"]}, "there is no program 'no-such-program'"),
        ({"command": ["/no/such/program"]}, "there is no program /no/such/program"),
        ({"command": ["/etc/passwd"]}, "chmod"),
        ({"command": ["true"], "cwd": "/no/such/folder"}, "there is no folder"),
        ({"command": ["true"], "user": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"command": ["true"], "user": "root", "group": "no-such-group"}, "there is no group 'no-such-group'"),
    ],
)
def test_what_cannot_be_started_is_told_before_and_when_it_runs(wrong: dict[str, Any], said: str) -> None:
    """By `batchd check`, and by the run, which fails at once."""
    with pytest.raises(JobError, match=said) as caught:
        command(**wrong)
    assert not caught.value.retryable
    assert KIND.check_code is not None
    ((_, message),) = KIND.check_code(KIND.params.model_validate(wrong))
    assert said in message


def test_a_file_that_is_no_program_fails_the_run(tmp_path: Path) -> None:
    """Executable, and yet nothing that the kernel can start."""
    file = tmp_path / "garbage"
    file.write_bytes(b"\x00\x01garbage")
    file.chmod(0o755)
    with pytest.raises(JobError, match=r"cannot start .*Exec format error") as caught:
        command(command=[str(file)])
    assert not caught.value.retryable


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_a_command_runs_as_the_user_it_names() -> None:
    """With that user's groups and home, and without root's."""
    result = shell("id -un; id -Gn; echo $HOME; exec cat /proc/self/status", user="nobody", last_lines=200)
    lines = result["last_lines"]
    assert lines[0] == "nobody"
    assert "root" not in lines[1].split()
    assert lines[2] != "/root"
    assert "Uid:\t65534\t65534\t65534\t65534" in lines


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """In its group, or gone from it; polite or not. The run is told of it."""
    context = DirectContext({})
    script = (
        "sleep 300 & echo $! >> pids; setsid sh -c 'echo $$ >> pids; exec sleep 300' & "
        "setsid sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 0.1; done' & "
        "while [ $(wc -l < pids) -lt 3 ]; do sleep 0.01; done"
    )
    shell(script, context, cwd=str(tmp_path), grace="200ms")
    assert not [pid for pid in pids_in(tmp_path / "pids", 3) if is_alive(pid)]
    assert "command.left_behind" in context.log.events("warning")


def interrupted(context: DirectContext, tmp_path: Path, text: str, reason: StopReason, **params: Any) -> float:
    """Run the text until it has written two pids, tell it to stop and return how many seconds that took."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            shell(text, context, cwd=str(tmp_path), **params)
        except BaseException as error:  # noqa: BLE001 (a stop is one)
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pids = pids_in(tmp_path / "pids", 2)
    told_at = context.clock.monotonic()
    context.stop(reason)
    thread.join(30)
    took = context.clock.monotonic() - told_at
    assert isinstance(caught[0], RunInterrupted)
    assert not [pid for pid in pids if is_alive(pid)]
    return took


def test_a_stop_is_told_politely(tmp_path: Path) -> None:
    """TERM comes first, and the command may still write its last words."""
    context = DirectContext({})
    text = "trap 'echo bye; exit 0' TERM; echo $$ >> pids; sleep 300 & echo $! >> pids; wait"
    interrupted(context, tmp_path, text, StopReason.CANCELLED)
    assert [line.fields["line"] for line in context.log.lines] == ["bye"]


def test_a_command_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    """It and its children."""
    context = DirectContext({})
    text = "trap '' TERM; echo $$ >> pids; (echo $$; while :; do sleep 0.1; done) >> pids & while :; do sleep 0.1; done"
    assert 0.5 <= interrupted(context, tmp_path, text, StopReason.TIMEOUT, grace="500ms") < 15


def test_the_end_of_the_keeper_is_the_end_of_the_command(tmp_path: Path) -> None:
    """Somebody kills the process between: the kernel kills the command, and the attempt fails."""
    text = "echo $$ $PPID >> pids; exec sleep 300"
    caught: list[BaseException] = []

    def run() -> None:
        try:
            shell(text, cwd=str(tmp_path))
        except JobError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pid, keeper = pids_in(tmp_path / "pids", 2)
    os.kill(keeper, signal.SIGKILL)
    thread.join(30)
    assert isinstance(caught[0], JobError)
    assert "ended without a word" in str(caught[0])
    wait_until(lambda: not is_alive(pid), what="the command's end")


def test_nothing_is_left_open() -> None:
    """Neither a pipe nor a child, however a command ends."""
    command(command=["true"])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        command(command=["true"])
        with pytest.raises(JobError):
            command(command=["false"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
