"""Every error that batchd raises on purpose, and the exit code that each means.

A message says what is wrong, where, and what to do next; `hint` holds the last of these. Nothing here carries a
secret: whoever builds a message from a URL masks it first (`batchd.db.engine.masked`).
"""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import Any, ClassVar


class ExitCode(enum.IntEnum):
    """What the process tells its caller; sysexits.h where it has a word for it, never 126 to 165 or 200 and above."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    RUN_FAILED = 10
    RUN_TIMED_OUT_OR_CANCELLED = 11
    RUN_SKIPPED = 12
    DEGRADED = 13
    STORE_UNREACHABLE = 69
    INTERNAL = 70
    CANNOT_CREATE = 73
    ALREADY_RUNNING = 75
    SCHEMA_MISMATCH = 76
    NO_PERMISSION = 77
    CONFIG_INVALID = 78
    INTERRUPTED = 130


class BatchdError(Exception):
    """An error with one clear message for a person; `hint` says what to do, `exit_code` what the process returns."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BatchdError):
    """The command line asks for something that does not exist or cannot be done (an unknown job, a finished run)."""

    exit_code = ExitCode.USAGE


class EnqueueRefused(UsageError):
    """A run cannot be queued: it names what the store does not know, or an option has a value that cannot be.

    Nothing of the call was queued.
    """


class DatabaseUnavailable(BatchdError):
    """A database cannot be reached, broke the connection, or did not answer in time. Trying again may help."""

    exit_code = ExitCode.STORE_UNREACHABLE


class LockTimeout(BatchdError):
    """A statement gave up waiting for a lock that somebody else holds. Trying again may help."""


class StatementCancelled(BatchdError):
    """A statement was cancelled: by its statement timeout, by a stop, or by an administrator."""


class SchemaMismatch(BatchdError):
    """The store's tables are of a version that this batchd does not know, or must be migrated first."""

    exit_code = ExitCode.SCHEMA_MISMATCH


class AlreadyRunning(BatchdError):
    """Another daemon holds what only one may hold (the lock of a SQLite store)."""

    exit_code = ExitCode.ALREADY_RUNNING


class CannotCreate(BatchdError):
    """A state directory, lock file or database file cannot be created."""

    exit_code = ExitCode.CANNOT_CREATE


class NoPermission(BatchdError):
    """The config, a credential or the state may not be read."""

    exit_code = ExitCode.NO_PERMISSION


class ExposedWithoutToken(BatchdError):
    """The HTTP surface would listen where other machines reach it, and nobody has a token."""

    exit_code = ExitCode.CONFIG_INVALID


class LeaseLost(BatchdError):
    """A fenced write matched no row: this attempt no longer owns its run and must stop without writing anything."""


class ParamsInvalid(BatchdError):
    """A run's kind or params cannot be understood; the run is quarantined with this message."""


class JobError(BatchdError):
    """What a kind raises when its work failed for a reason that it understands.

    `retryable=False` says that another attempt cannot help (a table that does not exist); the run then fails at once.
    `result` is kept with the run all the same: what a health check found is most interesting when it fails.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retryable: bool = True,
        result: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable
        self.result = result


class TargetFailed(JobError):
    """A team's own function raised; its traceback is kept with the attempt, since only the team can read the error."""


class TargetRaised(JobError):
    """A team's own function raised in another process: what it raised there, as that process told it."""

    def __init__(self, type_name: str, message: str, traceback: str | None, *, retryable: bool = True) -> None:
        super().__init__(message, retryable=retryable)
        self.type_name = type_name
        self.traceback = traceback


class ProcessDied(JobError):
    """The process of a run ended without a word; `last_words` is the end of what it wrote, a crash's stack included."""

    def __init__(self, message: str, *, hint: str | None = None, last_words: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.last_words = last_words


class Verdict(BatchdError):
    """What a job decides about its own run; raise one of its subclasses, from whatever kind."""


class Retry(Verdict):
    """Try the run again after this time instead of the job's back-off. It uses up an attempt, as every failure does.

    `after` is a timedelta or seconds. When no attempt is left, the run fails with the reason.
    """

    def __init__(self, reason: str = "the job asked to be tried again", *, after: timedelta | float) -> None:
        super().__init__(reason)
        self.after = _span(after)


class Discard(Verdict):
    """End the run for good: it is cancelled with the reason, neither retried nor a failure that anybody is told of."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Snooze(Verdict):
    """Put the run off for this time. It is no failure and uses up no attempt.

    `pause` is a timedelta or seconds.
    """

    def __init__(self, pause: timedelta | float, reason: str = "not yet") -> None:
        super().__init__(reason)
        self.pause = _span(pause)


class StopReason(enum.StrEnum):
    """Why a running attempt is told to stop."""

    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"


class RunInterrupted(BaseException):
    """Unwinds an attempt that was told to stop; a BaseException so that a kind's `except Exception` cannot eat it."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def has_beneath(error: BaseException, kind: type[BaseException]) -> bool:
    """Return whether the error is of that kind, or one of its causes is; where none is told, what it came up in."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, kind):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _span(given: timedelta | float) -> timedelta:
    span = given if isinstance(given, timedelta) else timedelta(seconds=given)
    if span < timedelta(0):
        raise ValueError(f"{span} lies in the past")
    return span
