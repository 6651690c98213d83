"""`@batchd.job`: a function of an application that is also a job.

@batchd.job(queue="critical", max_attempts=3)
def sync_user(user_id: int) -> None: ...

sync_user(5)                     calls it, here and now
sync_user.enqueue(user_id=5)     queues a run of it
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from batchd.domain.quantities import format_duration, parse_duration
from batchd.jobs.python import enqueuing
from batchd.jobs.python.signature import Signature
from batchd.store.enqueue import NewRun

P = ParamSpec("P")
R = TypeVar("R")

Span = timedelta | str
"""A length of time: a timedelta, or text as the config has it ("90s", "5m")."""

_OWN = frozenset({"job", "kind", "params", "available_at"})
_OPTIONS = frozenset(field.name for field in fields(NewRun)) - _OWN
_SPANS = frozenset({"delay", "timeout"})


class Queueing:
    """Queues runs of one job, with options for each of them. Any thread may use it."""

    def __init__(self, job: str, signature: Callable[[], Signature], options: Mapping[str, Any]) -> None:
        self._job = job
        self._signature = signature
        self._options = options

    def enqueue(self, *args: Any, **kwargs: Any) -> int | None:
        """Queue a run with these arguments of the function and return its id.

        None when there is one already (by `unique_key`, or by `key` of the run that queues it). The arguments are
        checked against the function's annotations first: raises TargetInvalid, or TypeError as the call would.
        """
        return self._queue_one(self._run(self._arguments(args, kwargs)))

    def enqueue_at(self, moment: datetime, /, *args: Any, **kwargs: Any) -> int | None:
        """Queue a run that begins at that moment, an aware datetime, or as soon as it can after it."""
        if moment.tzinfo is None:
            raise ValueError(f"{moment.isoformat()} has no time zone: which clock is meant?")
        return self._queue_one(replace(self._run(self._arguments(args, kwargs)), available_at=moment))

    def enqueue_many(self, calls: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
        """Queue a run for each dict of arguments, all in one transaction; return the ids of those that are new."""
        runs = [self._run(self._arguments((), call)) for call in calls]
        return enqueuing.queue(runs, self._options.get("connection"))

    def _queue_one(self, run: NewRun) -> int | None:
        ids = enqueuing.queue([run], self._options.get("connection"))
        return ids[0] if ids else None

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        signature = self._signature()
        return dict(signature.stored(signature.named(args, kwargs)))

    def _run(self, arguments: dict[str, Any]) -> NewRun:
        settings = {name: value for name, value in self._options.items() if name != "connection"}
        return NewRun(job=self._job, params={"arguments": arguments}, **settings)


class Job(Generic[P, R]):
    """A function that is also a job; calling it calls the function. Made by `@batchd.job`."""

    def __init__(self, function: Callable[P, R], name: str, settings: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.target = f"{function.__module__}:{function.__qualname__}"
        self.settings = settings
        self._queueing = Queueing(name, lambda: self.signature, {})

    def __repr__(self) -> str:
        return f"<batchd job {self.name} of {self.target}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    @functools.cached_property
    def signature(self) -> Signature:
        """Return what the function takes; raises TargetInvalid when that cannot be read."""
        return Signature(self.target, self.function)

    @property
    def source(self) -> tuple[str, int | None]:
        """Return the file and the line of the function."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return (code.co_filename, code.co_firstlineno) if code else (self.target, None)

    def enqueue(self, *args: Any, **kwargs: Any) -> int | None:
        """Queue a run with these arguments and return its id; see `Queueing.enqueue`."""
        return self._queueing.enqueue(*args, **kwargs)

    def enqueue_at(self, moment: datetime, /, *args: Any, **kwargs: Any) -> int | None:
        """Queue a run that begins at that moment; see `Queueing.enqueue_at`."""
        return self._queueing.enqueue_at(moment, *args, **kwargs)

    def enqueue_many(self, calls: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
        """Queue a run for each dict of arguments; see `Queueing.enqueue_many`."""
        return self._queueing.enqueue_many(calls)

    def options(self, *, connection: Any = None, **settings: Any) -> Queueing:
        """Return the job with settings for the runs that are queued with it: sync_user.options(priority=5).enqueue(5).

        `queue`, `priority`, `delay`, `max_attempts`, `timeout`, `unique_key`, `key` and what else `NewRun` has. With a
        SQLAlchemy `connection` to the store's database the run is queued in its transaction: it exists exactly when
        that commits.
        """
        unknown = settings.keys() - _OPTIONS
        if unknown:
            known = ", ".join(sorted(_OPTIONS))
            raise TypeError(f"a run has no option {', '.join(sorted(unknown))}; it has: {known}")
        spans = {name: _parsed(value) for name, value in settings.items() if name in _SPANS and value is not None}
        return Queueing(self.name, lambda: self.signature, {**settings, **spans, "connection": connection})

    def table(self) -> dict[str, Any]:
        """Return the job as a `[jobs.NAME]` table would have it."""
        return {"kind": "python", "target": self.target, **self.settings}


@overload
def job(function: Callable[P, R], /) -> Job[P, R]: ...


@overload
def job(
    *,
    name: str | None = ...,
    queue: str | None = ...,
    priority: int | None = ...,
    schedule: str | None = ...,
    timezone: str | None = ...,
    max_attempts: int | None = ...,
    retry: Mapping[str, Any] | None = ...,
    timeout: Span | None = ...,
    isolation: Literal["thread", "process"] | None = ...,
    max_memory: str | int | None = ...,
    **settings: Any,
) -> Callable[[Callable[P, R]], Job[P, R]]: ...


def job(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_attempts: int | None = None,
    retry: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Make a function of a module a job; its name is the function's unless `name` says otherwise.

    `settings` are those of a `[jobs.NAME]` table, and of the kind `python`: `queue`, `schedule`, `timeout`,
    `isolation`, …; lengths of time may be timedeltas. `retry` is its table there, `max_attempts` the part of it that
    is needed most. They are checked when `batchd run --import` or `batchd check` reads the module.
    """
    if function is not None:
        return _decorated(function, None, {})
    policy = {**(retry or {}), **({} if max_attempts is None else {"max_attempts": max_attempts})}
    written = {key: _written(value) for key, value in settings.items() if value is not None}
    if policy:
        written["retry"] = {key: _written(value) for key, value in policy.items()}
    return lambda decorated: _decorated(decorated, name, written)


def _decorated(function: Callable[P, R], name: str | None, settings: Mapping[str, Any]) -> Job[P, R]:
    if "<locals>" in getattr(function, "__qualname__", "<locals>"):
        raise TypeError(f"@batchd.job is for functions of a module, which a daemon can import, not for {function!r}")
    return Job(function, name or function.__name__, settings)


def _written(value: Any) -> Any:
    return format_duration(value) if isinstance(value, timedelta) else value


def _parsed(value: Any) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(value)
