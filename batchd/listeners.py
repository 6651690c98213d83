"""A team's own functions that are called with events: `@batchd.on("failed")`.

Here they are only registered, by importing the module that has them; `batchd.listening` calls them, in the daemon. The
import costs nothing of the daemon, so that application code may register listeners wherever it likes.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_LONGEST_NAME = 200


class EventName(enum.StrEnum):
    """What a listener may listen to."""

    STARTED = "started"
    PROGRESSED = "progressed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    DISCARDED = "discarded"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a run. `id` grows with every event: a listener that keeps it can tell what it has had already.

    `state`, `reason`, `attempt` and `error` are of the moment of the event; `result` is what the run's row has when
    the event is delivered, None for a run that is unfinished or gone. `details` are the event's own further facts.
    """

    id: int
    name: EventName
    at: datetime
    run_id: int
    job: str | None
    kind: str | None
    queue: str | None
    state: str | None
    reason: str | None
    attempt: int | None
    error: str | None
    result: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listener:
    """A registered function. `jobs`, `kinds` and `queues` None mean any; `give_up_after` None means never."""

    name: str
    function: Callable[[Event], Any]
    events: frozenset[EventName]
    jobs: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    queues: frozenset[str] | None = None
    give_up_after: int | None = None

    def wants(self, event: Event) -> bool:
        """Return whether the function is to be called with the event."""
        chosen = ((self.jobs, event.job), (self.kinds, event.kind), (self.queues, event.queue))
        return event.name in self.events and all(wanted is None or value in wanted for wanted, value in chosen)


_registered: dict[str, Listener] = {}


def on(
    *events: str,
    job: str | Collection[str] | None = None,
    kind: str | Collection[str] | None = None,
    queue: str | Collection[str] | None = None,
    name: str | None = None,
    give_up_after: int | None = None,
) -> Callable[[F], F]:
    """Have the function called, in the daemon, with each such `Event`; it may be async.

        @batchd.on("failed", "missed", queue="critical")
        def page(event):
            ...

    At least once and in order; when it raises, it is called again with the same event, later and later, and its later
    events wait. `give_up_after` says after how many calls an event is left out instead. `job`, `kind` and `queue` (one
    or several) narrow what it hears of. Its place in the stream of events is kept under `name`, `module:function` when
    nothing is said: give one to a function that may be renamed. Raises ValueError for what cannot be.
    """
    chosen = frozenset(_event_named(each) for each in events)
    if not chosen:
        raise ValueError(f"@on needs the events to listen to: {', '.join(EventName)}")
    if give_up_after is not None and give_up_after < 1:
        raise ValueError(f"give_up_after is {give_up_after}; 1 means that an event is tried once")

    def register(function: F) -> F:
        called = name or f"{function.__module__}:{function.__qualname__}"
        if not 0 < len(called) <= _LONGEST_NAME:
            raise ValueError(f"the listener's name has {len(called)} characters; give it a `name` of at most 200")
        _refuse_another(called, function)
        _registered[called] = Listener(
            called, function, chosen, _names(job), _names(kind), _names(queue), give_up_after
        )
        return function

    return register


def registered() -> tuple[Listener, ...]:
    """Return the listeners of all modules that were imported so far, by name."""
    return tuple(_registered[name] for name in sorted(_registered))


def _event_named(text: str) -> EventName:
    try:
        return EventName(text)
    except ValueError:
        near = get_close_matches(text, list(EventName), n=1)
        advice = f"did you mean {str(near[0])!r}?" if near else f"there are: {', '.join(EventName)}"
        raise ValueError(f"there is no event {text!r}; {advice}") from None


def _names(given: str | Collection[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    return frozenset({given} if isinstance(given, str) else given)


def _refuse_another(name: str, function: Callable[..., Any]) -> None:
    """Raise ValueError for a second function of that name; a module that is imported again brings the same one."""
    known = _registered.get(name)
    if known is not None and _place(known.function) != _place(function):
        raise ValueError(f"there are two listeners {name!r}: {_place(known.function)} and {_place(function)}")


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    where = f" in {code.co_filename}" if code is not None else ""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}{where}"
