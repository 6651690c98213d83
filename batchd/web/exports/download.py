"""Sends an open file, or a part of it, to a client that may be slow, may break off, and may go on later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import formatdate
from http import HTTPStatus
from pathlib import PurePath
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchd.clock import Clock
from batchd.web.exports.files import ExportFile
from batchd.web.exports.ranges import Part, Unsatisfiable, is_named, wanted_part
from batchd.web.live.wire import ClientStuck, Wire, until_gone

PATIENCE = timedelta(seconds=60)
_CHUNK = 256 * 1024
_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".parquet": "application/vnd.apache.parquet",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
}


class Download(Response):
    """The answer with the file, which it closes. Knows HEAD, one range, If-Range, If-Match and If-None-Match."""

    def __init__(self, file: ExportFile, clock: Clock, patience: timedelta = PATIENCE) -> None:
        self.status_code = 200
        self.background = None
        self._file = file
        self._clock = clock
        self._patience = patience
        self._tag = f'"{file.version}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await self._answer(scope, receive, Wire(scope, send, self._clock, self._patience))
        finally:
            self._file.close()

    async def _answer(self, scope: Scope, receive: Receive, wire: Wire) -> None:
        asked = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if "if-match" in asked and not is_named(self._tag, asked["if-match"], weakly=False):
            await self._head(wire, HTTPStatus.PRECONDITION_FAILED, 0)
            return
        if is_named(self._tag, asked.get("if-none-match"), weakly=True):
            await self._head(wire, HTTPStatus.NOT_MODIFIED, None)
            return
        try:
            part = wanted_part(self._file.size, self._tag, asked.get("range"), asked.get("if-range"))
        except Unsatisfiable:
            beyond = f"bytes */{self._file.size}"
            await self._head(wire, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, {"content-range": beyond})
            return
        status, more = HTTPStatus.OK, dict[str, str]()
        if not part.is_whole:
            status = HTTPStatus.PARTIAL_CONTENT
            more = {"content-range": f"bytes {part.start}-{part.end - 1}/{self._file.size}"}
        is_head = scope["method"] == "HEAD"
        await self._head(wire, status, part.end - part.start, more, is_over=is_head)
        if not is_head:
            await self._body(wire, receive, part)

    async def _head(
        self,
        wire: Wire,
        status: HTTPStatus,
        length: int | None,
        more: dict[str, str] | None = None,
        *,
        is_over: bool = True,
    ) -> None:
        headers = {
            "etag": self._tag,
            "accept-ranges": "bytes",
            "cache-control": "private, no-store, no-transform",
            "date": formatdate(self._clock.now().timestamp(), usegmt=True),
            "content-type": content_type(self._file.name),
            "content-disposition": attachment(self._file.name),
            **(more or {}),
        }
        if length is not None:
            headers["content-length"] = str(length)
        await wire.start(status, [(name.encode(), value.encode("latin-1")) for name, value in headers.items()])
        if is_over:
            await wire.end()

    async def _body(self, wire: Wire, receive: Receive, part: Part) -> None:
        sending = asyncio.create_task(self._send(wire, part))
        going = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait({sending, going}, return_when=asyncio.FIRST_COMPLETED)
            if not going.done():
                sending.result()
        except (ClientStuck, OSError):
            wire.abort()  # an answer that ends early must not look whole
        finally:
            for task in (sending, going):
                task.cancel()
            await asyncio.gather(sending, going, return_exceptions=True)

    async def _send(self, wire: Wire, part: Part) -> None:
        async for content in self._chunks(part):
            await wire.write([content])
        await wire.end()

    async def _chunks(self, part: Part) -> AsyncIterator[bytes]:
        at = part.start
        while at < part.end:
            content = await asyncio.to_thread(self._file.read, min(_CHUNK, part.end - at), at)
            if not content:
                raise OSError("the file became shorter")
            at += len(content)
            yield content


def content_type(name: str) -> str:
    """Return the media type that a file's ending says."""
    return _TYPES.get(PurePath(name).suffix.lower(), "application/octet-stream")


def attachment(name: str) -> str:
    """Return a Content-Disposition that saves under the name, whatever characters it has (RFC 6266)."""
    plain = "".join(character if 32 <= ord(character) < 127 and character not in '"\\%' else "_" for character in name)  # noqa: PLR2004 (printable ASCII)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
