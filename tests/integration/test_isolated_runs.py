"""Runs in processes of their own: what kills them, what becomes of it, and what is left behind (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchd.db.engine import Database
from batchd.domain.run import CreatedBy, RunState
from batchd.jobs.kinds.python import KIND
from batchd.jobs.processes.pool import pool
from batchd.store import control
from batchd.store.enqueue import NewRun, enqueue
from batchd.store.migrate import migrate
from batchd.store.queries import RunDetail
from tests.support.databases import open_database
from tests.support.engine_room import engine_room
from tests.support.store_reading import wait_for_state
from tests.support.waiting import wait_until

_FINAL = tuple(state for state in RunState if state.is_final)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Database]:
    """A store with an engine at work that knows the kind."""
    opened = open_database(sqlite_url)
    migrate(opened)
    with engine_room(opened, {"python": KIND}, grace_seconds=3):
        yield opened
    opened.close()


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    """The processes serve one test after another."""
    yield
    pool().close()


def begin(store: Database, target: str, arguments: dict[str, Any], *, timeout: float = 60, **params: Any) -> int:
    """Queue a run of the function, with one attempt, and return its id."""
    asked = {"target": f"tests.support.python_targets:{target}", "isolation": "process", "arguments": arguments}
    run = NewRun(kind="python", params={**asked, **params}, timeout=timedelta(seconds=timeout), max_attempts=1)
    (run_id,) = enqueue(store, [run], created_by=CreatedBy.API)
    return run_id


def outcome(store: Database, target: str, arguments: dict[str, Any], **params: Any) -> RunDetail:
    """Run the function once and return how it ended."""
    return wait_for_state(store, begin(store, target, arguments, **params), *_FINAL, seconds=60)


def is_there(pid: int) -> bool:
    """Whether a process runs: one that nobody has reaped yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("segfault", "killed by SIGSEGV: a segmentation fault"),
        ("abort", "killed by SIGABRT: a library called abort()"),
        ("exit", "ended itself with exit code 5"),
        ("kill", "killed by SIGKILL"),
        ("forked", "killed by SIGKILL"),
    ],
)
def test_a_death_is_reported_as_what_it_was(store: Database, how: str, said: str) -> None:
    """Signal or exit code in words, and what the process wrote last: for a crash the stack of its Python code."""
    ended = outcome(store, "die", {"how": how})
    (attempt,) = ended.attempts
    assert (ended.run.state, attempt.error_type) == (RunState.FAILED, "ProcessDied")
    assert said in str(attempt.error_message)
    assert "last words" in str(attempt.error_traceback)
    if how in {"segfault", "abort"}:
        assert "in die" in str(attempt.error_traceback)


def test_a_hanging_c_function_dies_within_two_seconds_of_its_timeout(store: Database, tmp_path: Path) -> None:
    """No Python of that process can run; the whole group goes, with a child that ignores signals."""
    outcome(store, "pid", {})  # a process is there already, so that the clock below measures no start
    file = tmp_path / "pids"
    run_id = begin(store, "hang_with_children", {"file": str(file)}, timeout=2)
    wait_until(file.exists, seconds=60, what="the child")
    pids = [int(word) for word in file.read_text().split()]
    assert all(is_there(pid) for pid in pids)
    ended = wait_for_state(store, run_id, *_FINAL, seconds=60)
    (attempt,) = ended.attempts
    assert (ended.run.state, attempt.outcome) == (RunState.FAILED, "timed_out")
    assert attempt.finished_at is not None
    assert (attempt.finished_at - attempt.started_at).total_seconds() < 2 + 2
    wait_until(lambda: not any(is_there(pid) for pid in pids), what=f"end of {pids}")


def test_a_cancel_kills_a_run_that_does_not_hear(store: Database, tmp_path: Path) -> None:
    """A run that hangs in C is cancelled as any other."""
    file = tmp_path / "pids"
    run_id = begin(store, "hang_with_children", {"file": str(file)})
    wait_until(file.exists, seconds=60, what="the child")
    control.request_cancel(store, run_id)
    assert wait_for_state(store, run_id, *_FINAL, seconds=20).run.state == RunState.CANCELLED
    wait_until(lambda: not any(is_there(int(pid)) for pid in file.read_text().split()), what="the end of both")


def test_more_memory_than_allowed_ends_the_run(store: Database) -> None:
    """The process gets a MemoryError where it asks; what it and its children hold together gets all of them killed."""
    ended = outcome(store, "grow", {"megabytes": 1_000}, max_memory="200MB")
    assert ended.run.state == RunState.FAILED
    assert "max_memory = 200 MB" in str(ended.run.error)
    assert "in grow" in str(ended.attempts[0].error_traceback)
    ended = outcome(store, "grow", {"megabytes": 120, "children": 2}, max_memory="200MB")
    assert "more than max_memory = 200 MB, and was killed" in str(ended.run.error)
    assert outcome(store, "grow", {"megabytes": 400}).run.result == {"value": 400}


def test_a_process_serves_until_it_is_recycled(store: Database) -> None:
    """The same process for run after run; a new one after so many, after too much memory, and after a death."""

    def served(**params: Any) -> int:
        return int((outcome(store, "pid", {}, **params).run.result or {})["value"])  # type: ignore[arg-type]

    pool().close()
    first = served(recycle_after=3)
    assert first != os.getpid()
    assert [served(recycle_after=3), served(recycle_after=3)] == [first, first]
    second = served()
    assert second != first
    assert not is_there(first)
    assert served(recycle_above=1) == second
    third = served()
    assert third != second
    outcome(store, "die", {"how": "exit"})
    assert served() != third


def test_a_worker_that_died_while_idle_is_replaced(store: Database) -> None:
    """Somebody killed it between two runs: the next run does not notice."""
    first = (outcome(store, "pid", {}).run.result or {})["value"]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_there(first), what="its end")
    assert (outcome(store, "pid", {}).run.result or {})["value"] != first


def test_threads_that_a_function_leaves_behind_do_not_keep_it(store: Database) -> None:
    """The run ends when the function returns."""
    began = time.monotonic()
    assert outcome(store, "leave_a_thread", {}).run.state == RunState.SUCCEEDED
    assert time.monotonic() - began < 50


_OUT_OF_MEMORY = """
import os, signal, subprocess, sys
from pathlib import Path
from batchd.jobs.processes.death import died, oom_kills
most, members = map(Path, sys.argv[1:])
members.write_text(str(os.getpid()))
most.write_text(str(300 << 20))
before = oom_kills()
child = subprocess.run([sys.executable, "-c", "held = [b'x' * (1 << 20) for _ in range(2000)]"])
print(died(child.returncode, "", oom_kills_before=before).message)
"""


@pytest.fixture
def memory_group() -> Iterator[list[Path]]:
    """The files of the limit and of the members of a control group of our own; only root may make one."""
    root = Path("/sys/fs/cgroup")
    is_old = (root / "memory/memory.limit_in_bytes").exists()
    group = (root / "memory" if is_old else root) / f"batchd-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if is_old else "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        if not limit.exists():
            pytest.skip("control groups limit no memory here")
        yield [limit, group / "cgroup.procs"]
    finally:
        group.rmdir()


def test_a_real_oom_kill_is_told_from_a_persons(memory_group: list[Path]) -> None:
    """The kernel kills a process in a control group that is full, and its counter says so."""
    command = [sys.executable, "-c", _OUT_OF_MEMORY, *map(str, memory_group)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "killed by SIGKILL, and the kernel's OOM killer was at work: out of memory" in done.stdout
