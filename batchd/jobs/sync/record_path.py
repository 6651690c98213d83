"""Places in a JSON document: `name`, `contact.email`, `tags.0`, `"odd.name".x`."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

_PART = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


class _Missing:
    """Not there, which is not the same as null."""

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()


@functools.cache
def parse_path(text: str) -> tuple[str, ...]:
    """Return the parts of a path; raises ValueError with advice when the text is not one."""
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if match is None:
            raise ValueError(
                f'not a path: {text!r}; write name, outer.inner or list.0, and a name that holds a dot in "quotes"'
            )
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted is not None else plain)
        position = match.end()
        if position == len(text):
            return tuple(parts)
        if text[position] != ".":
            raise ValueError(f"not a path: {text!r}; unexpected {text[position]!r} at character {position + 1}")
        position += 1


def found_at(document: Any, path: tuple[str, ...]) -> Any:
    """Return what is there, or MISSING. A number in a path counts the items of a list, from 0."""
    for part in path:
        if isinstance(document, dict):
            document = document.get(part, MISSING)
        elif isinstance(document, list) and part.isdecimal() and int(part) < len(document):
            document = document[int(part)]
        else:
            return MISSING
    return document
