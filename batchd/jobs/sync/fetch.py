"""The fetch: page after page from the source into the staging table, each with its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from batchd.db.engine import Database
from batchd.db.run_staging import make_staging
from batchd.db.staging import drop_staging
from batchd.domain.job import JsonObject
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.file_source import FileSource
from batchd.jobs.sync.open_source import open_source
from batchd.jobs.sync.outcome import Lap, check_rejects, report
from batchd.jobs.sync.params import SyncParams
from batchd.jobs.sync.plan import SyncPlan
from batchd.jobs.sync.read_records import ReadRecords
from batchd.jobs.sync.record_path import found_at, parse_path
from batchd.jobs.sync.sources import Page, Source
from batchd.jobs.sync.stage import PageStager
from batchd.jobs.sync.state import Phase, SyncState
from batchd.jobs.sync.watermark import moment_of, written_moment


class Fetch:
    """For one attempt's thread. `last` is always what the job's last run left."""

    def __init__(self, context: JobContext, params: SyncParams, database: Database, plan: SyncPlan, lap: Lap) -> None:
        self._context = context
        self._params = params
        self._database = database
        self._plan = plan
        self._lap = lap
        since = params.updated_since
        self._updated_path = None if since is None or since.field is None else parse_path(since.field)

    def begun(self, state: SyncState | None, last: JsonObject) -> SyncState:
        """Begin a fetch from the beginning, into empty tables; what was written before still counts."""
        began, is_full = self._context.now(), self._is_full(last)
        with self._context.writing(self._database) as connection:
            make_staging(connection, self._plan.staged)
            drop_staging(connection, self._plan.todo.table.name)
            begun = (state or SyncState(Phase.FETCH, began.isoformat(), is_full, None)).begun_anew(
                began, is_full=is_full, mark=None
            )
            self._context.save_checkpoint(connection, self._database, begun.as_json())
        return begun

    def _is_full(self, last: JsonObject) -> bool:
        incremental = self._params.updated_since
        if incremental is None or not last.get("watermark"):
            return True
        if incremental.full_every is None:
            return False
        full_at = last.get("full_at")
        return full_at is None or self._context.now() - datetime.fromisoformat(str(full_at)) >= incremental.full_every

    def fetched(self, state: SyncState, last: JsonObject) -> SyncState:
        """Stage what is left to be fetched, a page and its checkpoint at a time."""
        if state.pages and state.place is None:
            return state
        validators = last.get("validators") if self._is_conditional else None
        source = open_source(
            self._params,
            self._context,
            self._plan.fields,
            self._updated_path,
            since=None if state.is_full else self._since(last),
            validators=validators if isinstance(validators, dict) else {},
        )
        try:
            if state.pages and (source.mark is None or state.mark != source.mark):
                state = self.begun(state, last)
            state = replace(state, mark=source.mark)
            if isinstance(source, FileSource) and source.not_modified_since(validators):
                return replace(state, is_not_modified=True)
            stager = PageStager(self._database, self._plan.fields, self._plan.staged, source.name)
            for page in source.pages(state.place):
                self._context.raise_if_stopping()
                state = self._staged(stager, source, page, state)
            if source.facts.is_not_modified:
                state = replace(state.spending(source.taken(), self._lap()), is_not_modified=True)
            return state
        finally:
            source.close()

    @property
    def _is_conditional(self) -> bool:
        return self._params.is_conditional and not self._params.dry_run

    def _since(self, last: JsonObject) -> str:
        incremental = self._params.updated_since
        assert incremental is not None
        watermark = datetime.fromisoformat(str(last["watermark"]))
        return written_moment(watermark - incremental.overlap, incremental.format)

    def _staged(self, stager: PageStager, source: Source, page: Page, state: SyncState) -> SyncState:
        with self._context.writing(self._database) as connection:
            # A server that crashes empties the staging table in any case, and the fetch begins anew.
            self._database.dialect.set_for_transaction(connection, waits_for_disk=False)
            staged = stager.stage(connection, page.records, state.fetched + 1)
            after = replace(
                state,
                place=page.after,
                pages=state.pages + page.count,
                fetched=state.fetched + len(page.records),
                staged=state.staged + staged.rows,
                rejected=state.rejected + len(staged.rejects),
                unkeyed=state.unkeyed + staged.unkeyed,
                kept=state.kept + len(staged.rejects),
                watermark=self._later_watermark(state.watermark, page),
                validators=source.facts.validators or state.validators,
            ).spending(source.taken(), self._lap())
            self._context.keep_rejects(connection, self._database, staged.rejects, before=state.kept)
            self._context.save_checkpoint(connection, self._database, after.as_json())
        total = None if page.total is None else max(page.total, after.fetched)
        report(self._context, after, None if total is None or after.place is None else total)
        check_rejects(after, self._params)
        return after

    def _later_watermark(self, watermark: str | None, page: Page) -> str | None:
        if self._updated_path is None:
            return watermark
        latest = max(
            (
                moment
                for moment in map(moment_of, self._moments(page.records, self._updated_path))
                if moment is not None
            ),
            default=None,
        )
        if latest is None or (watermark is not None and datetime.fromisoformat(watermark) >= latest):
            return watermark
        return latest.isoformat()

    @staticmethod
    def _moments(records: Sequence[Any], path: tuple[str, ...]) -> Sequence[Any]:
        return records.moments if isinstance(records, ReadRecords) else [found_at(each, path) for each in records]
