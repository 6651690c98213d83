"""A source's content as plain bytes, unpacked where it is packed, from any offset, with its fingerprint."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from batchd.errors import JobError
from batchd.jobs.csv_import.fingerprint import BLOCK, Fingerprint

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PACKED_READ = 4 * 1024
"""A packed byte can stand for thousands: what one read unpacks must stay small."""
_SKIP = 256 * 1024


class RawSource(Protocol):
    """Bytes as they lie there or come in."""

    name: str
    """For messages: a path, or a URL without its secrets."""

    @property
    def size(self) -> int | None:
        """How many bytes there are; None where nobody says."""
        ...

    @property
    def position(self) -> int:
        """How many were read."""
        ...

    @property
    def can_seek(self) -> bool:
        """Whether `seek` works."""
        ...

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end; raises JobError."""
        ...

    def seek(self, offset: int) -> None:
        """Go to an offset."""
        ...

    def close(self) -> None:
        """Give it back; any thread may call it."""
        ...


@dataclass(frozen=True, slots=True)
class Resume:
    """Where the last committed chunk ended: an offset of the content, and the fingerprint up to there."""

    offset: int
    chain: str
    digest: str


class Content:
    """The plain bytes of a source from its beginning, or from a resume point. For one thread."""

    def __init__(self, raw: RawSource, resume: Resume | None = None, *, is_unchanged: bool = False) -> None:
        self.raw = raw
        self._peeked = raw.read(len(_ZSTD))
        self._unpacked = self._unpacker()
        self._ahead = io.BytesIO()
        self._unsealed: list[bytes] = []
        self._fingerprint = Fingerprint()
        if resume is not None:
            self._go_to(resume, is_unchanged=is_unchanged)

    @property
    def is_packed(self) -> bool:
        """Whether the source is compressed, so that it can only be read from its beginning."""
        return self._unpacked is not None

    def read_bytes_at(self, offset: int) -> int:
        """Return how much of the source an offset of the content stands for; about, where it is packed."""
        return self.raw.position if self.is_packed else offset

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes from the beginning without reading them; call it first."""
        found = bytearray()
        while len(found) < size and (part := self._next(size - len(found))):
            found += part
        self._ahead = io.BytesIO(bytes(found))
        return bytes(found)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end; raises JobError for a source that is cut or damaged."""
        data = self._ahead.read(size) or self._next(size)
        if data:
            self._unsealed.append(data)
        return data

    def sealed_at(self, offset: int) -> Resume:
        """Return a resume point at an offset that was read and is not before the last one."""
        while self._unsealed and self._fingerprint.size < offset:
            data = self._unsealed[0]
            wanted = offset - self._fingerprint.size
            if len(data) > wanted:
                self._unsealed[0] = data[wanted:]
                data = data[:wanted]
            else:
                self._unsealed.pop(0)
            self._fingerprint.update(data)
        return Resume(offset, self._fingerprint.chain, self._fingerprint.digest)

    def _go_to(self, resume: Resume, *, is_unchanged: bool) -> None:
        """Go behind the last chunk: at once in a file that nobody touched, else by reading all that lies before."""
        if is_unchanged and not self.is_packed and self.raw.can_seek:
            block = resume.offset - resume.offset % BLOCK
            self.raw.seek(block)
            self._peeked = b""
            self._fingerprint = Fingerprint(block, bytes.fromhex(resume.chain))
        while self._fingerprint.size < resume.offset:
            data = self._next(min(_SKIP, resume.offset - self._fingerprint.size))
            if not data:
                break
            self._fingerprint.update(data)
        if (self._fingerprint.size, self._fingerprint.digest) != (resume.offset, resume.digest):
            raise JobError(
                f"{self.raw.name} is not what it was when its first {resume.offset:,} bytes were imported",
                hint="what was imported stays; start a new run for the new content",
                retryable=False,
            )

    def _next(self, size: int) -> bytes:
        if self._unpacked is None:
            return self._raw_read(size)
        try:
            return self._unpacked(size)
        except (EOFError, OSError, zlib.error) as error:
            raise self._damaged(str(error)) from error

    def _raw_read(self, size: int) -> bytes:
        data, self._peeked = self._peeked[:size], self._peeked[size:]
        return data or self.raw.read(size)

    def _unpacker(self) -> Callable[[int], bytes] | None:
        if self._peeked.startswith(_GZIP):
            return gzip.GzipFile(fileobj=io.BufferedReader(_RawReader(self._raw_read), _PACKED_READ)).read1
        if self._peeked == _ZSTD:
            unpacked = self._zstandard()
            waiting = bytearray()

            def read(size: int) -> bytes:
                while not waiting:
                    part = next(unpacked, None)
                    if part is None:
                        return b""
                    waiting.extend(part)
                data = bytes(waiting[:size])
                del waiting[:size]
                return data

            return read
        return None

    def _zstandard(self) -> Iterator[bytes]:
        """Yield what the frames hold; the library's own reader takes a file that is cut for one that ends."""
        import zstandard  # noqa: PLC0415 (only such a file needs it)

        unpacker = None
        data = b""
        while data or (data := self._raw_read(_PACKED_READ)):
            if unpacker is None:
                unpacker = zstandard.ZstdDecompressor().decompressobj()
            try:
                yield unpacker.decompress(data)
            except zstandard.ZstdError as error:
                raise self._damaged(str(error)) from error
            data = unpacker.unused_data
            if unpacker.eof:
                unpacker = None
        if unpacker is not None:
            raise self._damaged("it ends in the middle of a frame")

    def _damaged(self, said: str) -> JobError:
        return JobError(
            f"{self.raw.name} cannot be unpacked: {said}", hint="is it complete, and not still being written?"
        )


class _RawReader(io.RawIOBase):
    """A file object over a read function, for gzip."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._source = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._source(len(view))
        view[: len(data)] = data
        return len(data)
