"""What a start has to do once for each version of batchd: tables, and the names of what there is."""

from __future__ import annotations

from typing import Protocol

from batchd.config.load import Config
from batchd.config.param_names import register_names, remember_names
from batchd.db.engine import Database
from batchd.fork import Errand, may_fork
from batchd.store import migrate


class Work(Protocol):
    """The first work, ready to be done in a process that was forked for it; see `batchd.fork.Errand`."""

    def done(self) -> bool:
        """Have it done; return whether it was."""
        ...

    def drop(self) -> None:
        """Let it be."""
        ...


def first_work(config: Config) -> Work | None:
    """Return the first work in a process of its own, which it takes along when it ends; None where none can be forked.

    Alembic would stay as 10 MB of the daemon for as long as that runs, and all the kinds, of which most configs have a
    few, as 6 MB. For the main thread, before it connects to the store.
    """
    try:
        return Errand(lambda: _do_first_work(config)) if may_fork() else None
    except OSError:  # no memory or no process to spare, or no /proc to look into
        return None


def bring_up_to_date(store: Database, config: Config, work: Work | None) -> bool:
    """Bring the store's tables to this version, by the forked process if there is one; return whether that was needed.

    That process also tells the store the names of the kinds, where they have changed. What it does not bring to a good
    end is done by the daemon itself, which tells what is wrong.
    """
    if work is None:
        return migrate.migrate(store)
    is_behind = migrate.is_behind(store)
    if is_behind or not remember_names(store, config.kinds, config.settings.queues):
        work.done()
    work.drop()
    return migrate.migrate(store) or is_behind


def _do_first_work(config: Config) -> None:
    store = Database(config.store)
    migrate.migrate(store)
    register_names(store, config.kinds, config.settings.queues)
