"""Errors on their way between the processes: what the engine decides by must arrive as what it was."""

from __future__ import annotations

from typing import Any

from batchd import errors
from batchd.errors import (
    BatchdError,
    Discard,
    JobError,
    LeaseLost,
    ParamsInvalid,
    Retry,
    RunInterrupted,
    Snooze,
    StopReason,
    TargetRaised,
)
from batchd.jobs.failures import described
from batchd.jobs.processes.channel import Message


def as_message(error: BaseException) -> Message:
    """Return the error as JSON."""
    told = described(error)
    said: Message = {"type": told.type, "message": told.message, "traceback": told.traceback}
    match error:
        case RunInterrupted():
            said |= {"sort": "interrupted", "stop": error.reason.value}
        case Retry():
            said |= {"sort": "retry", "span": error.after, "reason": error.message}
        case Snooze():
            said |= {"sort": "snooze", "span": error.pause, "reason": error.message}
        case Discard():
            said |= {"sort": "discard", "reason": error.message}
        case LeaseLost():
            said |= {"sort": "lease_lost"}
        case ParamsInvalid():
            said |= {"sort": "params", "reason": error.message, "hint": error.hint}
        case JobError():
            said |= {"sort": "job", "retryable": error.retryable, "result": error.result}
        case _:
            said |= {"sort": "other"}
    return said


def from_message(said: dict[str, Any]) -> BaseException:
    """Return the error again; the traceback that it had there is its own, or its cause's."""
    error = _made(said)
    if said["traceback"] and not isinstance(error, TargetRaised):
        error.__cause__ = TargetRaised(said["type"], said["message"], said["traceback"])
    return error


def _made(said: dict[str, Any]) -> BaseException:
    match said["sort"]:
        case "interrupted":
            return RunInterrupted(StopReason(said["stop"]))
        case "retry":
            return Retry(said["reason"], after=said["span"])
        case "snooze":
            return Snooze(said["span"], said["reason"])
        case "discard":
            return Discard(said["reason"])
        case "lease_lost":
            return LeaseLost(said["message"])
        case "params":
            return ParamsInvalid(said["reason"], hint=said["hint"])
        case _:
            raised = TargetRaised(
                said["type"], said["message"], said["traceback"], retryable=said.get("retryable", True)
            )
            raised.result = said.get("result")
            return raised


def answered(said: dict[str, Any]) -> BaseException:
    """Return the error of a call to the daemon, as the function would have met it in a thread, as far as possible."""
    known = getattr(errors, said["type"], None)
    if said["sort"] in {"job", "other"} and isinstance(known, type) and issubclass(known, BatchdError):
        if issubclass(known, TargetRaised | errors.ProcessDied):
            return from_message(said)
        return known(said["message"])
    return JobError(said["message"]) if said["sort"] in {"job", "other"} else from_message(said)
