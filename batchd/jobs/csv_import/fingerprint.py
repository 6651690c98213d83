"""Whether the part of a source that was imported before is still what it was.

A hash over blocks, chained, so that a run which goes on in the middle of a file need not read its beginning: the chain
at the last full block is in the checkpoint, and the bytes from there to the resume point are read and compared.
"""

from __future__ import annotations

from hashlib import blake2b

BLOCK = 1 << 20
_SIZE = 16


class Fingerprint:
    """A running hash of the bytes so far. For one thread."""

    def __init__(self, size: int = 0, chain: bytes = b"") -> None:
        self._size = size
        self._chain = chain
        self._block = blake2b(digest_size=_SIZE)

    @property
    def size(self) -> int:
        """How many bytes it covers."""
        return self._size

    @property
    def chain(self) -> str:
        """The hash of all full blocks, for `Fingerprint(size of those blocks, chain)`."""
        return self._chain.hex()

    @property
    def digest(self) -> str:
        """The hash of everything so far."""
        return blake2b(self._chain + self._block.digest(), digest_size=_SIZE).hexdigest()

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: BLOCK - self._size % BLOCK]
            self._block.update(part)
            self._size += len(part)
            view = view[len(part) :]
            if self._size % BLOCK == 0:
                self._chain = blake2b(self._chain + self._block.digest(), digest_size=_SIZE).digest()
                self._block = blake2b(digest_size=_SIZE)
