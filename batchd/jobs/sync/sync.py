"""One attempt of a sync: fetch, compare, write, each from where the attempt before it came to. See the package."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from sqlalchemy import Connection, func, select

from batchd.db.run_staging import staging_name
from batchd.db.staging import drop_staging
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.answers import Spent
from batchd.jobs.sync.diff import Diff
from batchd.jobs.sync.fetch import Fetch
from batchd.jobs.sync.guard import refusal
from batchd.jobs.sync.outcome import Lap, check_rejects, counted, report, result_of
from batchd.jobs.sync.params import SyncParams
from batchd.jobs.sync.plan import SyncPlan, plan_sync
from batchd.jobs.sync.state import Phase, SyncState, state_from_json
from batchd.jobs.sync.write import Writer

_NOTHING = Spent()


class Sync:
    """For the attempt's thread."""

    def __init__(self, context: JobContext, params: SyncParams) -> None:
        self._context = context
        self._params = params
        self._database = context.database(params.database)
        self._name = staging_name(context.store_id, context.run_id)
        self._lap = Lap()

    def run(self) -> JsonObject:
        """Bring the table up to the source and return what that took; raises JobError."""
        saved = self._context.checkpoint(self._database)
        with self._context.reading(self._database) as connection:
            plan = plan_sync(connection, self._params, self._name)
        state = None if saved is None else state_from_json(saved)
        if state is None or state.phase is not Phase.DONE:
            try:
                state = self._worked(plan, state)
            except JobError as error:
                if not error.retryable:
                    self._clean_up()
                raise
        return result_of(state, dry_run=self._params.dry_run)

    def _worked(self, plan: SyncPlan, state: SyncState | None) -> SyncState:
        last = self._last_time()
        fetch = Fetch(self._context, self._params, self._database, plan, self._lap)
        if state is None or not self._can_go_on(plan, state):
            state = fetch.begun(state, last)
        if state.phase is Phase.FETCH:
            state = fetch.fetched(state, last)
            if not state.is_not_modified:
                state = self._compared(plan, state)
        if not self._params.dry_run:
            state = self._written(plan, state)
        return self._finished(state, last)

    def _last_time(self) -> JsonObject:
        """Return what the last run left, unless the job asks for something else by now, or it is a dry run."""
        last = self._context.watermark(self._database) or {}
        return last if last.get("definition") == self._definition() else {}

    def _definition(self) -> str:
        """Return a name of what is synced: a change of it makes everything that the last run left worthless."""
        params = self._params
        told = (
            *(params.table, params.url, params.file, params.sql, params.source_database, params.records),
            *(sorted(params.fields.items()), params.key, sorted(params.query), params.paging, params.where),
            *(params.on_missing, params.missing_since, params.synced_at, params.first_seen_at),
            None if params.updated_since is None else (params.updated_since.param, params.updated_since.field),
        )
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]

    def _can_go_on(self, plan: SyncPlan, state: SyncState) -> bool:
        """Whether what the attempts before have fetched is there, and fresh enough to be written."""
        age = self._context.now() - state.began_at
        reason = None
        if age > self._params.resume_within:
            reason = f"it was fetched {age.total_seconds():.0f} s ago"
        elif not self._has_rows(plan, state):
            reason = "the staging table was lost: did the server crash?"
        if reason is not None:
            self._context.log.warning("sync.fetched_anew", reason=reason)
        return reason is None

    def _has_rows(self, plan: SyncPlan, state: SyncState) -> bool:
        wanted = [(plan.staged, state.staged)] if state.phase is Phase.FETCH else [(plan.todo, state.to_do)]
        with self._context.reading(self._database) as connection:
            return all(
                connection.dialect.has_table(connection, staging.table.name)
                and connection.execute(select(func.count()).select_from(staging.table)).scalar_one() == rows
                for staging, rows in wanted
            )

    def _compared(self, plan: SyncPlan, state: SyncState) -> SyncState:
        """Compare the staging table with the target and make the list of what is to do."""
        diff = Diff(self._context, self._database, plan)
        self._context.raise_if_stopping()
        state = diff.settle(state)
        diff.list_records()
        state = self._with_missing(plan, diff, state)
        planned = diff.planned()
        examples = diff.examples() if self._params.dry_run else {}
        after = replace(
            state,
            phase=Phase.WRITE,
            planned=planned,
            columns=_added(state.columns, diff.changed_columns()),
            examples=examples,
            step=0,
            after=0,
            done=0,
        ).spending(_NOTHING, self._lap())
        with self._context.writing(self._database) as connection:
            self._context.save_checkpoint(connection, self._database, after.as_json())
        return after

    def _with_missing(self, plan: SyncPlan, diff: Diff, state: SyncState) -> SyncState:
        """Add to the list what is missing, if the source is to be believed."""
        removes = self._params.on_missing != "ignore" and state.is_full
        if not state.is_full or (not removes and state.fetched):
            return state
        if removes and state.unkeyed:
            self._context.log.warning("sync.missing_kept", table=plan.facts.written, unkeyed=state.unkeyed)
            return state
        present = diff.present_rows()
        missing = diff.list_missing() if removes else 0
        said = refusal(
            missing=missing,
            present=present,
            fetched=state.fetched,
            most=self._params.max_missing,
            removes=removes,
            job=self._context.job,
        )
        if said is not None:
            result = result_of(replace(state, missing=missing), dry_run=self._params.dry_run)
            raise JobError(f"{plan.facts.written}: {said}", retryable=False, result=result)
        return replace(state, missing=missing)

    def _written(self, plan: SyncPlan, state: SyncState) -> SyncState:
        if state.is_not_modified:
            return state
        writer = Writer(
            self._context,
            self._database,
            plan,
            source=self._params.url or str(self._params.file or self._params.source_database),
            max_rejects=self._params.max_rejects,
            batch_size=self._params.batch_size,
            pause=self._params.pause,
        )
        while True:
            self._context.raise_if_stopping()
            report(self._context, state, state.floor + state.fetched + state.to_do)
            after = writer.next_chunk(state)
            if after is None:
                return state
            state = after
            check_rejects(state, self._params)

    def _finished(self, state: SyncState, last: JsonObject) -> SyncState:
        """Leave the watermark for the next run and drop the staging tables, in the transaction that ends the work."""
        after = replace(state, phase=Phase.DONE).spending(_NOTHING, self._lap())
        with self._context.writing(self._database) as connection:
            self._drop(connection)
            self._context.save_checkpoint(connection, self._database, after.as_json())
            if not (self._params.dry_run or state.is_not_modified):
                self._context.save_watermark(connection, self._database, self._left_behind(state, last))
        self._database.dialect.tidy(self._database.engine, thoroughly=True)
        return after

    def _left_behind(self, state: SyncState, last: JsonObject) -> JsonObject:
        watermark: object = None
        if self._params.updated_since is not None:
            watermark = state.began if self._params.updated_since.field is None else state.watermark
        return {
            "definition": self._definition(),
            "watermark": str(watermark) if watermark is not None else last.get("watermark"),
            "validators": state.validators,
            "full_at": state.began if state.is_full else last.get("full_at"),
        }

    def _clean_up(self) -> None:
        with self._context.writing(self._database) as connection:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        for name in (self._name, f"{self._name}_todo"):
            drop_staging(connection, name)


def _added(counts: JsonObject, further: JsonObject) -> JsonObject:
    return {name: counted(counts.get(name)) + counted(further.get(name)) for name in {**counts, **further}}
