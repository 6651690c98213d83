"""Which kinds and queues the daemons know (`batchd_catalog`), so that whoever enqueues is told of a wrong name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, and_, delete, func, select, update

from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.store import meta
from batchd.store.catalog_schema import catalog
from batchd.store.schema import schedules, workers

DEFAULT_QUEUE = "default"

_KIND, _QUEUE = "kind", "queue"
_FINGERPRINT = "kinds_fingerprint"
_FORGET_AFTER = timedelta(days=30)
_ALIVE_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class KindParams:
    """The names of a kind's params: all that it takes (None: any), those that a run must have, and the secret ones."""

    known: frozenset[str] | None
    required: frozenset[str]
    secret: frozenset[str]

    def complaint(self, kind: str, given: Iterable[str], *, has_job: bool) -> str | None:
        """Return what is wrong with params of these names; a run of a job has the job's params as well."""
        names = frozenset(given)
        if self.known is not None and names - self.known:
            hint = "; what its function takes goes into 'arguments'" if "arguments" in self.known else ""
            return f"kind {kind!r} takes no parameter {min(names - self.known)!r}{hint}"
        if names & self.secret:
            return (
                f"parameter {min(names & self.secret)!r} is a secret, and a run's params are stored; "
                "set it in the config"
            )
        if not has_job and self.required - names:
            return f"kind {kind!r} needs the parameter {min(self.required - names)!r}"
        return None


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What the store knows: each job's kind, each kind's params, the queues. Empty: no daemon has said so yet."""

    jobs: Mapping[str, str]
    kinds: Mapping[str, KindParams]
    queues: frozenset[str]


def remember(store: Database, kinds: Collection[str], fingerprint: str, queues: Iterable[str]) -> bool:
    """Say that the daemon knows the kinds that the store has under this fingerprint; return False if it has others."""
    with store.writing() as connection:
        if meta.value_of(connection, _FINGERPRINT) != fingerprint:
            return False
        is_mine = and_(catalog.c.sort == _KIND, store.dialect.is_among(catalog.c.name, kinds))
        known = connection.execute(update(catalog).where(is_mine).values(seen_at=store.dialect.now())).rowcount
        if known != len(kinds):
            return False
    register(store, {}, queues, fingerprint=fingerprint)
    return True


def register(
    store: Database, kinds: Mapping[str, KindParams], queues: Iterable[str], *, fingerprint: str | None = None
) -> None:
    """Say that this daemon knows these kinds and queues; `fingerprint` tells the next one that nothing has changed.

    Forgets what no daemon has said for 30 days, unless one that said so is still alive: a refusal that is wrong is
    worse than none.
    """
    rows: list[JsonObject] = [
        {"sort": _KIND, "name": name, "params": _as_json(params)} for name, params in sorted(kinds.items())
    ]
    rows += [{"sort": _QUEUE, "name": name, "params": None} for name in sorted({DEFAULT_QUEUE, *queues})]
    with store.writing() as connection:
        store.dialect.lock_for_transaction(connection, catalog.name)
        statement = store.dialect.insert(catalog)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[catalog.c.sort, catalog.c.name],
                set_={"params": statement.excluded.params, "seen_at": statement.excluded.seen_at},
            ).values(seen_at=store.dialect.now()),
            rows,
        )
        meta.set_value(connection, _FINGERPRINT, fingerprint or "")
        is_old = catalog.c.seen_at < store.dialect.now_plus(-_FORGET_AFTER.total_seconds())
        oldest_daemon = select(func.min(workers.c.started_at)).where(workers.c.state != "stopped").scalar_subquery()
        since_then = catalog.c.seen_at < func.coalesce(oldest_daemon, store.dialect.now())
        connection.execute(delete(catalog).where(is_old, since_then))


def known_names(connection: Connection, jobs: Sequence[str]) -> KnownNames:
    """Return the kinds and queues that the store knows, and those of the jobs that it has."""
    wanted = select(schedules.c.id, schedules.c.kind).where(
        schedules.c.id.in_(sorted(set(jobs))), schedules.c.removed_at.is_(None)
    )
    found = connection.execute(select(catalog.c.sort, catalog.c.name, catalog.c.params)).all()
    return KnownNames(
        jobs={row.id: row.kind for row in connection.execute(wanted)},
        kinds={row.name: _from_json(row.params or {}) for row in found if row.sort == _KIND},
        queues=frozenset(row.name for row in found if row.sort == _QUEUE),
    )


def knows_queue(store: Database, queue: str) -> bool:
    """Return whether a daemon of the store knows the queue; so it is as long as none has said which there are."""
    if queue == DEFAULT_QUEUE:
        return True
    with store.reading() as connection:
        queues = connection.scalars(select(catalog.c.name).where(catalog.c.sort == _QUEUE)).all()
    return not queues or queue in queues


def is_known_to_others(store: Database, kind: str, worker: str) -> bool:
    """Return whether a daemon that lives knows the kind, as far as the store can tell, and is not this worker."""
    others = (
        workers.c.id != worker,
        workers.c.state == "running",
        workers.c.heartbeat_at > store.dialect.now_plus(-_ALIVE_WITHIN.total_seconds()),
    )
    # A daemon says which kinds it knows once it is registered: what nobody has said since then is nobody's any more.
    oldest = select(func.min(workers.c.started_at)).where(*others).scalar_subquery()
    said = select(catalog.c.name).where(catalog.c.sort == _KIND, catalog.c.name == kind, catalog.c.seen_at >= oldest)
    with store.reading() as connection:
        return connection.execute(said).first() is not None


def _as_json(params: KindParams) -> JsonObject:
    return {
        "known": None if params.known is None else [*sorted(params.known)],
        "required": [*sorted(params.required)],
        "secret": [*sorted(params.secret)],
    }


def _from_json(stored: JsonObject) -> KindParams:
    def names(key: str) -> frozenset[str]:
        value = stored.get(key)
        return frozenset(str(name) for name in value) if isinstance(value, list) else frozenset()

    return KindParams(names("known") if stored.get("known") is not None else None, names("required"), names("secret"))
