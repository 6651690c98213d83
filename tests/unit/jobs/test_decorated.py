"""`@batchd.job`: what a decorated function still is, what it queues, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import batchd
from batchd.errors import JobError
from batchd.jobs.python import enqueuing
from batchd.jobs.python.enqueuing import StoreNotNamed, inside
from batchd.jobs.targets import TargetInvalid
from batchd.store.enqueue import NewRun
from tests.support import shop_jobs

_UUID = "2f1c1f5e-0c5b-4e38-9b52-6f0a3d7d9a10"


class Store:
    """Collects what is queued."""

    def __init__(self) -> None:
        self.runs: list[NewRun] = []

    def __call__(self, *runs: NewRun) -> tuple[int, ...]:
        self.runs += runs
        return tuple(range(1, len(runs) + 1))


@pytest.fixture
def store() -> Any:
    """Where the functions queue their runs in the test."""
    collected = Store()
    with inside(collected):
        yield collected


def test_calling_a_decorated_function_calls_it() -> None:
    """The decorator changes nothing about a call, the name or the documentation."""
    assert shop_jobs.sync_user(5, full=True) == {"synced": 6}
    assert shop_jobs.sync_user.__name__ == "sync_user"
    assert shop_jobs.sync_user.__doc__ == "Sync one user."


def test_enqueue_queues_a_run_of_the_job(store: Store) -> None:
    """By position or by name, checked and made JSON; the function's defaults are left to it."""
    assert shop_jobs.sync_user.enqueue(5) == 1
    assert shop_jobs.send_mail.enqueue(to=UUID(_UUID)) == 1
    assert store.runs == [
        NewRun(job="sync_user", params={"arguments": {"user_id": 5}}),
        NewRun(job="send_mail", params={"arguments": {"to": _UUID}}),
    ]


def test_enqueue_at_and_many(store: Store) -> None:
    """A moment has a zone; many are queued at once."""
    moment = datetime(2026, 12, 24, 18, tzinfo=UTC)
    shop_jobs.sync_user.enqueue_at(moment, user_id=1)
    assert shop_jobs.sync_user.enqueue_many([{"user_id": 2}, {"user_id": 3, "full": True}]) == (1, 2)
    assert [run.available_at for run in store.runs] == [moment, None, None]
    assert store.runs[2].params == {"arguments": {"user_id": 3, "full": True}}
    with pytest.raises(ValueError, match="has no time zone"):
        shop_jobs.sync_user.enqueue_at(datetime(2026, 12, 24), user_id=1)  # noqa: DTZ001


def test_options_are_those_of_a_run(store: Store) -> None:
    """Each is a field of NewRun; lengths of time may be text; an unknown one is refused with the names."""
    shop_jobs.sync_user.options(priority=9, delay="5m", unique_key="u5", key="five").enqueue(5)
    assert store.runs == [
        NewRun(
            job="sync_user",
            params={"arguments": {"user_id": 5}},
            priority=9,
            delay=timedelta(minutes=5),
            unique_key="u5",
            key="five",
        )
    ]
    with pytest.raises(TypeError, match=r"no option prio.*priority"):
        shop_jobs.sync_user.options(prio=1)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: shop_jobs.sync_user.enqueue("x"), TargetInvalid, "user_id: Input should be a valid integer"),
        (shop_jobs.sync_user.enqueue, TargetInvalid, "user_id: is missing"),
        (lambda: shop_jobs.sync_user.enqueue(5, ful=True), TargetInvalid, "ful: is no argument"),
        (lambda: shop_jobs.sync_user.enqueue(5, user_id=5), TypeError, "two values for user_id"),
        (lambda: shop_jobs.sync_user.enqueue(5, True), TypeError, "1 arguments by position, not 2"),
        (lambda: shop_jobs.sync_user.enqueue_many([{"user_id": 1}, {}]), TargetInvalid, "user_id: is missing"),
    ],
)
def test_arguments_are_checked_when_a_run_is_queued(store: Store, call: Any, error: type[Exception], said: str) -> None:
    """A wrong call raises where it is made, and nothing is queued."""
    with pytest.raises(error, match=said):
        call()
    assert store.runs == []


def test_only_functions_of_modules_can_be_jobs() -> None:
    """A daemon could not import anything else."""
    with pytest.raises(TypeError, match="functions of a module"):

        @batchd.job
        def inner() -> None:
            """Be out of reach."""


def test_without_a_store_an_enqueue_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither configured nor in the environment."""
    monkeypatch.delenv(enqueuing.STORE_VARIABLE, raising=False)
    batchd.configure(None)
    with pytest.raises(StoreNotNamed) as raised:
        shop_jobs.sync_user.enqueue(5)
    assert "batchd.configure(url)" in str(raised.value.hint)


def test_importing_batchd_imports_nothing_else() -> None:
    """Each public name is imported when it is used, and all of them are there."""
    code = (
        "import sys, batchd; before = set(sys.modules); "
        "assert not [m for m in before if m.startswith(('sqlalchemy', 'pydantic', 'batchd.'))], before; "
        "[getattr(batchd, name) for name in batchd._EXPORTS]; print(len(batchd._EXPORTS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert issubclass(batchd.JobError, JobError)
    with pytest.raises(AttributeError, match="no attribute 'jobz'"):
        batchd.jobz  # noqa: B018
