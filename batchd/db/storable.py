"""What every database takes: PostgreSQL refuses NUL, lone surrogates and NaN where SQLite does not.

Texts come from anywhere (an error that quotes a file's name, a job's result), and a row that the store refuses would
hold up the rows that wait behind it. So whatever a job hands in is made storable before it gets near the store.
"""

from __future__ import annotations

import math
from typing import Any

_LARGEST = 2**63 - 1


def storable_text(text: str) -> str:
    r"""Return the text without NUL, and with lone surrogates (bytes that were not UTF-8) written as `\udce9`."""
    if text.isascii() and "\x00" not in text:  # most are; the way there and back costs twenty times as much
        return text
    return text.replace("\x00", "").encode("utf-8", "backslashreplace").decode("utf-8")


def storable_json(value: Any) -> Any:
    """Return a JSON-like value as JSON that every database takes; what JSON does not know becomes text."""
    if isinstance(value, str):
        return storable_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {storable_text(str(key)): storable_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_json(inner) for inner in value]
    return storable_text(str(value))


def storable_count(count: int) -> int:
    """Return the count, at most what 64 bits hold."""
    return max(-_LARGEST, min(int(count), _LARGEST))
