"""Compression while writing. What is packed in frames can be cut after any of them and appended to."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
_GZIP_HEADER = 16


class Packer(Protocol):
    """Turns plain bytes into packed ones."""

    def pack(self, data: bytes) -> bytes:
        """Return what of it can be written already."""
        ...

    def end_frame(self) -> bytes:
        """Return the rest; what comes next is a frame of its own, and both together are one ordinary file."""
        ...


class Plain:
    """No compression."""

    def pack(self, data: bytes) -> bytes:
        """Return the data."""
        return data

    def end_frame(self) -> bytes:
        """Return nothing: every place is one to go on from."""
        return b""


class Gzip:
    """Members of a .gz file, without a time in them, so that equal rows make equal files."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._member = self._new()
        self._is_empty = True

    def pack(self, data: bytes) -> bytes:
        """See `Packer`."""
        self._is_empty = False
        return self._member.compress(data)

    def end_frame(self) -> bytes:
        """See `Packer`."""
        rest = b"" if self._is_empty else self._member.flush()
        self._member = self._new()
        self._is_empty = True
        return rest

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(self._level, zlib.DEFLATED, zlib.MAX_WBITS + _GZIP_HEADER)


class Zstd:
    """Frames of a .zst file, with checksums."""

    def __init__(self, level: int) -> None:
        import zstandard  # noqa: PLC0415 (few files need it)

        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._frame: Any = None

    def pack(self, data: bytes) -> bytes:
        """See `Packer`."""
        if self._frame is None:
            self._frame = self._compressor.compressobj()
        packed: bytes = self._frame.compress(data)
        return packed

    def end_frame(self) -> bytes:
        """See `Packer`."""
        rest: bytes = b"" if self._frame is None else self._frame.flush()
        self._frame = None
        return rest


def packer(compression: str | None, level: int) -> Packer:
    """Return the packer of that name; None is no compression."""
    match compression:
        case "gzip":
            return Gzip(level)
        case "zstd":
            return Zstd(level)
    return Plain()
