"""What pydantic found in params, in words for whoever wrote them; the input is never shown, it may be a secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchd.domain.quantities import format_duration

_TEXTS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "list_type": 'must be a list, such as ["a", "b"]',
    "path_type": "must be the name of a file",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "must have at least {min_length} {parts}",
}

_SPAN = re.compile(r"datetime\.timedelta\((?:days=(\d+))?(?:, )?(?:seconds=(\d+))?(?:, )?(?:microseconds=(\d+)|0)?\)")
"""How pydantic writes a bound that is a duration."""


def fault_text(fault: ErrorDetails, names: Iterable[str] = ()) -> str:
    """Return what is wrong, without the place; `names` are the valid ones for an unknown key."""
    text = _TEXTS.get(fault["type"])
    if text is None:
        return fault["msg"].removeprefix("Value error, ")
    parts = "characters" if isinstance(fault["input"], str) else "entries"
    usual = {"ge": "", "gt": "", "le": "", "lt": "", "expected": "", "parts": parts}
    said = _SPAN.sub(_as_written, text.format_map({**usual, **fault.get("ctx", {})}))
    near = get_close_matches(str(fault["loc"][-1]), list(names), n=1) if fault["type"] == "extra_forbidden" else []
    return f"{said}; did you mean {near[0]!r}?" if near else said


def faults_text(error: ValidationError, names: Collection[str]) -> str:
    """Return all that is wrong with params in one line, each with its place; `names` are the valid keys."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'params'}: {fault_text(fault, names)}"
        for fault in error.errors(include_url=False)
    )


def _as_written(span: re.Match[str]) -> str:
    days, seconds, microseconds = (int(number or 0) for number in span.groups())
    return format_duration(timedelta(days, seconds, microseconds))
