"""The contract between a kind of job and the engine.

A kind is one file in `batchd/jobs/kinds/` (or a package that registers the entry point group `batchd.kinds`): a
parameter model, a `run(params, context)`, and a `KIND` record. It works in chunks. Each chunk is one transaction that
also saves the checkpoint, so that a stop, a kill -9 or a lost connection costs at most one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.job import JsonObject, JsonValue
from batchd.errors import StopReason
from batchd.store.checkpoints import CheckpointKey

if TYPE_CHECKING:  # what they need is imported by the job that uses them
    from batchd.jobs.batch import Batch
    from batchd.jobs.looks import Look
    from batchd.mail.delivery import MailSettings
    from batchd.store.digest import Digest
    from batchd.store.enqueue import NewRun
    from batchd.store.rejects import Reject


class Params(BaseModel):
    """The base of every kind's parameters: unknown keys are refused, values do not change after validation.

    Write each field with `Field(description=…)`, and its unit in the description: the reference, the JSON Schema and
    `batchd kinds` are generated from them. Use the types of `batchd.jobs.params` for durations, sizes and names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Params)
P_contra = TypeVar("P_contra", bound=Params, contravariant=True)


class Log(Protocol):
    """A run's log; every line carries the run's id. Event names come from `batchd.telemetry.events`."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log what only a developer wants to know."""
        ...

    def info(self, event: str, **fields: Any) -> Any:
        """Log what happened."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Log what a person should look at some day."""
        ...

    def error(self, event: str, **fields: Any) -> Any:
        """Log what a person should look at now."""
        ...


@dataclass(frozen=True, slots=True)
class Handover:
    """What a process that acts for an attempt opens its databases with, and the keys that fence what it saves.

    `watermark_job` is the job whose watermark it moves; None for a run without a job.
    """

    store: DatabaseSettings
    databases: Mapping[str, DatabaseSettings]
    checkpoint_key: CheckpointKey
    record_key: CheckpointKey
    watermark_job: str | None


class Children(Protocol):
    """The runs that a run queues."""

    @property
    def database(self) -> Database:
        """The store. A walk whose checkpoint is at home here commits it together with the runs that it queues."""
        ...

    def add(self, runs: Sequence[NewRun], connection: Connection | None = None) -> int:
        """Queue the runs, each with a `key` of its own, and return how many of them were not there already.

        One transaction; or in the caller's own, on a connection of `database`.
        """
        ...


class JobContext(Protocol):
    """What a running job sees of the daemon. Its methods may be called from the attempt's thread only, unless said."""

    @property
    def run_id(self) -> int:
        """The run's id."""
        ...

    @property
    def job(self) -> str:
        """The job's name, or the kind's for a run without a schedule."""
        ...

    @property
    def attempt(self) -> int:
        """The attempt's number, from 1."""
        ...

    @property
    def scheduled_for(self) -> datetime | None:
        """The nominal fire time; None for a run that somebody asked for."""
        ...

    @property
    def previous_result(self) -> Mapping[str, JsonValue] | None:
        """The result of the job's last succeeded or failed run that has one, or None when there is none."""
        ...

    @property
    def mail(self) -> MailSettings | None:
        """The config's `[mail]`; there is one when the kind's `needs_mail` said that it needs one."""
        ...

    @property
    def store_id(self) -> str:
        """The uuid of batchd's store; with `run_id` it names the run uniquely in the world."""
        ...

    @property
    def log(self) -> Log:
        """The run's log. Any thread may write to it."""
        ...

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        ...

    def database(self, name: str) -> Database:
        """Return the database of that name in the config; config checking has made sure that it exists."""
        ...

    def database_names(self) -> tuple[str, ...]:
        """Return the names of all databases in the config."""
        ...

    def reading(self, database: Database) -> AbstractContextManager[Connection]:
        """Open a read transaction whose statements a stop cancels. Any thread may."""
        ...

    def writing(self, database: Database) -> AbstractContextManager[Connection]:
        """Open a write transaction whose statements a stop cancels; commits at the end of the block. Any thread may."""
        ...

    def checkpoint(self, database: Database) -> JsonObject | None:
        """Return what an earlier attempt of this run saved last in that database, or None.

        Fences older attempts out: from now on their `save_checkpoint` raises LeaseLost. Call it before the first chunk.
        """
        ...

    def save_checkpoint(self, connection: Connection, database: Database, state: JsonObject) -> None:
        """Save the resume point inside the chunk's own transaction; raises LeaseLost when a newer attempt exists."""
        ...

    def watermark(self, database: Database) -> JsonObject | None:
        """Return what the job's last run left with `save_watermark`, or None; always None for a run without a job."""
        ...

    def save_watermark(self, connection: Connection, database: Database, state: JsonObject) -> None:
        """Leave something for the job's next run, in the transaction of the last chunk, which saves its checkpoint."""
        ...

    def keep_rejects(
        self, connection: Connection, database: Database, rejects: Sequence[Reject], *, before: int
    ) -> None:
        """Keep records that the job could not take, inside the chunk's own transaction; `batchd show` prints them.

        `before` says how many the run had before this chunk: count them in the checkpoint. Only the first thousand
        of a run are kept.
        """
        ...

    def recorded(self) -> JsonObject | None:
        """Return what an earlier attempt of this run recorded last with `record`, or None.

        Fences older attempts out, as `checkpoint` does. Call it before the first effect.
        """
        ...

    def record(self, state: JsonObject) -> None:
        """Record in batchd's own store what this run has done outside any database; committed when it returns.

        For effects that no transaction can hold, such as a mail that a server accepted. Raises LeaseLost when a newer
        attempt exists: then do nothing more.
        """
        ...

    def digest(self, since: datetime, until: datetime) -> Digest:
        """Return what became of all jobs' runs in that time, and in the time of the same length before it."""
        ...

    def locked_checkpoint(self, connection: Connection, database: Database) -> JsonObject | None:
        """Return the resume point as it is now, locked until the transaction ends; raises LeaseLost as saving does.

        For a job whose chunks commit in several threads: each adds to what the others have saved. Any thread may call
        it, and `save_checkpoint`, on a connection of its own.
        """
        ...

    def batches(
        self,
        database: Database,
        *,
        table: str | None = None,
        query: str | None = None,
        key: Sequence[str] = (),
        where: str | None = None,
        columns: Sequence[str] = (),
        size: int = 1000,
        lock: bool = False,
        transaction: bool = True,
        home: Database | None = None,
        name: str | None = None,
    ) -> AbstractContextManager[Iterator[Batch]]:
        """Walk over the rows of a table or a query, a batch at a time, each committed with its checkpoint.

            with context.batches(database, table="users", size=500, where="active") as batches:
                for batch in batches:
                    batch.connection.execute(...)     # commits when the loop comes round

        An exception, `break` or `return` in the loop rolls the batch at hand back. The next attempt goes on behind the
        last batch that was committed. `home` keeps the checkpoint in another database, which `batch.connection` then
        belongs to. With `transaction=False` no transaction is open in the loop, for work elsewhere: a batch may then be
        repeated after a crash. `name` tells two walks over the same table in one run apart. docs/jobs/each_row.md says
        which rows a walk sees.
        """
        ...

    def children(
        self, *, on_complete: NewRun | None = None, on_success: NewRun | None = None
    ) -> AbstractContextManager[Children]:
        """Queue runs that belong to this one, each once, however often this run is interrupted.

            with context.children(on_complete=NewRun(job="tell-them")) as children:
                children.add([NewRun(job="sync-user", params={"user": user}, key=str(user)) for user in users])

        The end of the block says that there will be no more; once all of them are final, `on_complete` is queued, and
        `on_success` when this run and all of them succeeded.
        """
        ...

    def enqueue(self, *runs: NewRun) -> tuple[int, ...]:
        """Queue runs in batchd's store, in one transaction, and return the ids of those that were not there already.

        Committed when it returns, and so repeated by an attempt that repeats this one. A run with a `key` is not: this
        run has at most one of each key. Any thread may.
        """
        ...

    def when_cancelled(self, stop: Callable[[StopReason], None]) -> AbstractContextManager[None]:
        """Have `stop` called while the block lasts when the run must end now, as its statements are then cancelled.

        That is at its timeout, when somebody cancels it, when its lease is lost, and at the end of a shutdown's grace.
        It is called by another thread, perhaps again and again, and must return at once. For work that ends only when
        it is killed.
        """
        ...

    def handover(self) -> Handover:
        """Return what another process needs to act for this attempt; it holds the databases' passwords."""
        ...

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """Say how far the run is. Cheap: it is written to the store at most about once a second. Any thread may."""
        ...

    def raise_if_stopping(self) -> None:
        """Raise RunInterrupted when the run was cancelled, timed out, lost its lease, or the daemon stops.

        Call it between two chunks; never inside a transaction that should commit.
        """
        ...

    def wait(self, pause: timedelta) -> None:
        """Sleep, but raise RunInterrupted at once when the run is told to stop."""
        ...

    def time_left(self) -> timedelta | None:
        """Return what is left of the run's timeout, or None when it has none."""
        ...


class RunFunction(Protocol[P_contra]):
    """A kind's work. Returns the result that the run's row keeps (small JSON); raises JobError for a known failure."""

    def __call__(self, params: P_contra, context: JobContext) -> JsonObject: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Start:
    """A run that a job queues: of a `job` of the config or of a `kind`, with these params; `key` says where that is."""

    key: tuple[str, ...]
    job: str | None
    kind: str | None
    queue: str | None
    params: frozenset[str]


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What a job takes from another job of the config: its param `key` names that one, which is of `kind`.

    `take` returns the params to put in the place of `key`, from the other job's validated params; it raises LookupError
    with a message for what is not there.
    """

    key: str
    job: str
    kind: str
    take: Callable[[Any], JsonObject]


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """A kind of job.

    `example` is a complete `[jobs.NAME]` table in TOML that config accepts. `databases` names, for given params, the
    `[databases.NAME]` that the kind uses ("*" for all of them); config checks that they exist. `defaults` are job
    settings (as in `[jobs.NAME]`, e.g. {"schedule": "every 5m"}) that stand where neither the job nor `[defaults]`
    says otherwise. `check` returns further complaints about params, each as (key, message). `check_connected` returns
    likewise what the real databases have against them (a table, a column or an index that is missing, a right that is
    not granted) for `batchd check --connect`; it gets the databases that answered, changes nothing, may raise JobError
    for what concerns the job as a whole, and keeps silent about a database that it did not get. `needs_mail` says,
    for given params, whether the job sends mail; config checks that there is a `[mail]`. `check_code` returns likewise
    what importing a team's own code shows, for `batchd check` and the daemon's start; it may raise JobError, and
    `check_unattended` what is missing in a job with a schedule, whose runs get no params of their own. `starts` names
    the jobs and kinds that the kind queues runs of; config checks that they exist and take the params.
    `look` says, for `batchd explain`, what a run at a moment would do on the databases that answered; it changes
    nothing.
    `runs_elsewhere` says that no daemon executes its runs, which are only reported: it has no `schedule`.
    `adjustable` names the params that a run asked for over HTTP may set: what such a run does otherwise is the
    config's alone, or an operator's token could run any program and delete any row.
    `borrows` names, for given params, another job whose params they take the place of; config puts them in.
    """

    name: str
    summary: str
    params: type[P]
    run: RunFunction[P]
    example: str
    databases: Callable[[P], Sequence[str]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[P], Sequence[tuple[str, str]]] | None = None
    needs_mail: Callable[[P], bool] | None = None
    check_connected: Callable[[P, Mapping[str, Database]], Sequence[tuple[str, str]]] | None = None
    check_code: Callable[[P], Sequence[tuple[str, str]]] | None = None
    check_unattended: Callable[[P], Sequence[tuple[str, str]]] | None = None
    starts: Callable[[P], Sequence[Start]] | None = None
    look: Callable[[P, Mapping[str, Database], datetime], Look] | None = None
    runs_elsewhere: bool = False
    adjustable: frozenset[str] = frozenset({"dry_run"})
    borrows: Callable[[P], Borrowed | None] | None = None
