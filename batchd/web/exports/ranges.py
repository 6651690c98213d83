"""What part of a file a request wants, and whether it wants it at all (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'\s*(W/)?("[^"]*")\s*(?:,|$)', re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes from `start` up to but not including `end`; `is_whole` when nobody asked for a part."""

    start: int
    end: int
    is_whole: bool


class Unsatisfiable(Exception):
    """The part lies outside the file."""


def wanted_part(size: int, tag: str, range_header: str | None, if_range: str | None) -> Part:
    """Return the part; the whole file when none is wanted, several are, or the part is of another version.

    Raises Unsatisfiable. A Range that makes no sense is ignored, as the RFC has it; several ranges may be.
    """
    whole = Part(0, size, is_whole=True)
    if range_header is None or (if_range is not None and if_range.strip() != tag):
        return whole
    found = _RANGE.fullmatch(range_header.strip())
    if found is None or found[1] == found[2] == "":
        return whole
    if max(len(found[1]), len(found[2])) > 19:  # noqa: PLR2004 (digits of the largest file there can be)
        raise Unsatisfiable
    if found[1] == "":
        last = min(int(found[2]), size)
        if last == 0:
            raise Unsatisfiable
        return Part(size - last, size, is_whole=False)
    start = int(found[1])
    end = size if found[2] == "" else min(int(found[2]) + 1, size)
    if found[2] != "" and int(found[2]) < start:
        return whole
    if start >= size:
        raise Unsatisfiable
    return Part(start, end, is_whole=False)


def is_named(tag: str, header: str | None, *, weakly: bool) -> bool:
    """Whether If-Match or If-None-Match names the tag, or every tag with `*`."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return any(found[2] == tag and (weakly or not found[1]) for found in _TAG.finditer(header))
