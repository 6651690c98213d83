"""Acting as a user who may not read everything, also where the tests run as root."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager

_NOBODY = 65_534
_ENCODINGS = ("utf-8-sig", "utf-16", "latin-1", "ascii", "idna")


@contextmanager
def without_root() -> Iterator[None]:
    """Give up root's rights in this process for the length of the block; nothing happens to anybody else."""
    if os.geteuid() != 0:
        yield
        return
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)  # imports it now: Python remembers for good what it could not import, without rights
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
