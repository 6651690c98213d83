"""The HTTP surface as the daemon sees it: a process of its own; `batchd.web` is imported only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.surface import Phase
from batchd.errors import ExposedWithoutToken


class Web(Protocol):
    """What the daemon does with it."""

    def make_ready(self) -> None:
        """Make the server that `start` forks, without a thread; takes a quarter of a second."""
        ...

    def start(self) -> None:
        """Start the server, unless it was started apart; main thread only, while no other does more than wait."""
        ...

    def start_apart(self) -> None:
        """Start the server as a program of its own, since the store has the start wait."""
        ...

    def watch(self, counted: Callable[[], JsonObject]) -> None:
        """Answer its questions and keep it running."""
        ...

    def beat(self, phase: Phase, *, planned_at: float, renewed_at: float) -> None:
        """Tell it how the daemon is, now: moments of the monotonic clock, 0 for never."""
        ...

    def reload(self) -> None:
        """Have it read the config again."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class NoWeb:
    """Of a daemon without one."""

    def make_ready(self) -> None:
        """There is none."""

    def start(self) -> None:
        """There is none."""

    def start_apart(self) -> None:
        """There is none."""

    def watch(self, counted: Callable[[], JsonObject]) -> None:
        """There is none."""

    def beat(self, phase: Phase, *, planned_at: float, renewed_at: float) -> None:
        """There is none."""

    def reload(self) -> None:
        """There is none."""

    def stop(self) -> None:
        """There is none."""


def require_token(config: Config, store: Database) -> None:
    """Raise ExposedWithoutToken when other machines could reach the HTTP surface and nobody could be let in."""
    http = config.http
    if http is None or not http.is_exposed:
        return
    from batchd.store import tokens  # noqa: PLC0415 (only where others could come in)

    if not tokens.any_valid(store):
        raise ExposedWithoutToken(
            f"[http] listen = {str(http.listen)!r} can be reached from other machines, and there is no token yet",
            hint="make one (`batchd token create NAME --role operator`, after `batchd migrate` on a new store), or "
            "listen on 127.0.0.1",
        )
