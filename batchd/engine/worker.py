"""The dispatcher claims runs ahead of need; worker threads execute them."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.engine.running import InHand, RunningAttempt
from batchd.engine.settings import EngineSettings
from batchd.engine.setup import Setup
from batchd.loop import Loop
from batchd.store import claims
from batchd.store.claimed import ClaimRequest
from batchd.store.release import release, release_orphans

_LOOK_AT_LEAST_EVERY = timedelta(seconds=5)
_BLOCKED_PAUSE = timedelta(seconds=1)
_SHORTEST_PAUSE = timedelta(milliseconds=100)
_LOOKS_A_PERIOD = 10
_START_WITHIN_SECONDS = 1.0
_RATE_WINDOW_SECONDS = 0.5
_MOST_AHEAD = 500
_SOON_SECONDS = 0.25
_SHORTEST_RUN_SECONDS = 0.002
_RUNS_REMEMBERED = 20


class Waiting:
    """Claimed runs that no thread has taken up yet, and how fast they are taken. Any thread may call any method."""

    def __init__(self, clock: Clock, slots: int = 1) -> None:
        self._clock = clock
        self._slots = slots
        self._changed = threading.Condition()
        self._attempts: deque[RunningAttempt] = deque()
        self._taken_at: deque[float] = deque(maxlen=_MOST_AHEAD)
        self._began: dict[int, float] = {}
        self._busy: deque[float] = deque(maxlen=_RUNS_REMEMBERED)
        self._idle = 0
        self._leaving = 0
        self._is_closed = False

    def put(self, attempts: list[RunningAttempt]) -> None:
        """Hand the attempts to the worker threads."""
        with self._changed:
            self._attempts.extend(attempts)
            self._changed.notify(len(attempts))

    def take(self) -> RunningAttempt | None:
        """Wait for an attempt and return it, or None when there will be no more for the calling thread."""
        with self._changed:
            self._idle += 1
            while not self._leaving and not self._attempts:
                if self._is_closed:
                    return None
                self._changed.wait()
            self._idle -= 1
            if self._leaving:
                self._leaving -= 1
                return None
            now = self._clock.monotonic()
            self._taken_at.append(now)
            self._began[threading.get_ident()] = now
            return self._attempts.popleft()

    def done(self) -> None:
        """Say that the calling thread is through with what it took."""
        with self._changed:
            self._busy.append(self._clock.monotonic() - self._began.pop(threading.get_ident()))

    def resize(self, slots: int) -> int:
        """Have as many threads as that from now on and return how many to start.

        Threads that are too many leave when they are idle: what they execute they end first.
        """
        with self._changed:
            more, self._slots = slots - self._slots, slots
            self._leaving -= more
            started = max(0, -self._leaving)
            self._leaving = max(0, self._leaving)
            self._changed.notify_all()
            return started

    def wanted(self) -> int:
        """Return how many more runs to claim: one for each idle thread, plus what the threads will soon be free for.

        That is what they took in the last half second, or what they can take in a quarter of one if all runs are as
        long as the longest of the last ones. So a storm of short runs is claimed in batches from its first moment,
        while long runs are never claimed before a thread is free.
        """
        with self._changed:
            now = self._clock.monotonic()
            while self._taken_at and self._taken_at[0] < now - _RATE_WINDOW_SECONDS:
                self._taken_at.popleft()
            return self._idle + max(len(self._taken_at), self._soon(now)) - len(self._attempts)

    def _soon(self, now: float) -> int:
        if len(self._busy) < _RUNS_REMEMBERED:
            return 0
        longest = max(*self._busy, *(now - began for began in self._began.values()), _SHORTEST_RUN_SECONDS)
        return int(self._slots * _SOON_SECONDS / longest) if longest < _SOON_SECONDS else 0

    def idle(self) -> int:
        """Return how many threads would begin a run at once."""
        with self._changed:
            return self._idle - len(self._attempts)

    def count(self) -> int:
        """Return how many wait."""
        return len(self._attempts)

    def take_back_stale(self) -> list[RunningAttempt]:
        """Return and forget what has waited for longer than a second: the threads have got busy."""
        with self._changed:
            oldest = self._clock.monotonic() - _START_WITHIN_SECONDS
            if not self._attempts or self._attempts[0].claimed_at > oldest:
                return []
            return self._take_all()

    def close(self) -> list[RunningAttempt]:
        """Let the threads end when they next look; return and forget what they have not taken up."""
        with self._changed:
            self._is_closed = True
            left = self._take_all()
            self._changed.notify_all()
            return left

    def _take_all(self) -> list[RunningAttempt]:
        left = list(self._attempts)
        self._attempts.clear()
        return left


class Dispatcher(Loop):
    """Claims runs for the worker threads; sleeps until a thread is free and something is, or comes to be, claimable."""

    def __init__(
        self,
        store: Database,
        settings: EngineSettings,
        worker_id: str,
        waiting: Waiting,
        in_hand: InHand,
        clock: Clock,
        *,
        setup: Callable[[], Setup] | None = None,
        random: Random | None = None,
    ) -> None:
        super().__init__("dispatcher", clock)
        self.claiming = threading.Lock()
        """Held while runs are claimed: whoever has it changes jobs and setup without a claim in between."""

        self.is_quiet = False
        self._setup = setup
        self._store = store
        self._settings = settings
        self._worker_id = worker_id
        self._waiting = waiting
        self._in_hand = in_hand
        self._random = random or Random()  # noqa: S311 (a fair share, no secret)
        self._blocked_pause = blocked_pause(settings)
        self._unreturned: list[RunningAttempt] = []
        self._has_lost_track = False
        self.is_dry = False
        """Whether, when it last looked, no run waited that a free thread could begin. Any thread may ask."""
        self.expected: timedelta | None = timedelta(0)
        """When it last looked: how long until a run may begin, zero for one that may but for a limit; None: none waits.

        Zero as well when it took all that it wanted."""

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Claim what the threads can take, and return how long nothing new can be expected."""
        self.is_dry = False
        self.expected = timedelta(0)
        if self._has_lost_track:
            self._find_orphans()
        self._unreturned += self._waiting.take_back_stale()
        self.give_back(self._unreturned)
        self._unreturned = []
        wanted = 0 if self.is_quiet else self._waiting.wanted()
        if wanted <= 0:
            return timedelta(seconds=_START_WITHIN_SECONDS) if self._waiting.count() else _LOOK_AT_LEAST_EVERY
        wanted = min(wanted, _MOST_AHEAD)
        claimed, expected = self._claim(wanted)
        if claimed == wanted:
            return timedelta(0)
        self.expected = expected
        # NOTIFY tells of every run that is queued later; SQLite's poll takes longer than a look.
        self.is_dry = self._store.dialect.name == "postgresql" and expected != timedelta(0)
        if claimed and expected == timedelta(0):
            return timedelta(0)
        if expected is None:
            return _LOOK_AT_LEAST_EVERY
        return min(expected, _LOOK_AT_LEAST_EVERY) if expected else self._pause_while_blocked()

    def _pause_while_blocked(self) -> timedelta:
        """Return when to look again, with a run that may begin but for a limit.

        A limit that ends with a run wakes us if the run is ours; the others and the rates are looked for. What falls
        due meanwhile need not have to do with that limit.
        """
        due_in = claims.next_due_in(self._store)
        return self._blocked_pause if due_in is None else max(_SHORTEST_PAUSE, min(due_in, self._blocked_pause))

    def reconfigure(self, settings: EngineSettings) -> None:
        """Claim by other limits from the next claim on."""
        self._settings = settings
        self._blocked_pause = blocked_pause(settings)

    def give_back(self, attempts: list[RunningAttempt]) -> None:
        """Release claims that no thread has taken up."""
        if attempts:
            given = [attempt.claim for attempt in attempts]
            for attempt in attempts:
                attempt.is_given_back = (
                    True  # first: whoever renews the leases meanwhile misses them for no other reason
                )
            release(self._store, given)
            self._in_hand.remove(given)

    def _find_orphans(self) -> None:
        """Give back what a claim took whose answer got lost: nobody else knows of it before its lease ends."""
        known = [attempt.claim.run_id for attempt in self._in_hand.all()]
        orphans = release_orphans(self._store, self._worker_id, known)
        self._has_lost_track = False
        if orphans:
            self._log.info("run.lost", runs=list(orphans))

    def _claim(self, limit: int) -> tuple[int, timedelta | None]:
        with self.claiming:
            return self._claim_now(limit)

    def _claim_now(self, limit: int) -> tuple[int, timedelta | None]:
        asked_at = self._clock.monotonic()
        settings = self._settings
        lease = settings.lease
        request = ClaimRequest(
            self._worker_id,
            limit,
            lease.length,
            self._room(settings),
            settings.rules,
            settings.queue_order,
            self._random,
        )
        try:
            claimed, expected = claims.claim_and_look(self._store, request)
        except Exception:
            self._has_lost_track = True
            raise
        setup = None if self._setup is None else self._setup()
        attempts = [
            RunningAttempt(claim, trusted_until=lease.trusted_until(asked_at), claimed_at=asked_at, setup=setup)
            for claim in claimed
        ]
        self._in_hand.add(attempts)
        self._waiting.put(attempts)
        return len(attempts), expected

    def _room(self, settings: EngineSettings) -> dict[str, int]:
        limited = {queue: limit for queue, limit in settings.queues.items() if limit is not None}
        counts = self._in_hand.count_by_queue() if limited else {}
        room = {queue: limit - counts.get(queue, 0) for queue, limit in limited.items()}
        # Nothing of a shared limit ahead of need: what one daemon holds back, another could begin, and a start counts
        # in a rate's window from its claim.
        idle = self._waiting.idle()
        shared = (queue for queue, rules in settings.rules.items() if rules.is_shared)
        return room | {queue: min(room.get(queue, idle), idle) for queue in shared}


def blocked_pause(settings: EngineSettings) -> timedelta:
    """Return how often to look whether a full limit has room: a tenth of the shortest rate's period, or a second."""
    rates = [rate for rules in settings.rules.values() for rate in (rules.rate, rules.rate_per_key) if rate is not None]
    shortest = min((rate.period / _LOOKS_A_PERIOD for rate in rates), default=_BLOCKED_PAUSE)
    return max(_SHORTEST_PAUSE, min(shortest, _BLOCKED_PAUSE))


class WorkerThreads:
    """Daemon threads, each executing one attempt at a time."""

    def __init__(self, slots: int, waiting: Waiting, execute: Callable[[RunningAttempt], None]) -> None:
        self._waiting = waiting
        self._execute = execute
        self._slots = slots
        self._numbers = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._changing = threading.Lock()

    def start(self) -> None:
        """Start the threads."""
        self._start(self._slots)

    def resize(self, slots: int) -> None:
        """Have as many threads as that; those that are too many end what they execute first."""
        self._start(self._waiting.resize(slots))

    @property
    def are_alive(self) -> bool:
        """Whether every thread runs that was not told to leave."""
        with self._changing:
            return all(thread.is_alive() for thread in self._threads)

    def _start(self, count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._work, name=f"batchd-worker-{next(self._numbers)}", daemon=True)
            with self._changing:
                thread.start()
                self._threads.append(thread)

    def _work(self) -> None:
        while (running := self._waiting.take()) is not None:
            self._execute(running)
            self._waiting.done()
        with self._changing:
            self._threads.remove(threading.current_thread())
