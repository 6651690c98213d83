"""with_retry: how often, how long in between, for which errors; sync, async and as a decorator."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from batchd.errors import JobError
from batchd.retry import FailedTry, with_retry

Waits = list[float]


class Flaky:
    """Fails so often, then succeeds."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.calls = 0
        self.error = error or ConnectionError("no answer")

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return f"call {self.calls}"


def noting(waits: Waits) -> Callable[[timedelta], None]:
    """Return a sleep that only notes."""
    return lambda pause: waits.append(pause.total_seconds())


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [("exponential", [2.0, 4.0, 8.0]), ("linear", [2.0, 4.0, 6.0]), ("fixed", [2.0, 2.0, 2.0])],
)
def test_the_wait_grows_as_told(backoff: str, expected: Waits) -> None:
    """Three failures, three waits, and the fourth call's result."""
    waits: Waits = []
    result = with_retry(Flaky(3), 4, 2, backoff=backoff, jitter=0, sleep=noting(waits))
    assert (result, waits) == ("call 4", expected)


def test_a_wait_is_never_longer_than_the_longest() -> None:
    """max_delay bounds what exponential growth makes of a delay."""
    waits: Waits = []
    with_retry(Flaky(4), 5, timedelta(seconds=1), jitter=0, max_delay=3, sleep=noting(waits))
    assert waits == [1.0, 2.0, 3.0, 3.0]


def test_jitter_moves_the_wait_by_its_share_at_most() -> None:
    """Two callers do not wait the same time, and neither strays further than told."""
    waits: Waits = []
    for _ in range(20):
        with_retry(Flaky(1), 2, 10, jitter=0.5, sleep=noting(waits))
    assert all(5 <= wait <= 15 for wait in waits)
    assert len(set(waits)) > 1


def test_the_last_error_is_raised_as_it_is() -> None:
    """No wrapper of tenacity's between the caller and its own error."""
    flaky = Flaky(9)
    with pytest.raises(ConnectionError, match="no answer"):
        with_retry(flaky, max_attempts=3, delay=0)
    assert flaky.calls == 3


@pytest.mark.parametrize("retry_on", [TimeoutError, (TimeoutError, KeyError), lambda error: "busy" in str(error)])
def test_an_error_that_is_not_meant_is_raised_at_once(retry_on: Any) -> None:
    """retry_on is a type, several, or a function."""
    flaky = Flaky(9)
    with pytest.raises(ConnectionError):
        with_retry(flaky, delay=0, retry_on=retry_on)
    assert flaky.calls == 1


def test_an_error_that_says_that_trying_cannot_help_is_believed() -> None:
    """JobError(retryable=False) ends it whatever retry_on says."""
    flaky = Flaky(9, JobError("no such table", retryable=False))
    with pytest.raises(JobError):
        with_retry(flaky, delay=0)
    assert flaky.calls == 1


def test_each_failed_try_is_told_before_the_wait() -> None:
    """on_retry gets number, error and wait; the last failure is none that is followed by another."""
    told: list[FailedTry] = []
    with pytest.raises(ConnectionError):
        with_retry(Flaky(9), 3, 1, jitter=0, on_retry=told.append, sleep=lambda _pause: None)
    assert [(each.number, each.wait.total_seconds()) for each in told] == [(1, 1.0), (2, 2.0)]
    assert isinstance(told[0].error, ConnectionError)


def test_a_sleep_that_raises_ends_it() -> None:
    """A job that is told to stop while it waits does not try again."""
    flaky = Flaky(9)

    def stopped(_pause: timedelta) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_retry(flaky, delay=1, sleep=stopped)
    assert flaky.calls == 1


def test_an_async_function_is_awaited_and_told_in_its_own_way() -> None:
    """The event loop is free meanwhile, and on_retry may be async."""
    flaky = Flaky(2)
    told: list[int] = []

    async def fetch() -> str:
        await asyncio.sleep(0)
        return flaky()

    async def tell(failed: FailedTry) -> None:
        await asyncio.sleep(0)
        told.append(failed.number)

    assert asyncio.run(with_retry(fetch, delay=0.001, on_retry=tell)) == "call 3"
    assert told == [1, 2]


def test_as_a_decorator_it_keeps_the_function() -> None:
    """Arguments, name and a fresh count of tries with each call."""
    tries: list[int] = []

    @with_retry(max_attempts=2, delay=0)
    def fetch(number: int, *, fail: bool = False) -> int:
        """Fetch it."""
        tries.append(number)
        if fail:
            raise ConnectionError
        return number

    assert (fetch(7), fetch.__name__, fetch.__doc__) == (7, "fetch", "Fetch it.")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            fetch(8, fail=True)
    assert tries == [7, 8, 8, 8, 8]


def test_a_bare_decorator_is_refused_with_advice() -> None:
    """It would call the function while the module is imported."""
    with pytest.raises(TypeError, match=r"@with_retry\(\) above its def"):

        @with_retry
        def fetch(number: int) -> int:
            return number


@pytest.mark.parametrize(
    "options", [{"max_attempts": 0}, {"jitter": 2}, {"backoff": "cubic"}, {"delay": -1}, {"max_delay": -1}]
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    """At once, and not at the first failure."""
    with pytest.raises(ValueError, match=next(iter(options))):
        with_retry(Flaky(0), **options)


def test_it_imports_nothing_of_the_daemon() -> None:
    """A script that only wants with_retry pays for tenacity alone."""
    heavy = "{'sqlalchemy', 'pydantic', 'psycopg', 'apscheduler', 'click', 'structlog'}"
    code = f"import sys, batchd.retry; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
