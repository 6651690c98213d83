"""One process of a simulated daemon, from start to end: the real loops, turned by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import ConfigDict

from batchd import __version__
from batchd.db.dialect import Topic
from batchd.domain.job import JsonObject
from batchd.engine import attempt
from batchd.engine.attempt import Catalog
from batchd.engine.context import Surroundings
from batchd.engine.finisher import Finisher
from batchd.engine.lease import LeaseKeeper
from batchd.engine.reaper import Reaper
from batchd.engine.running import InHand, RunningAttempt
from batchd.engine.stopper import Stopper
from batchd.engine.worker import Dispatcher, Waiting
from batchd.errors import BatchdError, JobError, StopReason
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.outlook.machine import Machine
from batchd.outlook.workload import Work
from batchd.outlook.world import Event, Turn
from batchd.scheduler.planner import Planner
from batchd.store import leases, ledger, planning, workers
from batchd.store.finish import Ending
from batchd.store.workers import WorkerIdentity

LONGEST_WAIT = timedelta(seconds=15)
"""As the alarm clock's, which notices a stepped clock by it."""

_SHORTEST_WAIT = timedelta(milliseconds=50)
_BACKOFF = timedelta(seconds=1)
_AT_ONCE = timedelta(0)
_A_MOMENT = timedelta(milliseconds=1)


class Slots(Waiting):
    """The worker threads of a simulated daemon, as many as are free; see `Waiting`."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.clock, machine.settings.slots)
        self.free = machine.settings.slots
        self._ahead = machine.fidelity.ahead

    def next_one(self) -> RunningAttempt | None:
        """Return what a free thread takes up, or None."""
        if self.free and self._attempts:
            self.free -= 1
            return self._attempts.popleft()
        return None

    def wanted(self) -> int:
        """See `Waiting`."""
        return self.free + self._ahead - len(self._attempts)

    def idle(self) -> int:
        """See `Waiting`."""
        return self.free - len(self._attempts)


class _AnyParams(Params):
    model_config = ConfigDict(extra="allow", frozen=True)


class _EveryKind(dict[str, Kind[Any]]):
    """Knows every kind, and all of them do the same."""

    def __init__(self, kind: Kind[Any]) -> None:
        super().__init__()
        self._kind = kind

    def get(self, _name: str, _default: Any = None) -> Kind[Any]:
        return self._kind


class SimulatedProcess:
    """Lives from `start` to `end`; `on_gone` is called when it has stopped by itself."""

    def __init__(self, machine: Machine, life: int, on_gone: Callable[[], None]) -> None:
        self.worker = f"{machine.name}-{life}"
        self._machine = machine
        self._on_gone = on_gone
        self._predecessors = [f"{machine.name}-{number}" for number in range(1, life)]
        self._began_at = machine.clock.now()
        self._works: dict[int, Work] = {}
        self._failures: dict[str, int] = {}
        self._is_over = False
        self._is_draining = False
        self._make_parts(machine)
        self._starting = self._turn("start", self._begin)
        self.planning = self._turn("scheduler", self._plan)
        self._dispatching = self._turn("dispatcher", self._dispatch)
        self._finishing = self._turn("finisher", self._finish)
        self._keeping = self._turn("lease-keeper", self._keep)
        self._stopping = self._turn("stopper", self._stop_attempts)
        self._reaping = self._turn("reaper", lambda: self._reaper.run_once(self._clock.now()))

    def _make_parts(self, machine: Machine) -> None:
        clock, store, settings = machine.clock, machine.store, machine.settings
        self._clock, self._store = clock, store
        self._in_hand = InHand(clock)
        self._slots = Slots(machine)
        self._dispatcher = Dispatcher(
            store, settings, self.worker, self._slots, self._in_hand, clock, random=machine.random
        )
        self._finisher = Finisher(store, self._in_hand, self._recorded, clock)
        self._keeper = LeaseKeeper(store, settings, self.worker, self._in_hand, clock)
        self._stopper = Stopper(self._in_hand, clock)
        wake = lambda: self._dispatching.wake()  # noqa: E731, PLW0108 (made later)
        self._reaper = Reaper(store, settings.lease.length, settings.reap_every, self._in_hand, self._reaped, clock)
        self._planner = Planner(store, wake)
        self._around = Surroundings(store, machine.store_id, {}, clock, lambda value: value)
        kinds = _EveryKind(Kind("simulated", "", _AnyParams, self._run, "", lambda _params: ()))
        self._catalog = Catalog(kinds, lambda _job, stored: stored, lambda _queue: True)

    def start(self) -> None:
        """Begin, as `Daemon._prepare` does."""
        self._starting.wake()

    def hear(self, topics: frozenset[Topic]) -> None:
        """Look at once, as a NOTIFY has the loops do."""
        if Topic.RUNS in topics:
            self._dispatching.wake()
        if Topic.SCHEDULES in topics:
            self.planning.wake()
        if Topic.CANCEL in topics and self._in_hand.all():
            self._keeping.wake()

    def end(self) -> None:
        """Be gone, without a word."""
        self._is_over = True
        for running in self._in_hand.all():
            self._note_progress(running)
        for turn in (self._starting, self.planning, self._dispatching, self._finishing):
            turn.end()
        for turn in (self._keeping, self._stopping, self._reaping):
            turn.end()

    def drain(self) -> None:
        """Do what `Daemon._shut_down` does: plan and claim nothing more, tell the attempts, wait for them a while."""
        if self._is_draining:
            return
        self._is_draining = True
        for turn in (self._starting, self.planning, self._dispatching):
            turn.end()
        self._keeper.state = "draining"
        for running in self._in_hand.all():
            running.tell_to_stop(StopReason.SHUTDOWN)
        with contextlib.suppress(BatchdError):  # the store is away: their leases will run out
            self._dispatcher.give_back(self._slots.close())
        self._react()
        self._machine.world.after(_AT_ONCE, self._leave_if_done)
        self._machine.world.after(self._machine.settings.shutdown_grace, self._leave)

    def _turn(self, name: str, do: Callable[[], timedelta | None]) -> Turn:
        """Return a loop with what `Loop` has around it: an error is backed off from and never ends the loop."""

        def turn() -> timedelta | None:
            try:
                pause = do()
            except BatchdError:
                return self._back_off(name)
            except Exception as error:  # noqa: BLE001 (the boundary, as `Loop` is)
                self._machine.surprises.append(f"{name}: {type(error).__name__}: {error}")
                return self._back_off(name)
            self._failures[name] = 0
            return pause

        return Turn(self._machine.world, turn, self._machine.may)

    def _back_off(self, name: str) -> timedelta:
        self._failures[name] = self._failures.get(name, 0) + 1
        return min(_BACKOFF * (1 << min(self._failures[name] - 1, 10)), LONGEST_WAIT)

    def _begin(self) -> None:
        """Register, bury the dead of this machine, fire `@reboot`; all of it again if the store goes away."""
        identity = WorkerIdentity(self.worker, self._machine.name, len(self._predecessors), "", "", 0, __version__)
        workers.register(self._store, identity, slots=self._machine.settings.slots)
        leases.take_back_from(self._store, self._predecessors)
        workers.mark_stopped(self._store, tuple(self._predecessors))
        self._planner.queue_reboots(self._began_at)
        self.planning.wake()
        self._dispatching.wake()
        if self._machine.fidelity.heartbeats:
            self._keeping.wake(self._machine.settings.lease.heartbeat)
            self._reaping.wake()

    def _plan(self) -> timedelta | None:
        now = self._clock.now()
        due = planning.due_schedule_ids(self._store, now)
        delay = self._machine.fidelity.plan_delay
        if due and delay:
            pause = delay * self._machine.random.random()
            self._turn("scheduler", lambda: self._plan_these(due, now)).wake(pause)
            return pause + _SHORTEST_WAIT
        if due:
            self._plan_these(due, now)
        return self._until_next_fire(has_planned=bool(due))

    def _reaped(self, _runs: int) -> None:
        self._dispatching.wake()

    def _plan_these(self, due: tuple[str, ...], now: datetime) -> None:
        self._planner.plan(due, now, lambda: not (self._is_draining or self._is_over))

    def _until_next_fire(self, *, has_planned: bool) -> timedelta | None:
        following = planning.next_fire(self._store)
        longest = LONGEST_WAIT if self._machine.fidelity.looks_often else None
        if following is None:
            return longest
        pause = max(following.at - self._clock.now(), _SHORTEST_WAIT if has_planned else _AT_ONCE)
        return pause if longest is None else min(pause, longest)

    def _dispatch(self) -> timedelta | None:
        pause = self._dispatcher.run_once(self._clock.now())
        while (running := self._slots.next_one()) is not None:
            self._begin_attempt(running)
        if self._machine.fidelity.looks_often or not pause:
            return pause
        return self._until_claimable()

    def _until_claimable(self) -> timedelta | None:
        """Return when it is worth looking again although nobody says so: a retry is due, a rate has room."""
        if self._slots.wanted() <= 0:
            return None  # an ending wakes
        if self._dispatcher.expected is None or self._dispatcher.expected > _AT_ONCE:
            return self._dispatcher.expected
        rate_at = ledger.next_rate_at(self._store)
        return None if rate_at is None else max(rate_at - self._machine.world.now, _AT_ONCE) + _A_MOMENT

    def _begin_attempt(self, running: RunningAttempt) -> None:
        running.start(self._clock.monotonic())
        claim = running.claim
        work = self._machine.workload.work_of(claim)
        self._works[claim.run_id] = work
        left = work.lasts - self._machine.worked.get(claim.run_id, timedelta(0))
        self._machine.world.after(max(left, _A_MOMENT), self._ending(running))
        self._stopping.wake(self._until_told())

    def _ending(self, running: RunningAttempt) -> Event:
        def event() -> None:
            if not (self._is_over or running.is_ended) and self._machine.may(event):
                self._end_attempt(running)

        return event

    def _end_attempt(self, running: RunningAttempt) -> None:
        """Let the real engine say what becomes of it, now that the work is over or was told to stop."""
        if running.stop_reason is None:
            self._machine.worked.pop(running.claim.run_id, None)
        else:
            self._note_progress(running)
        ending = attempt.execute(running, self._catalog, self._around)
        running.is_ended = True
        self._slots.free += 1
        self._finisher.add(ending)
        self._finishing.wake()

    def _note_progress(self, running: RunningAttempt) -> None:
        """Remember how far a run is that does not come to its end: it goes on from its checkpoint."""
        if running.started_at is not None and not running.is_ended:
            worked = timedelta(seconds=self._clock.monotonic() - running.started_at)
            before = self._machine.worked.get(running.claim.run_id, timedelta(0))
            self._machine.worked[running.claim.run_id] = before + worked

    def _run(self, params: _AnyParams, context: JobContext) -> JsonObject:  # noqa: ARG002
        """Stand for every kind's work, at its end."""
        context.raise_if_stopping()
        work = self._works.pop(context.run_id)
        if work.fails:
            raise JobError("the simulation lets it fail", retryable=work.is_retryable)
        return {}

    def _finish(self) -> timedelta | None:
        pause = self._finisher.run_once(self._clock.now())
        if self._is_draining:
            self._leave_if_done()
        return pause if pause <= _BACKOFF else None  # idle: `add` wakes it

    def _recorded(self, endings: Sequence[Ending]) -> None:
        """Look for more, as the engine does; not where it is known that nothing else waits."""
        for ending in endings:
            if self._machine.fidelity.looks_often or self._dispatcher.expected == _AT_ONCE:
                self._dispatching.wake()
            elif ending.decision.retry_in is not None:
                self._dispatching.wake(ending.decision.retry_in + _A_MOMENT)

    def _keep(self) -> timedelta | None:
        pause = self._keeper.run_once(self._clock.now())
        self._react()
        # It looks each second for cancel requests, of which a simulated one hears at once.
        return max(self._keeper.until_renewal or pause, _A_MOMENT)

    def _stop_attempts(self) -> timedelta | None:
        self._stopper.run_once(self._clock.now())
        self._react()
        return self._until_told() if any(not each.is_ended for each in self._in_hand.all()) else None

    def _until_told(self) -> timedelta:
        """Return when the stopper may have something to do next: a timeout, or a lease that is trusted no more."""
        now = self._clock.monotonic()
        moments = [now + self._machine.settings.lease.length.total_seconds()]
        for running in self._in_hand.all():
            if running.is_ended or running.stop_reason is not None:
                continue
            moments += [running.trusted_until] if self._machine.fidelity.heartbeats else []
            moments += [running.deadline] if running.deadline is not None else []
        return timedelta(seconds=max(0.0, min(moments) - now)) + _A_MOMENT

    def _react(self) -> None:
        """Let attempts that were told to stop end when they notice."""
        for running in self._in_hand.all():
            work = self._works.get(running.claim.run_id)
            if running.stop_reason is not None and not running.is_ended and work is not None:
                self._machine.world.after(work.reacts_in, self._ending(running))

    def _leave_if_done(self) -> None:
        if not self._is_over and not self._in_hand.all():
            self._leave()

    def _leave(self) -> None:
        """Give back what has not ended, and be gone; what cannot be given back, its lease's end will."""
        if self._is_over or not self._machine.may(self._leave):
            return
        left = [running for running in self._in_hand.all() if not running.is_ended]
        for running in left:
            self._note_progress(running)
            running.is_ended = True
        with contextlib.suppress(BatchdError):
            self._dispatcher.give_back(left)
            self._finisher.run_once(self._clock.now())
            workers.beat(self._store, self.worker, state="stopped")
        self.end()
        self._on_gone()
