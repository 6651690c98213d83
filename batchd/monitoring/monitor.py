"""`batchd.monitor`: a script reports its run.

with batchd.monitor("nightly-backup", metadata={"host": "db1"}) as run:
    for number, table in enumerate(tables):
        dump(table)
        run.progress(number + 1, len(tables), table)
    run.result["bytes"] = written
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import ContextDecorator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchd.domain.attempt import AttemptError
from batchd.domain.run import RunState
from batchd.monitoring.places import Place, open_place
from batchd.monitoring.recorder import Recorder
from batchd.store.reported import ReportedEnd

_LONGEST_STACK = 16_000
_LONGEST_MESSAGE = 8_000
_LONGEST_NAME = 100


class MonitoredRun:
    """The run while it goes on. Any thread may call its methods; none of them raises for what the store does.

    `result` is kept with the run: put small JSON into it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.result: dict[str, Any] = {}
        self._recorder = recorder

    @property
    def run_id(self) -> int | None:
        """The run's id in the ledger; None while its beginning is not on record."""
        return self._recorder.run_id

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody has asked for its end with `batchd cancel`: whether it obeys is the script's matter."""
        return self._recorder.cancel_requested.is_set()

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """Say how far the run is. Cheap: it is written at most about once a second."""
        self._recorder.progress(done, total, note)

    def log(self, text: str, *, level: str = "info", **fields: Any) -> None:
        """Keep a line, for `batchd show`: the first 200 and the last 300 of a run are kept."""
        self._recorder.line(text, level=level, **fields)


class Monitor(ContextDecorator):
    """What `monitor` returns: a context manager, and a decorator for a function whose every call is a run."""

    def __init__(self, job: str, params: Mapping[str, Any], open_place: Callable[[], Place]) -> None:
        self._job = job
        self._params = dict(params)
        self._open_place = open_place
        self._recorder: Recorder | None = None
        self._run: MonitoredRun | None = None

    def __enter__(self) -> MonitoredRun:
        self._recorder = Recorder(self._job, self._params, self._open_place)
        self._run = MonitoredRun(self._recorder)
        self._recorder.start()
        return self._run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        recorder, run = self._recorder, self._run
        if recorder is None or run is None:
            return
        failure = None if error is None else _failure_of(error)
        state = RunState.SUCCEEDED if failure is None else RunState.FAILED
        if failure is not None and run.cancel_requested:
            state = RunState.CANCELLED  # it was asked to end, and ended
        recorder.finish(ReportedEnd(state, failure, dict(run.result)))

    def _recreate_cm(self) -> Self:
        """Give each call of a decorated function a run of its own."""
        return type(self)(self._job, self._params, self._open_place)


def monitor(
    job: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    store: str | None = None,
    config: str | Path | None = None,
) -> Monitor:
    """Record what happens in the block as a run of `job`: begin, progress, end, failure, and its death.

        with batchd.monitor("nightly-backup", metadata={"host": "db1"}) as run:
            run.progress(1, 10)

    The block's exception is recorded and goes on its way; SystemExit with 0 or nothing is a success. The store is
    `store` (a URL), else that of the `config` file, else $BATCHD_STORE_URL, else that of the usual config. When it
    cannot be reached, the block runs all the same and stderr says that it is not recorded. `job` need not stand in any
    config; one that batchd itself runs is refused (on stderr). Raises ValueError for a job without a name.
    """
    if not 0 < len(job) <= _LONGEST_NAME:
        raise ValueError(f"a job's name has 1 to {_LONGEST_NAME} characters, not {len(job)}")
    return Monitor(job, metadata or {}, lambda: open_place(store, None if config is None else str(config)))


def _failure_of(error: BaseException) -> AttemptError | None:
    """Return what is recorded; None for an error that means success."""
    if isinstance(error, SystemExit):
        if error.code in {None, 0}:
            return None
        said = f"exit code {error.code}" if isinstance(error.code, int) else str(error.code)
        return AttemptError("SystemExit", said[:_LONGEST_MESSAGE], None)
    message = " ".join(str(error).split()) or type(error).__name__
    stack = "".join(traceback.format_exception(error))[-_LONGEST_STACK:]
    return AttemptError(type(error).__name__, message[:_LONGEST_MESSAGE], stack)
