"""A report as files: the HTML with its pictures in it, and its attachments beside it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from batchd.errors import JobError
from batchd.jobs.reports.build import Built, with_inline_images


def save_report(built: Built, save_to: str, job: str, run_id: int) -> Path:
    """Write the report and return its file; a run that is tried again writes the same files again.

    Raises JobError when it cannot be written.
    """
    place = Path(save_to).expanduser()
    if save_to.endswith("/") or place.is_dir():
        place /= f"{job}-{_stamp(built.until)}-{run_id}.html"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for attachment in built.attachments:
            write_whole(place.with_name(f"{place.stem}-{attachment.filename}"), attachment.content)
        write_whole(place, with_inline_images(built).encode())
    except OSError as error:
        raise JobError(f"job {job!r}: the report cannot be written to {place}: {error.strerror}") from error
    return place


def write_whole(file: Path, content: bytes) -> None:
    """Write the file whole or not at all: a temporary name, fsync, rename; raises OSError."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
