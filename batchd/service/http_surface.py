"""The HTTP surface as the daemon sees it: a process of its own; `batchd.web` is imported only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from batchd.config.load import Config
from batchd.config.param_names import remember_names
from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.domain.surface import Phase
from batchd.errors import ExposedWithoutToken
from batchd.store import migrate


class Web(Protocol):
    """What the daemon does with it."""

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


class Errand(Protocol):
    """Work in a process that was forked for it; see `batchd.web.errand`."""

    def done(self) -> bool:
        """Have it done; return whether it was."""
        ...

    def drop(self) -> None:
        """Let it be."""
        ...


def bring_up_to_date(store: Database, config: Config, errand: Errand | None) -> bool:
    """Bring the store's tables to this version, by the errand if there is one; return whether that was needed.

    The errand also tells the store the names of the kinds, where they have changed. What it does not bring to a good
    end is done by the daemon itself, which tells what is wrong.
    """
    if errand is None:
        return migrate.migrate(store)
    is_behind = migrate.is_behind(store)
    if is_behind or not remember_names(store, config.kinds, config.settings.queues):
        errand.done()
    errand.drop()
    return migrate.migrate(store) or is_behind


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
