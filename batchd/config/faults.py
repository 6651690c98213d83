"""What pydantic found, in words for whoever writes a config; the input itself is never shown, it may be a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchd.config.problems import Path_, Problems

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


def fault_text(fault: ErrorDetails, names: Iterable[str] = ()) -> str:
    """Return what is wrong, without the place; `names` are the valid ones for an unknown key."""
    text = _TEXTS.get(fault["type"])
    if text is None:
        return fault["msg"].removeprefix("Value error, ")
    parts = "characters" if isinstance(fault["input"], str) else "entries"
    usual = {"ge": "", "gt": "", "le": "", "lt": "", "expected": "", "parts": parts}
    said = text.format_map({**usual, **fault.get("ctx", {})})
    near = get_close_matches(str(fault["loc"][-1]), list(names), n=1) if fault["type"] == "extra_forbidden" else []
    return f"{said}; did you mean {near[0]!r}?" if near else said


def add_fault(problems: Problems, path: Path_, fault: ErrorDetails, names: Iterable[str]) -> None:
    """Note one fault at `path`, unless something is known to be wrong there: this is then its consequence."""
    if problems.has(path):
        return
    if fault["type"] == "extra_forbidden":
        problems.add(path, _TEXTS["extra_forbidden"], names=names)
    elif fault["type"] in {"literal_error", "enum"} and isinstance(fault["input"], str):
        problems.add_named(path, fault_text(fault), fault["input"], _words(fault))
    else:
        problems.add(path, fault_text(fault))


def add_faults(problems: Problems, path: Path_, error: ValidationError, names: Iterable[str]) -> None:
    """Note every fault of a model that stands at `path`."""
    for fault in error.errors(include_url=False):
        add_fault(problems, (*path, *(str(part) for part in fault["loc"])), fault, names)


def _words(fault: ErrorDetails) -> list[str]:
    """Return the words of "'a', 'b' or 'c'"."""
    return str(fault.get("ctx", {}).get("expected", "")).split("'")[1::2]
