"""A part of the daemon, as its main thread sees it."""

from __future__ import annotations

from typing import Protocol


class Part(Protocol):
    """What the main thread watches."""

    name: str

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        ...
