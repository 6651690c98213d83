"""Trying again within one step of a job, on tenacity: `with_retry`.

For waits of seconds that are over when the process is. What must outlast a restart is the run's own `retry`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast, overload

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from batchd.domain.job import Backoff, RetryPolicy
from batchd.domain.retry import delay_after

P = ParamSpec("P")
T = TypeVar("T")

RetryOn: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]"

_LONGEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A try that failed and is followed by another: its number from 1, its error, and how long until the next."""

    number: int
    error: BaseException
    wait: timedelta


@dataclass(frozen=True, slots=True)
class _Plan:
    policy: RetryPolicy
    retry_on: RetryOn
    on_retry: Callable[[FailedTry], Any] | None
    sleep: Callable[[timedelta], Any] | None

    def options(self) -> dict[str, Any]:
        """Return what tenacity is told, in both worlds."""
        seed = uuid.uuid4().hex
        return {
            "stop": stop_after_attempt(self.policy.max_attempts),
            "wait": lambda state: delay_after(self.policy, state.attempt_number, seed=seed).total_seconds(),
            "retry": retry_if_exception(self._is_worth_it),
            "reraise": True,
        }

    def told(self, state: RetryCallState) -> Any:
        """Tell `on_retry`, and return what it returned."""
        error = state.outcome.exception() if state.outcome else None
        if self.on_retry is None or error is None:
            return None
        return self.on_retry(FailedTry(state.attempt_number, error, timedelta(seconds=state.upcoming_sleep)))

    async def told_async(self, state: RetryCallState) -> None:
        """Tell `on_retry`, which may be async here."""
        answer = self.told(state)
        if inspect.isawaitable(answer):
            await answer

    def pause(self, seconds: float) -> None:
        """Wait; `sleep` may end the wait with an exception."""
        if self.sleep is None:
            threading.Event().wait(seconds)
        else:
            self.sleep(timedelta(seconds=seconds))

    async def pause_async(self, seconds: float) -> None:
        """Wait without holding the event loop up."""
        if self.sleep is None:
            await asyncio.sleep(seconds)
            return
        answer = self.sleep(timedelta(seconds=seconds))
        if inspect.isawaitable(answer):
            await answer

    def _is_worth_it(self, error: BaseException) -> bool:
        if not getattr(error, "retryable", True):
            return False  # a JobError that says that trying again cannot help
        if isinstance(self.retry_on, type | tuple):
            return isinstance(error, self.retry_on)
        return self.retry_on(error)


@overload
def with_retry(
    fn: Callable[[], T],
    max_attempts: int = 3,
    delay: timedelta | float = 1.0,
    backoff: str = "exponential",
    jitter: float = 0.1,
    retry_on: RetryOn = Exception,
    on_retry: Callable[[FailedTry], Any] | None = None,
    *,
    max_delay: timedelta | float = _LONGEST,
    sleep: Callable[[timedelta], Any] | None = None,
) -> T: ...


@overload
def with_retry(
    fn: None = None,
    max_attempts: int = 3,
    delay: timedelta | float = 1.0,
    backoff: str = "exponential",
    jitter: float = 0.1,
    retry_on: RetryOn = Exception,
    on_retry: Callable[[FailedTry], Any] | None = None,
    *,
    max_delay: timedelta | float = _LONGEST,
    sleep: Callable[[timedelta], Any] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


def with_retry(
    fn: Callable[[], Any] | None = None,
    max_attempts: int = 3,
    delay: timedelta | float = 1.0,
    backoff: str = "exponential",
    jitter: float = 0.1,
    retry_on: RetryOn = Exception,
    on_retry: Callable[[FailedTry], Any] | None = None,
    *,
    max_delay: timedelta | float = _LONGEST,
    sleep: Callable[[timedelta], Any] | None = None,
) -> Any:
    """Call `fn` now, again while it fails, and return its result; without `fn`, return a decorator that does so.

    An async `fn` gives an awaitable. At most `max_attempts` calls; the last error is raised as it is. Between two calls
    it waits `delay` (seconds or a timedelta), growing by `backoff`: "exponential" (d, 2d, 4d), "linear" (d, 2d, 3d)
    or "fixed", never more than `max_delay`; `jitter` is the share of the wait, from 0 to 1, that is added or taken
    away at random. `retry_on` says which errors are worth it: a type, a tuple of types, or a function; an error whose
    `retryable` is False never is. `on_retry` gets a `FailedTry` before each wait. `sleep` does the waiting: in a job
    give `context.wait`, so that a stop ends the wait. Raises ValueError for options that mean nothing.
    """
    policy = _policy(max_attempts, delay, backoff, jitter, max_delay)
    plan = _Plan(policy, retry_on, on_retry, sleep)
    if fn is None:
        return lambda function: _wrapped(function, plan)
    _refuse_bare_decorator(fn)
    return _wrapped(fn, plan)()


def _policy(
    max_attempts: int, delay: timedelta | float, backoff: str, jitter: float, max_delay: timedelta | float
) -> RetryPolicy:
    if max_attempts < 1:
        raise ValueError(f"max_attempts is {max_attempts}; 1 means no retry")
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter is {jitter}; it is a share of the wait, from 0 to 1")
    if backoff not in set(Backoff):
        raise ValueError(f"backoff is {backoff!r}; there are: {', '.join(sorted(Backoff))}")
    wait, longest = _span("delay", delay), _span("max_delay", max_delay)
    return RetryPolicy(max_attempts, Backoff(backoff), wait, longest, jitter)


def _span(name: str, given: timedelta | float) -> timedelta:
    span = given if isinstance(given, timedelta) else timedelta(seconds=given)
    if span < timedelta(0):
        raise ValueError(f"{name} is {given}; it cannot be negative")
    return span


def _wrapped(function: Callable[P, Any], plan: _Plan) -> Callable[P, Any]:
    if inspect.iscoroutinefunction(function):
        work = cast("Callable[P, Awaitable[Any]]", function)

        @functools.wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            trying = AsyncRetrying(sleep=plan.pause_async, before_sleep=plan.told_async, **plan.options())
            return await trying(work, *args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        trying = Retrying(sleep=plan.pause, before_sleep=plan.told, **plan.options())
        return trying(function, *args, **kwargs)

    return call


def _refuse_bare_decorator(fn: Callable[..., Any]) -> None:
    """Raise TypeError for a function that cannot be called without arguments: most likely a decorator was meant."""
    try:
        inspect.signature(fn).bind()
    except TypeError as error:
        name = getattr(fn, "__name__", repr(fn))
        raise TypeError(
            f"with_retry(fn) calls fn without arguments, and {name} needs some: write with_retry(lambda: {name}(...)), "
            f"or @with_retry() above its def"
        ) from error
    except ValueError:
        return  # a function in C does not say; the call will show
