"""An exception as an attempt's record has it; in the daemon, and in a process that works for it."""

from __future__ import annotations

import traceback

from batchd.db.storable import storable_text
from batchd.domain.attempt import AttemptError
from batchd.errors import BatchdError, ProcessDied, TargetFailed, TargetRaised, Verdict

_TRACEBACK_BYTES = 16_000
_MESSAGE_BYTES = 8_000


def described(error: BaseException) -> AttemptError:
    """Return the error's type, its message with the hint, and the stack of one that does not explain itself.

    The stack never shows local variables.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, BatchdError) and error.hint:
        message += f" ({error.hint})"
    name = error.type_name if isinstance(error, TargetRaised) else type(error).__name__
    stack = _stack(error)
    return AttemptError(name, storable_text(message)[:_MESSAGE_BYTES], stack and storable_text(stack))


def _stack(error: BaseException) -> str | None:
    match error:
        case TargetRaised():
            stack = error.traceback
        case Verdict(__cause__=TargetRaised() as cause):
            stack = cause.traceback
        case ProcessDied():
            stack = error.last_words
        case BatchdError() if not isinstance(error, TargetFailed) and not _is_caused(error):
            return None
        case _:
            stack = "".join(traceback.format_exception(error))
    return stack[-_TRACEBACK_BYTES:] if stack else None


def _is_caused(error: BatchdError) -> bool:
    """Return whether it is what a job made of an error: `raise Retry(after=60) from error`."""
    return isinstance(error, Verdict) and error.__cause__ is not None
