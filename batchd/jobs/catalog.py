"""The kinds of jobs: batchd's own, found by looking into `batchd.jobs.kinds`, and those of other packages."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from batchd.errors import BatchdError
from batchd.jobs import kinds as built_in
from batchd.jobs.contract import Kind

ENTRY_POINTS = "batchd.kinds"


@functools.cache
def kinds() -> Mapping[str, Kind[Any]]:
    """Return every kind by its name; raises BatchdError when two share a name or one cannot be loaded."""
    found: dict[str, Kind[Any]] = {}
    for module in pkgutil.iter_modules(built_in.__path__):
        _add(found, importlib.import_module(f"{built_in.__name__}.{module.name}").KIND, module.name)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            kind = entry.load()
        except Exception as error:
            raise BatchdError(f"the kind {entry.name!r} of {entry.value} cannot be loaded: {error}") from error
        _add(found, kind, entry.value)
    return MappingProxyType(found)


def _add(found: dict[str, Kind[Any]], kind: object, origin: str) -> None:
    if not isinstance(kind, Kind):
        raise BatchdError(f"{origin} is not a Kind; see batchd.jobs.contract")
    if kind.name in found:
        raise BatchdError(f"two packages bring a kind named {kind.name!r}; one of them is {origin}")
    found[kind.name] = kind
