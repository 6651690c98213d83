"""Limits over all daemons: paused queues, places, keys, mutexes, rates; asked and kept inside the claim's transaction.

A place is the running run itself, so a daemon that dies gives its places back with its runs, and nothing can leak. A
rate is a sliding window: rows that say how many runs began and until when they count. One lock makes daemons decide one
after the other, and is taken only where a limit is shared.

A run whose mutex or key is full when its turn comes is *parked*: it gets the limit's name in `waits_for` and leaves the
claim's index, so that a million of them cost the others nothing. When the limit has room again, the next claim lets as
many of the best of them back. A name that no rule knows any more has room for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    delete,
    func,
    literal,
    select,
    union_all,
    update,
)

from batchd.db.engine import Database
from batchd.domain.queue import NO_RULES, QueueLimits, QueueRules, Rate
from batchd.domain.run import RunState
from batchd.store.schema import queues, rate_starts, runs, workers
from batchd.store.states import is_state

PARK_AT_ONCE = 1_000
_LET_BACK_AT_ONCE = 500
_ASKED_SINGLY = 5
_LOCK = "limits"
_NO_LIMIT = 1 << 30
_A_MOMENT_SECONDS = 60.0
_HEARD_WITHIN_SECONDS = 30.0
_MUTEX, _KEY, _QUEUE = "mutex:", "key:", "queue:"
_SEPARATOR = "/"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Which of the candidates may be claimed; `blocked` says of each other one what it waits for."""

    chosen: list[int]
    blocked: dict[str, list[int]]


def limits_of(row: Any, rules: QueueRules) -> list[str]:
    """Return the names of the limits that the run shares with runs of its mutex and of its key."""
    names = []
    if row.mutex is not None:
        names.append(_MUTEX + row.mutex)
    if row.limit_key is not None and rules.is_keyed:
        names.append(f"{_KEY}{row.queue}{_SEPARATOR}{row.limit_key}")
    return names


class Limits:
    """The limits as one claim sees them; lives as long as its transaction."""

    def __init__(self, connection: Connection, store: Database, rules: Mapping[str, QueueRules]) -> None:
        self._connection = connection
        self._store = store
        self._rules = rules
        self._is_locked = False
        self._room: dict[str, int] = {}
        self._waiting: list[str] = []
        self._waited_for: list[str] = []
        self._paused: list[str] = []

    def look(self) -> None:
        """Ask, in one statement, where runs wait: in which queues, for which limits, and which queues are paused."""
        found: dict[str, list[str]] = {}
        for what, name in self._connection.execute(self._store.dialect.composed.once(_where_runs_wait)):
            found.setdefault(what, []).append(name)
        self._waiting = found.get("queue", [])
        self._waited_for = found.get("waits_for", [])
        self._paused = found.get("paused", [])

    def waiting_queues(self) -> list[str]:
        """Return the queues in which a run may begin but for their limits, as of the last look."""
        return self._waiting

    def lock(self) -> None:
        """Keep other daemons from deciding about shared limits until the transaction ends."""
        if not self._is_locked:
            self._store.dialect.lock_for_transaction(self._connection, _LOCK)
            self._is_locked = True

    def queue_room(self, names: Collection[str]) -> dict[str, int]:
        """Return how many more runs may begin of each of the queues that is paused or has a shared limit."""
        shared = [name for name in names if self._rules.get(name, NO_RULES).is_shared]
        if shared:
            self.lock()
        room = {
            name: limit - self._running(runs.c.queue == name)
            for name in shared
            if (limit := self._rules[name].max_running) is not None
        }
        for name in shared:
            rate = self._rules[name].rate
            if rate is not None:
                room[name] = min(room.get(name, _NO_LIMIT), self._rate_room(_QUEUE + name, rate))
        return room | dict.fromkeys(self._paused, 0)

    def admit(self, rows: Iterable[Any], room: Mapping[str, int], limit: int) -> Admitted:
        """Go through the candidates, the best first, and choose at most `limit`; `room` is that of their queues."""
        left, keys = dict(room), set[str]()
        admitted = Admitted([], {})
        for row in rows:
            if len(admitted.chosen) >= limit:
                break
            if left.get(row.queue, 1) <= 0 or row.concurrency_key in keys:
                continue
            names = limits_of(row, self._rules.get(row.queue, NO_RULES))
            full = next((name for name in names if self._room_of(name) <= 0), None)
            if full is not None:
                admitted.blocked.setdefault(full, []).append(row.id)
                continue
            for name in names:
                self._room[name] -= 1
            if row.concurrency_key is not None:
                keys.add(row.concurrency_key)
            if row.queue in left:
                left[row.queue] -= 1
            admitted.chosen.append(row.id)
        return admitted

    def park(self, admitted: Admitted, heads: Mapping[str, Select[Any]]) -> None:
        """Take the blocked runs out of the way, and what waits right behind them in their queues for the same limits.

        `heads` are the queues' best runs by name; they are locked there, if nobody else holds them.
        """
        blocked, chosen = admitted.blocked, set(admitted.chosen)
        parked = {name: list(ids) for name, ids in blocked.items()}
        for queue, head in heads.items():
            rules = self._rules.get(queue, NO_RULES)
            for row in self._connection.execute(head.limit(PARK_AT_ONCE)):
                full = next((name for name in limits_of(row, rules) if name in blocked), None)
                if full is not None and row.id not in chosen:
                    parked[full].append(row.id)
        for name, ids in parked.items():
            self._connection.execute(update(runs).where(runs.c.id.in_(ids)).values(waits_for=name))

    def let_back(self) -> None:
        """Bring back as many parked runs as the limits that they wait for have room, the best of each first."""
        if len(self._waited_for) > _ASKED_SINGLY:
            self._ask_rooms(self._waited_for)
        for name in self._waited_for:
            self.lock()
            room = min(self._room_of(name), _LET_BACK_AT_ONCE)
            if room <= 0:
                continue
            best = (
                select(runs.c.id)
                .where(is_state(RunState.QUEUED), runs.c.waits_for == name)
                .order_by(runs.c.priority.desc(), runs.c.available_at, runs.c.id)
                .limit(room)
                .with_for_update(skip_locked=True)
            )
            ids = self._connection.execute(best).scalars().all()
            self._connection.execute(update(runs).where(runs.c.id.in_(ids)).values(waits_for=None))
        if self._is_locked:
            self.look()

    def count_starts(self, taken: Sequence[Any]) -> None:
        """Note in the sliding windows that these runs begin."""
        counts: dict[tuple[str, Rate], int] = {}
        for row in taken:
            rules = self._rules.get(row.queue, NO_RULES)
            if rules.rate is not None:
                pair = (_QUEUE + row.queue, rules.rate)
                counts[pair] = counts.get(pair, 0) + 1
            if rules.rate_per_key is not None and row.limit_key is not None:
                pair = (f"{_KEY}{row.queue}{_SEPARATOR}{row.limit_key}", rules.rate_per_key)
                counts[pair] = counts.get(pair, 0) + 1
        now = self._store.dialect.now
        for (name, rate), count in counts.items():
            self._connection.execute(
                delete(rate_starts).where(rate_starts.c.name == name, rate_starts.c.counts_until < now())
            )
            until = self._store.dialect.now_plus(rate.period.total_seconds())
            self._connection.execute(rate_starts.insert().values(name=name, count=count, counts_until=until))

    def _room_of(self, name: str) -> int:
        """Return how many more runs may share the limit, those counted that this claim has chosen."""
        if name not in self._room:
            self.lock()
            self._room[name] = self._ask_room(name)
        return self._room[name]

    def _ask_room(self, name: str) -> int:
        if name.startswith(_MUTEX):
            return 1 - self._running(runs.c.mutex == name.removeprefix(_MUTEX), runs.c.mutex.is_not(None))
        queue, separator, key = name.removeprefix(_KEY).partition(_SEPARATOR)
        rules = self._rules.get(queue, NO_RULES)
        room = _NO_LIMIT
        if separator and rules.max_running_per_key is not None:
            room = rules.max_running_per_key - self._running(runs.c.queue == queue, runs.c.limit_key == key)
        if separator and rules.rate_per_key is not None:
            room = min(room, self._rate_room(name, rules.rate_per_key))
        return room

    def _ask_rooms(self, names: Collection[str]) -> None:
        """Do what `_ask_room` does for very many names, in three queries."""
        self.lock()
        is_running = is_state(RunState.RUNNING)
        held = select(runs.c.mutex).where(is_running, runs.c.mutex.is_not(None))
        used = dict.fromkeys((_MUTEX + mutex for mutex in self._connection.execute(held).scalars()), 1)
        keyed = select(runs.c.queue, runs.c.limit_key, func.count()).where(is_running, runs.c.limit_key.is_not(None))
        for queue, key, count in self._connection.execute(keyed.group_by(runs.c.queue, runs.c.limit_key)):
            used[f"{_KEY}{queue}{_SEPARATOR}{key}"] = count
        counting = rate_starts.c.counts_until >= self._store.dialect.now()
        began = select(rate_starts.c.name, func.sum(rate_starts.c.count)).where(counting).group_by(rate_starts.c.name)
        started = {name: int(count) for name, count in self._connection.execute(began).all()}
        for name in names:
            if name.startswith(_MUTEX):
                self._room[name] = 1 - used.get(name, 0)
                continue
            rules = self._rules.get(name.removeprefix(_KEY).partition(_SEPARATOR)[0], NO_RULES)
            places, rate = rules.max_running_per_key, rules.rate_per_key
            room = _NO_LIMIT if places is None else places - used.get(name, 0)
            self._room[name] = room if rate is None else min(room, rate.count - started.get(name, 0))

    def _running(self, *which: Any) -> int:
        counted = select(func.count()).select_from(runs).where(is_state(RunState.RUNNING), *which)
        return int(self._connection.execute(counted).scalar_one())

    def _rate_room(self, name: str, rate: Rate) -> int:
        began = select(func.coalesce(func.sum(rate_starts.c.count), 0)).where(
            rate_starts.c.name == name, rate_starts.c.counts_until >= self._store.dialect.now()
        )
        return rate.count - int(self._connection.execute(began).scalar_one())


def _where_runs_wait() -> CompoundSelect[Any]:
    queued = is_state(RunState.QUEUED)
    return union_all(
        _each(runs.c.queue, and_(queued, runs.c.waits_for.is_(None))),
        _each(runs.c.waits_for, and_(queued, runs.c.waits_for.is_not(None))),
        select(literal("paused"), queues.c.name).where(queues.c.paused_at.is_not(None)),
    )


def _each(column: Column[Any], which: ColumnElement[bool]) -> Select[Any]:
    """Return the column's different values among the runs, hopping from one to the next through an index.

    ORDER BY and LIMIT instead of min(): `follow_order` ties them to the index, whatever statistics say.
    """
    lowest = select(column).where(which).order_by(column).limit(1)
    first = select(lowest.scalar_subquery().label("name")).cte(f"each_{column.name}", recursive=True)
    following = lowest.where(column > first.c.name).scalar_subquery()
    each = first.union_all(select(following).where(first.c.name.is_not(None)))
    return select(literal(column.name).label("what"), each.c.name).where(each.c.name.is_not(None))


def held_back(connection: Connection, store: Database, limits: QueueLimits, names: Collection[str]) -> set[str]:
    """Return those of the queues whose own limits hold their runs back; for whoever only looks, so without a lock.

    They are full, or were a moment ago: one run has ended, and the next is about to begin.
    """
    held = set()
    for name in names:
        rules, each = limits.rules.get(name, NO_RULES), limits.concurrency.get(name)
        places = [count for count in (rules.max_running, each and each * _daemons(connection, store)) if count]
        if places and _was_taken(connection, store, name, min(places)):
            held.add(name)
        if rules.rate is not None and _was_used_up(connection, store, name, rules.rate.count):
            held.add(name)
    return held


def _daemons(connection: Connection, store: Database) -> int:
    heard = workers.c.heartbeat_at >= store.dialect.now_plus(-_HEARD_WITHIN_SECONDS)
    alive = select(func.count()).select_from(workers).where(workers.c.state != "stopped", heard)
    return max(1, int(connection.execute(alive).scalar_one()))


def _was_taken(connection: Connection, store: Database, queue: str, places: int) -> bool:
    running = select(func.count()).select_from(runs)
    running = running.where(runs.c.queue == queue, runs.c.state == RunState.RUNNING.value)
    if connection.execute(running).scalar_one() >= places:
        return True
    lately = runs.c.finished_at >= store.dialect.now_plus(-_A_MOMENT_SECONDS)
    return connection.execute(select(runs.c.id).where(runs.c.queue == queue, lately).limit(1)).first() is not None


def _was_used_up(connection: Connection, store: Database, queue: str, count: int) -> bool:
    """Return whether so many starts count, those that counted a moment ago among them."""
    counting = rate_starts.c.counts_until >= store.dialect.now_plus(-_A_MOMENT_SECONDS)
    began = select(func.coalesce(func.sum(rate_starts.c.count), 0))
    started = began.where(rate_starts.c.name == _QUEUE + queue, counting)
    return int(connection.execute(started).scalar_one()) >= count


def first_parked() -> Select[Any]:
    """Return the statement that says whether a run waits for a limit: a row, or none.

    Its order ties it to the index of those, as in `_each`.
    """
    is_parked = and_(is_state(RunState.QUEUED), runs.c.waits_for.is_not(None))
    return select(runs.c.id).where(is_parked).order_by(runs.c.waits_for).limit(1)
