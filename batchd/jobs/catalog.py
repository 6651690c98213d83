"""The kinds of jobs: batchd's own, found by looking into `batchd.jobs.kinds`, and those of other packages.

A kind is imported when somebody asks for it by name, so that a daemon, or a command, pays only for the kinds that its
config has.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batchd import __version__
from batchd.errors import BatchdError
from batchd.jobs import kinds as built_in
from batchd.jobs.contract import Kind

ENTRY_POINTS = "batchd.kinds"


class Kinds(Mapping[str, Kind[Any]]):
    """Every kind by its name. A lookup imports the kind, and raises BatchdError when it cannot be loaded.

    Any thread may use it. A built-in kind is named as its module is, another as its entry point is.
    """

    def __init__(self, modules: Mapping[str, str], others: Mapping[str, EntryPoint]) -> None:
        self._modules = modules
        self._others = others
        self._loaded: dict[str, Kind[Any]] = {}

    def __getitem__(self, name: str) -> Kind[Any]:
        """Return the kind; raises KeyError when there is none of that name."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a kind of that name, without importing it."""
        return name in self._modules or name in self._others

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        yield from self._modules
        yield from self._others

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._modules) + len(self._others)

    def fingerprint(self) -> str:
        """Return a text that changes when a kind comes, goes, or may have changed; imports none of them."""
        facts: list[object] = [__version__]
        for name, module in sorted(self._modules.items()):
            spec = find_spec(module)
            status = Path(spec.origin).stat() if spec is not None and spec.origin else None
            facts.append((name, status and (status.st_mtime_ns, status.st_size)))
        for name, entry in sorted(self._others.items()):
            facts.append((name, entry.value, entry.dist and entry.dist.version))
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def _load(self, name: str) -> Kind[Any]:
        if name in self._modules:
            found, origin = importlib.import_module(self._modules[name]).KIND, self._modules[name]
        else:
            entry = self._others[name]
            origin = entry.value
            try:
                found = entry.load()
            except Exception as error:
                raise BatchdError(f"the kind {name!r} of {origin} cannot be loaded: {error}") from error
        if not isinstance(found, Kind):
            raise BatchdError(f"{origin} is not a Kind; see batchd.jobs.contract")
        if found.name != name:
            raise BatchdError(f"the kind of {origin} calls itself {found.name!r}, and is registered as {name!r}")
        return found


@functools.cache
def kinds() -> Kinds:
    """Return every kind that is installed; raises BatchdError when two share a name."""
    modules = {module.name: f"{built_in.__name__}.{module.name}" for module in pkgutil.iter_modules(built_in.__path__)}
    others: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in modules or entry.name in others:
            raise BatchdError(f"two packages bring a kind named {entry.name!r}; one of them is {entry.value}")
        others[entry.name] = entry
    return Kinds(modules, others)
