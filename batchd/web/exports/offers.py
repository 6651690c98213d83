"""What the config offers to export, turned into runs; and which file of a run may be served."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from batchd.domain.exporting import ExportSettings, ExportSource
from batchd.domain.job import JsonObject, JsonValue
from batchd.domain.run import RunState
from batchd.jobs.exports.names import pattern_of
from batchd.store.enqueue import NewRun
from batchd.store.exports import TAG
from batchd.store.queries import RunView
from batchd.web.exports.files import NotServed, Place

KIND = "csv_export"
_PLACE_OF_RUN = "{run_id}"
_ROWS = ("database", "table", "query", "report", "period", "where", "columns", "path")


class NotOffered(Exception):
    """The config does not offer that; the message says what it does offer."""


def run_of_source(
    settings: ExportSettings, source: ExportSource, format_name: str | None, columns: list[str], match: JsonObject
) -> NewRun:
    """Return the run that exports the source; raises NotOffered for what it may not have."""
    chosen = format_name or source.formats[0]
    if chosen not in source.formats:
        raise NotOffered(f"{source.name} has no format {chosen!r}; it has {', '.join(source.formats)}")
    for name in columns:
        if name not in source.columns:
            raise NotOffered(f"{source.name} has no column {name!r}; it has {', '.join(source.columns)}")
    for name in match:
        if name not in source.filters:
            has = ", ".join(sorted(source.filters)) or "none"
            raise NotOffered(f"{source.name} cannot be narrowed by {name!r}; it has {has}")
    params: dict[str, JsonValue] = {
        "database": source.database,
        "columns": [*(columns or source.columns)],
        "path": settings.file_of(source.name, _PLACE_OF_RUN, chosen),
        "if_exists": "fail",
    }
    optional: dict[str, JsonValue] = {"table": source.table, "query": source.query, "where": source.where}
    params |= {name: value for name, value in optional.items() if value is not None}
    if match:
        params["match"] = match
    if chosen.startswith(("csv", "tsv")):
        params["escape_formulas"] = source.escape_formulas
    return NewRun(kind=KIND, params=params, tags=[TAG, f"{TAG}:{source.name}"])


def is_offered(settings: ExportSettings, run: RunView) -> bool:
    """Whether the run exports what the config offers now: these rows and columns, to a file that is named so.

    A run may have been queued by other ways, with a query or a path of somebody's own.
    """
    if run.kind != KIND:
        return False
    if run.schedule_id is not None:
        job = settings.jobs.get(run.schedule_id)
        return job is not None and all(run.params.get(name) == job.params.get(name) for name in _ROWS)
    source = source_of(settings, run)
    return source is not None and _is_of(source, run.params)


def source_of(settings: ExportSettings, run: RunView) -> ExportSource | None:
    """Return the source that the run's path names; None for any other path."""
    path = run.params.get("path")
    for source in settings.sources.values():
        if any(path == settings.file_of(source.name, _PLACE_OF_RUN, name) for name in source.formats):
            return source
    return None


def file_of(settings: ExportSettings, run: RunView) -> Place:
    """Return where the run's file is; raises NotServed when it has none, or it is not where such files are.

    What the row says is not believed: the folder and the shape of the name are the config's.
    """
    result = run.result or {}
    path, version = result.get("path"), result.get("version")
    if not is_offered(settings, run) or run.state != RunState.SUCCEEDED.value:
        raise NotServed("the run has no file that may be downloaded")
    if not isinstance(path, str) or not isinstance(version, str):
        raise NotServed("the run wrote no file, or an older batchd wrote it")
    folder, _, name = path.rpartition("/")
    if run.schedule_id is None:
        is_its_own = path == str(run.params["path"]).replace(_PLACE_OF_RUN, str(run.id))
    else:
        template = PurePosixPath(settings.jobs[run.schedule_id].path)
        is_named_so = re.fullmatch(pattern_of(template.name, job=run.schedule_id), name) is not None
        is_its_own = is_named_so and folder == str(template.parent)
    if not is_its_own:
        raise NotServed("the run's file is not where its export's files are")
    return Place(folder, name, version)


def _is_of(source: ExportSource, params: JsonObject) -> bool:
    """Whether the params ask for no more than the source has."""
    columns, match = params.get("columns"), params.get("match", {})
    return (
        (params.get("database"), params.get("table"), params.get("query"), params.get("where"))
        == (source.database, source.table, source.query, source.where)
        and params.get("report") is None
        and isinstance(columns, list)
        and bool(columns)
        and {str(name) for name in columns} <= set(source.columns)
        and isinstance(match, dict)
        and match.keys() <= source.filters
    )
