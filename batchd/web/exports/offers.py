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
_NAMED_BY_SOURCE = re.compile(r"(?P<source>[A-Za-z0-9][A-Za-z0-9_.-]*)-(?P<run>\d+)\.(?P<format>[a-z.]+)", re.ASCII)


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
    """Whether the run is an export that the config offers, as far as its row says."""
    if run.kind != KIND:
        return False
    if run.schedule_id is not None:
        return run.schedule_id in settings.jobs
    path = run.params.get("path")
    return isinstance(path, str) and PurePosixPath(path).parent == PurePosixPath(settings.folder)


def file_of(settings: ExportSettings, run: RunView) -> Place:
    """Return where the run's file is; raises NotServed when it has none, or it is not where such files are.

    What the row says is not believed: the folder and the shape of the name are the config's.
    """
    result = run.result or {}
    path, version = result.get("path"), result.get("version")
    if not is_offered(settings, run) or run.state != RunState.SUCCEEDED.value:
        raise NotServed("the run has no file to download")
    if not isinstance(path, str) or not isinstance(version, str):
        raise NotServed("the run wrote no file, or an older batchd wrote it")
    folder, _, name = path.rpartition("/")
    if run.schedule_id is None:
        found = _NAMED_BY_SOURCE.fullmatch(name)
        is_its_own = folder == settings.folder and found is not None and int(found["run"]) == run.id
        if not is_its_own or found is None or found["source"] not in settings.sources:
            raise NotServed("the run's file is not where exports are")
    else:
        template = PurePosixPath(settings.jobs[run.schedule_id])
        is_its_own = re.fullmatch(pattern_of(template.name, job=run.schedule_id), name) is not None
        if folder != str(template.parent) or not is_its_own:
            raise NotServed("the run's file is not where exports of its job are")
    return Place(folder, name, version)
