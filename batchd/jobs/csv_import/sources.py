"""Where the bytes come from: a file, an HTTP server, standard input."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.csv_import.content import RawSource

STDIN = "-"
_HTTP = ("http://", "https://")
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_MOST_REDIRECTS = 5
_OK = 200
_RETRIED_LATER = frozenset({408, 425, 429})
_SERVER_FAULT = 500
_SHOWN_OF_ANSWER = 200


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A source before it is opened: a path, a URL without secrets or "-"; for a file also what tells it unchanged."""

    name: str
    size: int | None = None
    modified_ns: int | None = None
    inode: int | None = None

    def as_json(self) -> JsonObject:
        """Return it for a checkpoint."""
        return {"name": self.name, "size": self.size, "modified_ns": self.modified_ns, "inode": self.inode}


def is_url(name: str) -> bool:
    """Whether the name of a source is that of an HTTP server's."""
    return name.lower().startswith(_HTTP)


def without_secrets(name: str) -> str:
    """Return the name of a source for messages: a URL without user, password and query."""
    if not is_url(name):
        return name
    parts = urlsplit(name)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def facts_of(path: Path) -> FileFacts:
    """Return the facts of a file; raises JobError when there is none that may be read."""
    try:
        found = path.stat()
    except OSError as error:
        raise JobError(
            f"{path}: {error.strerror}", hint="is the path right, and relative to the config's folder?"
        ) from error
    return FileFacts(str(path), found.st_size, found.st_mtime_ns, found.st_ino)


def open_source(name: str, headers: Mapping[str, str]) -> RawSource:
    """Open a path, a URL or "-"; raises JobError. A file stays locked against other imports until `close`."""
    if is_url(name):
        return HttpSource(name, headers)
    if name == STDIN:
        return FileSource(os.fdopen(os.dup(0), "rb", buffering=0), "standard input", None)
    try:
        file = Path(name).open("rb", buffering=0)  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise JobError(f"{name}: {error.strerror}", hint="may the daemon's user read it?") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise JobError(f"{name} is being imported by somebody else") from error
    return FileSource(file, name, os.fstat(file.fileno()).st_size)


class FileSource:
    """A file, or standard input. See `RawSource`."""

    def __init__(self, file: BinaryIO, name: str, size: int | None) -> None:
        self.name = name
        self.size = size
        self.position = 0
        self.can_seek = size is not None
        self._file = file

    def read(self, size: int) -> bytes:
        """See `RawSource`."""
        try:
            data = self._file.read(size) or b""
        except OSError as error:
            raise JobError(f"{self.name} cannot be read: {error.strerror}") from error
        self.position += len(data)
        return data

    def seek(self, offset: int) -> None:
        """See `RawSource`."""
        self.position = self._file.seek(offset)

    def close(self) -> None:
        """See `RawSource`."""
        self._file.close()


class HttpSource:
    """The answer to one GET, as it comes in. See `RawSource`."""

    can_seek = False

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        # A daemon that fetches nothing need not hold them in memory.
        import httpx2  # noqa: PLC0415

        from batchd.jobs.http.trust import trusted  # noqa: PLC0415

        self.name = without_secrets(url)
        self.position = 0
        self._error = httpx2.HTTPError
        self._waiting = b""
        self._client = httpx2.Client(
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            timeout=httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            verify=trusted(),
        )
        try:
            # Packed on the way, the bytes that come would not be those that Content-Length counts.
            wanted = self._client.build_request("GET", url, headers={**headers, "Accept-Encoding": "identity"})
            self._answer = self._client.send(wanted, stream=True)
            self._refuse_faults()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            self._client.close()
            raise JobError(f"{self.name} cannot be fetched: {str(error) or type(error).__name__}") from error
        except JobError:
            self._client.close()
            raise
        length = self._answer.headers.get("Content-Length", "")
        self.size = int(length) if length.isdecimal() else None
        self._parts = self._answer.iter_raw(64 * 1024)

    def read(self, size: int) -> bytes:
        """See `RawSource`."""
        try:
            while not self._waiting:
                part = next(self._parts, None)
                if part is None:
                    return b""
                self._waiting = part
        except (self._error, OSError, RuntimeError) as error:
            raise JobError(f"{self.name} broke off after {self.position:,} bytes: {error}") from error
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        self.position += len(data)
        return data

    def seek(self, offset: int) -> None:
        """Never called: `can_seek` is False."""
        raise NotImplementedError(offset)

    def close(self) -> None:
        """See `RawSource`."""
        with suppress(self._error, OSError, RuntimeError):
            self._answer.close()
            self._client.close()

    def _refuse_faults(self) -> None:
        status = self._answer.status_code
        if status != _OK:
            begin = self._answer.read()[:_SHOWN_OF_ANSWER].decode(errors="replace")
            raise JobError(
                f"{self.name} answered {status}: {' '.join(begin.split())}",
                retryable=status in _RETRIED_LATER or status >= _SERVER_FAULT,
            )
        kind = self._answer.headers.get("Content-Type", "")
        if kind.startswith("text/html"):
            raise JobError(
                f"{self.name} answered with a web page, not with a CSV file",
                hint="does it ask for a login? Give it `headers`",
                retryable=False,
            )
