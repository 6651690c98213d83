"""Calling a function with what a run has stored, in whatever process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from batchd.domain.job import JsonObject
from batchd.errors import JobError, ParamsInvalid, RunInterrupted, StopReason
from batchd.jobs.contract import JobContext
from batchd.jobs.python.decorated import Job
from batchd.jobs.python.enqueuing import inside
from batchd.jobs.python.signature import Signature
from batchd.jobs.targets import TargetInvalid, import_target


@dataclass(frozen=True, slots=True)
class Function:
    """A function and what it takes."""

    name: str
    call: Callable[..., Any]
    signature: Signature


def find_function(target: str) -> Function:
    """Import the function, decorated or not; raises TargetInvalid with advice. Any thread may call it."""
    found = import_target(target)
    if isinstance(found, Job):
        return Function(target, found.function, found.signature)
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise TargetInvalid(f"{target} is a generator, whose body a call does not run", retryable=False)
    return Function(target, found, Signature(target, found))


def call(function: Function, arguments: Mapping[str, Any], context: JobContext) -> JsonObject:
    """Call the function, an async one in a loop of its own, and return its result as a JSON object.

    An async one is cancelled where it waits when the run must end. Raises what the function raises, ParamsInvalid for
    arguments that do not fit.
    """
    complaints = function.signature.complaints(arguments)
    if complaints:
        said = "; ".join(f"arguments.{each.key}: {each.message}" for each in complaints)
        raise ParamsInvalid(f"{function.name} does not take what the run has: {said}")
    values = function.signature.values(arguments)
    positional = (context,) if function.signature.wants_context else ()
    with inside(context.enqueue):
        returned = function.call(*positional, **values)
        if inspect.iscoroutine(returned):
            returned = asyncio.run(_cancellable(returned, context))
    return _as_object(function, returned)


async def _cancellable(work: Coroutine[Any, Any, Any], context: JobContext) -> Any:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    reasons: list[StopReason] = []

    def stop(reason: StopReason) -> None:
        if not reasons:  # once: a function that cleans up behind itself must not be cancelled again in the middle
            reasons.append(reason)
            with contextlib.suppress(RuntimeError):  # the loop has closed in this moment: the function is done
                loop.call_soon_threadsafe(task.cancel)

    try:
        with context.when_cancelled(stop):
            return await task
    except asyncio.CancelledError:
        if reasons:
            raise RunInterrupted(reasons[0]) from None
        raise
    finally:
        if not task.done():
            task.cancel()


def _as_object(function: Function, returned: Any) -> JsonObject:
    try:
        plain = to_jsonable_python(returned)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise JobError(f"{function.name} returned what is not JSON: {error}", retryable=False) from error
    if plain is None:
        return {}
    return plain if isinstance(plain, dict) else {"value": plain}
