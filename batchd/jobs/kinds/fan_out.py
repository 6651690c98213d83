"""fan_out: queue one run of another job or kind for each row (or batch) of a table or a query."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from batchd.db.engine import Database
from batchd.db.keys import stored_key
from batchd.db.row_source import Row, RowSource
from batchd.domain.job import JsonObject
from batchd.domain.run import RunState
from batchd.domain.run_request import LONGEST_TAG, MOST_TAGS
from batchd.domain.template import filled, places
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind, Start
from batchd.jobs.looks import Look, look_at_rows
from batchd.jobs.parallel import run_each
from batchd.jobs.params import Duration
from batchd.jobs.row_walk import RowWalk, WalkOptions
from batchd.jobs.rows_params import RowsParams, checked_source, find_source
from batchd.store.enqueue import NewRun

_QUEUED = "queued"
_RUNS = "runs"
_OF_COMPLETION = frozenset({"run_id", "children", *(state.value for state in RunState if state.is_final)})


class RunToQueue(BaseModel):
    """A run of a `job` of the config or of a `kind`; what is not set is the job's own setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str | None = Field(default=None, description="A job of this config. Either this or `kind`.")
    kind: str | None = Field(default=None, description="A kind, for a run without a job. Either this or `job`.")
    params: dict[str, JsonValue] = Field(default={}, description="Parameters, over those of the job.")
    queue: str | None = Field(default=None, description="Queue.")
    priority: int | None = Field(default=None, ge=-1000, le=1000, description="Higher runs first.")
    delay: Duration | None = Field(default=None, description="How long it waits before it may be claimed.")
    max_attempts: int | None = Field(default=None, ge=1, le=1000, description="Attempts in all.")
    timeout: Duration | None = Field(default=None, description="Longest attempt.")
    unique_key: str | None = Field(
        default=None, description="At most one unfinished run has it; a row whose key is taken gets no run."
    )
    unique_period: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="For so long after a run with its `unique_key` was queued that succeeded, a row gets none either.",
    )
    tags: list[str] = Field(default=[], max_length=MOST_TAGS, description="Texts kept with the run, to find it by.")
    metadata: dict[str, JsonValue] = Field(default={}, description="Whatever else is to be kept with the run.")

    @field_validator("params", "unique_key", "tags", "metadata")
    @classmethod
    def _has_whole_places(cls, value: Any) -> Any:
        list(places(value))
        return value

    @model_validator(mode="after")
    def _says_what(self) -> RunToQueue:
        if (self.job is None) == (self.kind is None):
            raise ValueError("set exactly one of `job` and `kind`")
        if self.unique_period is not None and self.unique_key is None:
            raise ValueError("`unique_period` needs a `unique_key`")
        return self

    def places(self) -> set[str]:
        """Return the names of the places that are filled in."""
        return {*places([dict(self.params), self.unique_key, [*self.tags], dict(self.metadata)])}

    def new_run(self, values: Mapping[str, Any], key: str | None) -> NewRun:
        """Return the run with its places filled in from `values`."""
        return NewRun(
            job=self.job,
            kind=self.kind,
            params=filled(dict(self.params), values),
            key=key,
            queue=self.queue,
            priority=self.priority,
            delay=self.delay,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
            unique_key=None if self.unique_key is None else str(filled(self.unique_key, values)),
            unique_period=self.unique_period,
            tags=self._tags(values),
            metadata=filled(dict(self.metadata), values),
        )

    def _tags(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the tags with their places filled in: each once, none for a NULL, cut to what a tag may have."""
        made = (filled(tag, values) for tag in self.tags)
        return tuple(dict.fromkeys(str(tag)[:LONGEST_TAG] for tag in made if tag not in (None, "")))


class FanOutParams(RowsParams):
    """Which rows, and what to queue for them."""

    enqueue: RunToQueue = Field(
        description="The run to queue: { job = … or kind = …, params = { … } } and, over the job's own settings, "
        "`queue`, `priority`, `delay`, `max_attempts`, `timeout`, `unique_key` with `unique_period`, `tags`, "
        '`metadata`. In them and in params, "{column}" becomes the value of the row.'
    )
    run_per: Literal["row", "batch"] = Field(
        default="row",
        description='One run for each row, or one for each batch, in which "{column}" becomes the list of its values.',
    )
    on_complete: RunToQueue | None = Field(
        default=None,
        description='A run to queue once when all others are final. In its params: "{run_id}", "{children}" and the '
        'count of each state, "{succeeded}", "{failed}", …',
    )
    on_success: RunToQueue | None = Field(
        default=None, description="Likewise, but only when this run and all others have succeeded."
    )
    dry_run: bool = Field(default=False, description="Queue nothing and save nothing; count the rows.")

    @model_validator(mode="after")
    def _knows_its_places(self) -> FanOutParams:
        for name, following in (("on_complete", self.on_complete), ("on_success", self.on_success)):
            unknown = [] if following is None else sorted(following.places() - _OF_COMPLETION)
            if unknown:
                raise ValueError(
                    f"`{name}` has a place {{{unknown[0]}}}; there are: {', '.join(sorted(_OF_COMPLETION))}"
                )
        if self.columns:
            unknown = sorted(self.enqueue.places() - set(self.columns))
            if unknown:
                raise ValueError(f"`enqueue` has a place {{{unknown[0]}}}, which `columns` does not name")
        return self


def run(params: FanOutParams, context: JobContext) -> JsonObject:
    """Queue a run for each row or batch, each once, and return how many there were and how many are new."""
    database = context.database(params.database)
    source = find_source(context, params)
    _check_places(params, source)
    if params.dry_run:
        return _counted(params, context, database, source)
    on_complete = None if params.on_complete is None else _unfilled(params.on_complete)
    on_success = None if params.on_success is None else _unfilled(params.on_success)
    with context.children(on_complete=on_complete, on_success=on_success) as children:
        options = WalkOptions("rows", params.batch_size)
        # At home in the store: the checkpoint commits with the runs, and the walked database is only read.
        walk = RowWalk(context, database, children.database, source, options)
        walk.begin()
        for span in walk.spans():
            context.raise_if_stopping()
            with walk.batch(span) as batch:
                runs = _runs(params, source, batch.found)
                batch.count(_RUNS, len(runs))
                batch.count(_QUEUED, children.add(runs, batch.connection))
        done = walk.finish()
    runs_in_all, queued = (_count(done.counts, name) for name in (_RUNS, _QUEUED))
    return {"rows": done.rows, "queued": queued, "already_queued": runs_in_all - queued, "dry_run": False}


def _counted(params: FanOutParams, context: JobContext, database: Database, source: RowSource) -> JsonObject:
    walk = RowWalk(context, database, database, source, WalkOptions("rows", params.batch_size))
    walk.begin(dry_run=True)
    run_each(context, walk.spans(), walk.count, parallel=1)
    done = walk.finish()
    would_be = done.rows if params.run_per == "row" else done.batches
    return {"rows": 0, "queued": 0, "rows_matching": done.rows, "runs_to_queue": would_be, "dry_run": True}


def _runs(params: FanOutParams, source: RowSource, rows: Sequence[Row]) -> list[NewRun]:
    if not rows:
        return []
    if params.run_per == "row":
        runs = [params.enqueue.new_run(row.values, _key_of(row)) for row in rows]
        _refuse_equal_keys(source, rows, runs)
        return runs
    columns = {name: [row.values[name] for row in rows] for name in source.columns}
    return [params.enqueue.new_run(columns, _key_of(rows[0]))]


def _key_of(row: Row) -> str:
    """Return the row's key as a text that no other row of the source has."""
    parts = stored_key(row.key)
    first = parts[0]
    return str(first) if len(parts) == 1 and not isinstance(first, dict) else json.dumps(parts, ensure_ascii=False)


def _refuse_equal_keys(source: RowSource, rows: Sequence[Row], runs: Sequence[NewRun]) -> None:
    seen: set[str | None] = set()
    for row, new in zip(rows, runs, strict=True):
        if new.key in seen:
            raise JobError(
                f"{source.name} has two rows with the key {source.described(row.key)}",
                hint="one run for each row needs a `key` that tells rows apart",
                retryable=False,
            )
        seen.add(new.key)


def _check_places(params: FanOutParams, source: RowSource) -> None:
    unknown = sorted(params.enqueue.places() - set(source.columns))
    if unknown:
        raise JobError(
            f"`enqueue` has a place {{{unknown[0]}}}, but {source.name} has no such column",
            hint=f"its columns are {', '.join(source.columns[:20])}; double braces that are meant as such",
            retryable=False,
        )


def _unfilled(run_to_queue: RunToQueue) -> NewRun:
    """Return the run with its places as they stand: the counts are known when all is over."""
    return run_to_queue.new_run({name: f"{{{name}}}" for name in _OF_COMPLETION}, None)


def _count(counts: JsonObject, name: str) -> int:
    count = counts.get(name, 0)
    assert isinstance(count, int)
    return count


def _starts(params: FanOutParams) -> Iterable[Start]:
    following = (("on_complete", params.on_complete), ("on_success", params.on_success))
    for key, started in (("enqueue", params.enqueue), *following):
        if started is not None:
            yield Start((key,), started.job, started.kind, started.queue, frozenset(started.params))


def _check_connected(params: FanOutParams, databases: Mapping[str, Database]) -> list[tuple[str, str]]:
    source = checked_source(params, databases)
    if source is not None:
        _check_places(params, source)
    return []


def _look(params: FanOutParams, databases: Mapping[str, Database], now: datetime) -> Look:  # noqa: ARG001
    return look_at_rows(databases, params.database, params.wanted)


KIND = Kind(
    name="fan_out",
    summary="Queues a run of another job or kind for each row of a table or a query, and tells when all are done.",
    params=FanOutParams,
    run=run,
    example="""\
[jobs.sync-tenants]
kind = "fan_out"
schedule = "every day at 06:00"
database = "app"
table = "tenants"
where = "active"
enqueue = { kind = "each_row", params = { database = "app", table = "orders_{id}", target = "myapp.jobs:sync" } }
# on_complete = { job = "tell-the-team", params = { text = "{succeeded} of {children} done" } }
""",
    databases=lambda params: [params.database],
    defaults={"timeout": "6h"},
    check_connected=_check_connected,
    look=_look,
    starts=lambda params: list(_starts(params)),
)
