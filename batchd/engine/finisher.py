"""Records endings in batches, through outages of the store: an ending is never dropped because the store is away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.domain.attempt import AttemptError, AttemptOutcome, Decision
from batchd.domain.run import Reason, RunState
from batchd.engine.running import InHand
from batchd.errors import DatabaseUnavailable, LockTimeout, StatementCancelled
from batchd.loop import Loop
from batchd.store.finish import Ending, finish
from batchd.store.release import release
from batchd.telemetry.thinning import Thinning

_BATCH = 200
_GATHER_SECONDS = 0.05
_IDLE = timedelta(seconds=60)
_LATER = (DatabaseUnavailable, LockTimeout, StatementCancelled)


class Finisher(Loop):
    """Writes endings; `add` may be called from any thread and never blocks.

    `on_recorded` is called on the finisher's thread with the endings of a batch that counted. `is_storm` says whether
    the threads have enough to go on with: then nobody waits for an ending, and a larger batch costs each run half.
    """

    def __init__(
        self,
        store: Database,
        in_hand: InHand,
        on_recorded: Callable[[Sequence[Ending]], None],
        clock: Clock,
        *,
        is_storm: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__("finisher", clock)
        self._store = store
        self._in_hand = in_hand
        self._on_recorded = on_recorded
        self._is_storm = is_storm
        self._endings: deque[Ending] = deque()
        self._delay = Thinning()

    def add(self, ending: Ending) -> None:
        """Record the ending soon."""
        self._endings.append(ending)
        self.wake()

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Record what has come to an end; what cannot be written now stays and is tried again."""
        while self._endings:
            self._gather()
            batch = [self._endings[index] for index in range(min(_BATCH, len(self._endings)))]
            try:
                self._record(batch)
            except _LATER as error:
                if self._delay.failed(self._clock.monotonic()):
                    runs, failures = len(self._endings), self._delay.count
                    self._log.warning("finish.delayed", runs=runs, failures=failures, reason=str(error))
                return timedelta(seconds=1)
            self._delay.recovered(self._clock.monotonic())
            for _ in batch:
                self._endings.popleft()
        return _IDLE

    def _gather(self) -> None:
        """Let more endings come in a storm, unless another run may wait for one of these to be recorded."""
        if len(self._endings) < _BATCH and self._is_storm():
            if any(ending.claim.is_waited_for for ending in tuple(self._endings)):
                return
            self._stopping.wait(_GATHER_SECONDS)

    def _record(self, batch: list[Ending]) -> None:
        try:
            self._write(batch)
        except _LATER:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this ending's)
            if len(batch) == 1:
                self._write([_unrecordable(batch[0], error)])
                return
            # One ending that the store refuses must not hold the others up.
            for ending in batch:
                self._record([ending])

    def _write(self, batch: list[Ending]) -> None:
        given_back = [ending.claim for ending in batch if _is_given_back(ending)]
        release(self._store, given_back)
        ended = [ending for ending in batch if not _is_given_back(ending)]
        recorded = finish(self._store, ended) if ended else ()
        self._in_hand.remove([ending.claim for ending in batch])
        self._on_recorded(recorded)
        ours = {ending.claim.run_id for ending in recorded}
        for ending in ended:
            if ending.claim.run_id not in ours:
                self._log.warning("lease.lost", fence=ending.claim.fence, **ending.claim.log_fields)


def _is_given_back(ending: Ending) -> bool:
    """Return whether the run goes back untouched. A lost one, too: if the fence still matches, nobody else has it."""
    if ending.decision.reason is Reason.SNOOZED:  # given back for later: the store's `finish` knows when
        return False
    return ending.outcome in {AttemptOutcome.RELEASED, AttemptOutcome.LOST}


def _unrecordable(ending: Ending, error: Exception) -> Ending:
    message = f"the run ended as {ending.outcome.value}, but the store refused its record: {error}"[:2000]
    return replace(
        ending,
        outcome=AttemptOutcome.FAILED,
        decision=Decision(RunState.FAILED, Reason.ERROR, None),
        result=None,
        error=AttemptError(type(error).__name__, message.replace("\x00", ""), None),
    )
