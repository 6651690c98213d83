"""What an HTTP source hands on: whole answers, and what they cost. Needs no HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

_NO_CONTENT = 204
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `body` is at its beginning."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: IO[bytes]
    size: int

    @property
    def is_not_modified(self) -> bool:
        """Whether there is no body, since the last one still holds."""
        return self.status == _NOT_MODIFIED

    @property
    def is_empty_on_purpose(self) -> bool:
        """Whether the server says that there is nothing, instead of just sending nothing."""
        return self.status == _NO_CONTENT


@dataclass(slots=True)
class Spent:
    """What was asked and received."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
