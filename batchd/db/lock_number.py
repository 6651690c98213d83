"""The number by which PostgreSQL knows a lock of batchd's; others may take advisory locks in the same database."""

from __future__ import annotations

import zlib

_OURS = 0x62746368


def lock_number(name: str) -> int:
    """Return the number of the lock that `Dialect.lock_for_transaction` takes by that name."""
    return (_OURS << 32) | zlib.crc32(name.encode())
