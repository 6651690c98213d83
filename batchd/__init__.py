"""batchd runs batch jobs against the SQL database that a team already has.

What an application needs of it stands here. Each name is imported when it is first used, so that `import batchd` costs
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchd import retry as retry
    from batchd.client import AsyncClient as AsyncClient
    from batchd.client import Client as Client
    from batchd.client import Enqueued as Enqueued
    from batchd.client import EnqueueRefused as EnqueueRefused
    from batchd.client import RunRequest as RunRequest
    from batchd.errors import Discard as Discard
    from batchd.errors import JobError as JobError
    from batchd.errors import Retry as Retry
    from batchd.errors import RunInterrupted as RunInterrupted
    from batchd.errors import Snooze as Snooze
    from batchd.jobs.contract import JobContext as JobContext
    from batchd.jobs.python.decorated import job as job
    from batchd.jobs.python.enqueuing import configure as configure
    from batchd.listeners import Event as Event
    from batchd.listeners import on as on
    from batchd.monitoring.monitor import monitor as monitor
    from batchd.retry import with_retry as with_retry
    from batchd.store.enqueue import NewRun as NewRun

__version__ = "0.1.0"

_EXPORTS = {
    "AsyncClient": "batchd.client",
    "Client": "batchd.client",
    "EnqueueRefused": "batchd.client",
    "Enqueued": "batchd.client",
    "RunRequest": "batchd.client",
    "Event": "batchd.listeners",
    "monitor": "batchd.monitoring.monitor",
    "on": "batchd.listeners",
    "retry": "batchd.retry",
    "with_retry": "batchd.retry",
    "Discard": "batchd.errors",
    "JobContext": "batchd.jobs.contract",
    "JobError": "batchd.errors",
    "NewRun": "batchd.store.enqueue",
    "Retry": "batchd.errors",
    "RunInterrupted": "batchd.errors",
    "Snooze": "batchd.errors",
    "configure": "batchd.jobs.python.enqueuing",
    "job": "batchd.jobs.python.decorated",
}
"""Where each public name lives. A name has a line here and one above, for type checkers."""


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = import_module(module)
    value = found if module == f"{__name__}.{name}" else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
