"""each_row: call a team's own function with the rows of a table or a query, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from batchd.db.engine import Database
from batchd.db.row_source import RowSource
from batchd.domain.job import JsonObject
from batchd.domain.walk import Span
from batchd.errors import JobError, LockTimeout
from batchd.jobs.contract import JobContext, Kind
from batchd.jobs.looks import Look, look_at_rows
from batchd.jobs.parallel import run_each
from batchd.jobs.row_walk import REJECTED, RowWalk, WalkOptions
from batchd.jobs.rows_params import RowsParams, checked_source, find_source
from batchd.jobs.target_calls import TargetCalls
from batchd.jobs.targets import Target, check_name, load_target

_LOCK_TRIES = 4
_FIRST_LOCK_PAUSE = timedelta(milliseconds=100)


class EachRowParams(RowsParams):
    """Which rows, and what to call for them."""

    target: str = Field(
        description="The function to call, as `package.module:function`, from an installed package or from a folder of "
        "[daemon] `import_path`.",
        examples=["myapp.jobs:recalculate"],
    )
    call_per: Literal["batch", "row"] = Field(
        default="batch",
        description="Call it once for each batch, with a list of rows, or once for each row. A row is a dict.",
    )
    arguments: dict[str, JsonValue] = Field(
        default={}, description="Further arguments of the function, passed by name."
    )
    parallel: int = Field(
        default=1, ge=1, le=64, description="Batches at once, each in its own thread and transaction."
    )
    lock_rows: bool = Field(
        default=False,
        description="Lock the rows of a batch until its transaction ends (SELECT … FOR UPDATE), when the function asks "
        "for the `connection`.",
    )
    on_error: Literal["fail", "reject"] = Field(
        default="fail",
        description="When the function raises: `fail` ends the attempt; `reject` sets the row aside in "
        "`batchd_rejects` and goes on.",
    )
    max_rejects: int = Field(
        default=100, ge=0, description='With `on_error = "reject"`: more rejected rows than these fail the run.'
    )
    dry_run: bool = Field(default=False, description="Call nothing and save nothing; count the rows.")

    @field_validator("target")
    @classmethod
    def _is_a_target(cls, value: str) -> str:
        check_name(value)
        return value

    @model_validator(mode="after")
    def _locks_what_can_be_locked(self) -> EachRowParams:
        if self.lock_rows and self.query is not None:
            raise ValueError("`lock_rows` needs a `table`; write FOR UPDATE into no query, the walk wraps it")
        return self


def run(params: EachRowParams, context: JobContext) -> JsonObject:
    """Call the target for all rows and return how many there were, what the target counted, and what was rejected."""
    database = context.database(params.database)
    source = find_source(context, params)
    target = load_target(params.target, params.arguments)
    asks = "connection" in target.wants
    _check_pool(params, database)
    options = WalkOptions("rows", params.batch_size, transaction=asks, lock=asks and params.lock_rows)
    walk = RowWalk(context, database, database, source, options)
    walk.begin(dry_run=params.dry_run)
    if params.dry_run:
        run_each(context, walk.spans(), walk.count, parallel=1)
    else:
        work = _Work(params, context, database, source, target, walk)
        run_each(context, walk.spans(), work.do, parallel=params.parallel)
    done = walk.finish()
    counts = dict(done.counts)
    return {
        "rows": 0 if params.dry_run else done.rows,
        "batches": 0 if params.dry_run else done.batches,
        "rejected": counts.pop(REJECTED, 0),
        "counts": counts,
        "dry_run": params.dry_run,
        **({"rows_matching": done.rows} if params.dry_run else {}),
    }


class _Work:
    """Does one batch after the other, in any number of threads."""

    def __init__(
        self,
        params: EachRowParams,
        context: JobContext,
        database: Database,
        source: RowSource,
        target: Target,
        walk: RowWalk,
    ) -> None:
        self._params = params
        self._context = context
        self._walk = walk
        self._is_undone_by_rollback = "connection" in target.wants
        self._calls = TargetCalls(
            context,
            database,
            source,
            target,
            params.arguments,
            per_row=params.call_per == "row",
            rejects=params.on_error == "reject",
        )

    def do(self, span: Span) -> None:
        """Handle one batch; one whose transaction met a lock is tried again, since it left nothing behind."""
        tries = 1
        while True:
            try:
                with self._walk.batch(span) as batch:
                    self._calls.handle(batch)
            except LockTimeout:
                if not self._is_undone_by_rollback or tries == _LOCK_TRIES:
                    raise
                self._context.wait(_FIRST_LOCK_PAUSE * 2 ** (tries - 1))
                tries += 1
            else:
                break
        self._refuse_too_many()

    def _refuse_too_many(self) -> None:
        counts = self._walk.result.counts
        rejected = counts.get(REJECTED, 0)
        assert isinstance(rejected, int)
        if rejected > self._params.max_rejects:
            raise JobError(
                f"job {self._context.job}: {rejected} rows were rejected, more than max_rejects = "
                f"{self._params.max_rejects}",
                hint="`batchd show` lists them; raise max_rejects, or mend the function or the rows",
                retryable=False,
                result={"rejected": rejected},
            )


def _check_pool(params: EachRowParams, database: Database) -> None:
    """Refuse more threads than the pool has connections for: they would only wait for each other."""
    needed = params.parallel + 1 if params.parallel > 1 else 1
    if database.settings.pool_size < needed:
        raise JobError(
            f"parallel = {params.parallel} needs {needed} connections, and [databases.{database.name}] has "
            f"pool_size = {database.settings.pool_size}",
            hint="raise `pool_size`, or lower `parallel`",
            retryable=False,
        )


def _check_code(params: EachRowParams) -> list[tuple[str, str]]:
    load_target(params.target, params.arguments)
    return []


def _check_connected(params: EachRowParams, databases: Mapping[str, Database]) -> list[tuple[str, str]]:
    if checked_source(params, databases) is not None:
        _check_pool(params, databases[params.database])
    return []


def _look(params: EachRowParams, databases: Mapping[str, Database], now: datetime) -> Look:  # noqa: ARG001
    return look_at_rows(databases, params.database, params.wanted)


KIND = Kind(
    name="each_row",
    summary="Calls your own function with the rows of a table or a query, batch by batch, resumable.",
    params=EachRowParams,
    run=run,
    example="""\
[jobs.recalculate-scores]
kind = "each_row"
schedule = "every day at 04:00"
database = "app"
table = "users"
where = "active"
target = "myapp.jobs:recalculate"    # def recalculate(rows, connection): ...
batch_size = 1000
# parallel = 4
# on_error = "reject"
""",
    databases=lambda params: [params.database],
    check_connected=_check_connected,
    look=_look,
    check_code=_check_code,
)
