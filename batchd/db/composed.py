"""Statements that are put together once: to put one together anew takes SQLAlchemy longer than SQLite to answer it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

S = TypeVar("S")


class Composed:
    """The statements of one dialect, by what puts them together. Any thread may call any method."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._ids: set[int] = set()

    def once(self, make: Callable[..., S], *given: Any) -> S:
        """Return `make(*given)`, the same object each time; what differs between two calls goes in as parameters."""
        key = (make, given)
        found: S | None = self._made.get(key)
        if found is None:
            found = self._made.setdefault(key, make(*given))  # two threads may make it, and one of them is kept
            self._ids.add(id(found))
        return found

    def has(self, statement: object) -> bool:
        """Return whether it is one of these, which live as long as this does."""
        return id(statement) in self._ids
