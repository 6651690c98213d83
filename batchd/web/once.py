"""`Idempotency-Key`: a client that got no answer may send the same request again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias

from starlette.responses import Response

from batchd.domain.run import CreatedBy
from batchd.store import web_requests
from batchd.store.web_requests import Key
from batchd.web.call import Call
from batchd.web.problems import invalid
from batchd.web.shapes import Queued

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,200}")

QueueRun: TypeAlias = Callable[[Any, CreatedBy], int]
"""Queues a run in a transaction and returns its id."""


async def queue_once(call: Call, queue: QueueRun, outcomes: Sequence[str] = ()) -> Response:
    """Queue a run, or find the one that the same request has queued before; answer 202 with where it is.

    `outcomes` has afterwards what became of the run, where that is not always `queued`.
    """
    key = await key_of(call)
    queued = await call.store(web_requests.once, key, lambda connection: queue(connection, CreatedBy.API))
    headers = {"Location": run_url(queued.run_id)} | ({"Idempotency-Replayed": "true"} if queued.is_replay else {})
    answer = Queued(queued.run_id, outcomes[-1] if outcomes else "queued", run_url(queued.run_id))
    return call.json(answer, HTTPStatus.ACCEPTED, headers)


async def key_of(call: Call) -> Key | None:
    """Return the request's key, None where it has none; raises Problem 422 for one that cannot be stored."""
    given = call.request.headers.get(HEADER)
    if given is None:
        return None
    if not _KEY.fullmatch(given):
        raise invalid(f"{HEADER} must have 1 to 200 visible ASCII characters")
    asked = b"\0".join((call.request.method.encode(), call.request.url.path.encode(), await call.request.body()))
    return Key(f"{call.principal.via.value}:{call.principal.name}", given, hashlib.sha256(asked).hexdigest())


def run_url(run_id: int) -> str:
    """Return where the API shows a run."""
    return f"/api/v1/runs/{run_id}"
