"""What pydantic found, as problems of the config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchd.config.problems import Path_, Problems
from batchd.jobs.fault_words import fault_text

_NONE: Mapping[str, Iterable[str]] = {}


def add_fault(problems: Problems, path: Path_, fault: ErrorDetails, names: Iterable[str]) -> None:
    """Note one fault at `path`, unless something is known to be wrong there: this is then its consequence."""
    if problems.has(path):
        return
    if fault["type"] == "extra_forbidden":
        problems.add(path, fault_text(fault), names=names)
    elif fault["type"] in {"literal_error", "enum"} and isinstance(fault["input"], str):
        problems.add_named(path, fault_text(fault), fault["input"], _words(fault))
    else:
        problems.add(path, fault_text(fault))


def add_faults(
    problems: Problems,
    path: Path_,
    error: ValidationError,
    names: Iterable[str],
    inner: Mapping[str, Iterable[str]] = _NONE,
) -> None:
    """Note every fault of a model that stands at `path`; `names` are its keys, `inner` those of its tables."""
    for fault in error.errors(include_url=False):
        place = tuple(str(part) for part in fault["loc"])
        add_fault(problems, (*path, *place), fault, inner.get(place[0], names) if len(place) > 1 else names)


def _words(fault: ErrorDetails) -> list[str]:
    """Return the words of "'a', 'b' or 'c'"."""
    return str(fault.get("ctx", {}).get("expected", "")).split("'")[1::2]
