"""What an import is asked to do, and what it finds to do when it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path

from batchd.db.types import SQLITE_TIMESTAMP
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.csv_import.formats import FormatRequest
from batchd.jobs.csv_import.inbox import MOST_FILES, files_of, is_pattern, settled
from batchd.jobs.csv_import.mapping import MappingRequest
from batchd.jobs.csv_import.sources import STDIN, FileFacts, facts_of, is_url, without_secrets
from batchd.jobs.csv_import.state import ImportState
from batchd.jobs.csv_import.writing import Conflict


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import and how; see the parameters of `csv_import` for each."""

    path: str
    table: str
    form: FormatRequest
    header: Sequence[str] | None
    skip_lines: int
    mapping: MappingRequest
    conflict: Conflict
    key: Sequence[str] | None
    update: Sequence[str] | None
    max_rejects: int
    rejects_to: Path | None
    batch_size: int | None
    pause: timedelta
    settle: timedelta
    headers: Mapping[str, str]
    done_folder: str | None
    failed_folder: str | None
    dry_run: bool


def begun(request: ImportRequest, context: JobContext) -> ImportState:
    """Return the state before the first record; raises JobError for a file that is not there, or not complete."""
    now = context.now()
    path = request.path
    if path == STDIN or is_url(path):
        sources = [FileFacts(without_secrets(path))]
    elif is_pattern(path):
        aside = [name for name in (request.done_folder, request.failed_folder) if name]
        found = files_of(path, aside)
        sources = settled(found, request.settle, now)[:MOST_FILES]
        if len(sources) < len(found):
            context.log.info("csv_import.files_left", path=path, files=len(found) - len(sources))
    else:
        sources = settled([Path(path)], request.settle, now)
        if not sources:
            facts_of(Path(path))
            raise JobError(f"{path} is still being written", hint="it is taken once it has settled")
    return ImportState(tuple(sources), now.astimezone(UTC).strftime(SQLITE_TIMESTAMP))
