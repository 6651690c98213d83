"""JSON read without losing anything: a decimal number keeps its digits, so that a numeric column gets them all."""

from __future__ import annotations

import json
from typing import Any


class Digits(str):
    """A number with a fraction or an exponent, as it was written."""

    __slots__ = ()


def parse_json(data: str | bytes) -> Any:
    """Return the document, decimals as `Digits`; raises ValueError for what is not JSON, NaN and Infinity included."""
    try:
        return _DECODER.decode(
            data if isinstance(data, str) else data.decode(json.detect_encoding(data), "surrogatepass")
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_text(value: Any) -> str:
    """Return the value as JSON text, `Digits` as the numbers that they are."""
    match value:
        case Digits():
            return str(value)
        case dict():
            return "{" + ", ".join(f"{_dumped(str(name))}: {json_text(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(json_text(inner) for inner in value) + "]"
        case _:
            return _dumped(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Digits, parse_constant=_refused)
"""Made once: `json.loads` makes one for each document."""
