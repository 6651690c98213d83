"""Errors as RFC 9457 problem details, and what batchd's own errors become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from batchd.errors import (
    BatchdError,
    DatabaseUnavailable,
    EnqueueRefused,
    LockTimeout,
    ParamsInvalid,
    SchemaMismatch,
    StatementCancelled,
    UsageError,
)
from batchd.store.control import JobUnknown, NotPossible, RunUnknown

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = 5


class Problem(Exception):
    """An answer that is an error: status, a machine's word for it, a sentence, and what to do.

    `code` is stable and becomes the `type` (`urn:batchd:problem:CODE`); `extra` are further members of the document.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def document(self) -> dict[str, object]:
        """Return the members."""
        said: dict[str, object] = {
            "type": f"urn:batchd:problem:{self.code}",
            "title": self.status.phrase,
            "status": int(self.status),
            "code": self.code,
            "detail": self.detail,
            **self.extra,
        }
        return said | ({"hint": self.hint} if self.hint else {})

    def response(self) -> Response:
        """Return the answer."""
        return Response(json.dumps(self.document()), self.status, self.headers, MEDIA_TYPE)


def not_found(what: str, *, hint: str | None = None) -> Problem:
    """Return the problem of a thing that is not there."""
    return Problem(HTTPStatus.NOT_FOUND, "not_found", what, hint=hint)


def invalid(detail: str, *, hint: str | None = None, extra: Mapping[str, object] | None = None) -> Problem:
    """Return the problem of a request whose content cannot be."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail, hint=hint, extra=extra)


def problem_of(error: BatchdError) -> Problem:
    """Return what an error of batchd means to a client; its message never holds a secret."""
    match error:
        case JobUnknown() | RunUnknown():
            return not_found(error.message)
        case NotPossible():
            return Problem(HTTPStatus.CONFLICT, "not_possible", error.message, hint=error.hint)
        case EnqueueRefused() | ParamsInvalid() | UsageError():
            return invalid(error.message, hint=error.hint)
        case DatabaseUnavailable() | LockTimeout() | StatementCancelled() | SchemaMismatch():
            # What the database said names hosts, users and files: it is for the log.
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "store_unavailable",
                "the store does not answer",
                hint="try again in a few seconds",
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
            )
        case _:
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "unexpected error; the daemon's log has it")
