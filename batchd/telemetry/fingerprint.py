"""One short text for errors that are the same: to count them, and to find all of them."""

from __future__ import annotations

import hashlib
import re

_FRAME = re.compile(r'File "(?:[^"]*/)?([^"/]+)", line \d+, in (\S+)')
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\d+", re.IGNORECASE)
_INNERMOST_FRAMES = 5


def fingerprint(error_type: str, message: str, stack: str | None) -> str:
    """Return a text of 12 hex digits: the same for errors of one type from the same place.

    The place is the innermost functions of the stack, whatever line; without a stack it is the message without its
    numbers and quoted parts.
    """
    frames = _FRAME.findall(stack or "")[-_INNERMOST_FRAMES:]
    place = repr(frames) if frames else _VARYING.sub("?", message)
    return hashlib.sha256(f"{error_type}|{place}".encode("utf-8", "replace")).hexdigest()[:12]
