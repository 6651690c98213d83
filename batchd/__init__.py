"""batchd runs batch jobs against the SQL database that a team already has.

What an application needs of it stands here. Each name is imported when it is first used, so that `import batchd` costs
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchd.errors import Discard as Discard
    from batchd.errors import JobError as JobError
    from batchd.errors import Retry as Retry
    from batchd.errors import RunInterrupted as RunInterrupted
    from batchd.errors import Snooze as Snooze
    from batchd.jobs.contract import JobContext as JobContext
    from batchd.jobs.python.decorated import job as job
    from batchd.jobs.python.enqueuing import configure as configure
    from batchd.store.enqueue import NewRun as NewRun

__version__ = "0.1.0"

_EXPORTS = {
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
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
