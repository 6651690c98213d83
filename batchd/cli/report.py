"""`batchd report preview`: a report as it would be mailed, in a file, without sending anything."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from batchd.cli.output import emit_facts, emit_json, json_option, say
from batchd.cli.session import config_option, job_argument, known_job, open_config, open_store
from batchd.cli.types import IsoMoment
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.config.places import working_in
from batchd.db.engine import Database
from batchd.domain.job import JsonValue
from batchd.errors import CannotCreate, SchemaMismatch, UsageError
from batchd.jobs.kinds.report import KIND, preview_parcel
from batchd.jobs.reports.build import Built, build_report, with_inline_images
from batchd.jobs.reports.files import write_whole
from batchd.jobs.reports.params import ReportParams
from batchd.jobs.reports.source import ReportSource
from batchd.store import meta, results
from batchd.store.digest import Digest, digest
from batchd.telemetry.events import message_of

_NEXT_RUN = 2**62
_NEVER = threading.Event()
_NO_STORE = "00000000-0000-4000-8000-000000000000"


@click.group()
@config_option
@click.pass_context
def report(context: click.Context, config_file: str | None) -> None:
    """Look at reports before they are mailed.

    \b
      batchd report preview shop-report --open
    """
    if config_file is not None:
        context.find_root().obj = config_file


@report.command()
@config_option
@job_argument()
@click.option("--open", "as_open", is_flag=True, help="Show it in the browser.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it: .html (default: JOB.html), .txt for the text part, .eml for the whole message.",
)
@click.option("--at", type=IsoMoment(), help="As if the run were scheduled for this moment (default: now).")
@json_option
def preview(
    config_file: str | None, job: str, *, as_open: bool, out: Path | None, at: datetime | None, as_json: bool
) -> None:
    """Ask a report's queries and write what it would send, and send nothing.

    \b
      batchd report preview shop-report --open
      batchd report preview shop-report --out /tmp/shop.eml      to look at it in a mail client
      batchd report preview shop-report --at 2026-11-24T07:00Z

    Works with and without a daemon. Changes are shown against the job's last run, if it had one.
    """
    config = open_config(config_file)
    known_job(config, job)
    params = _params(config, job)
    named = out or Path(f"{job}.html")
    file = named.absolute()
    with _context(config, job, at) as context, working_in(config.folder):
        try:
            built = build_report(params, context)
            _write(file, params, context, built)
        finally:
            context.close()
    if as_json:
        emit_json({"file": str(named), "subject": built.subject, **built.facts})
    else:
        emit_facts([("subject", built.subject), ("alert", built.alert), ("file", str(named))])
    if as_open:
        webbrowser.open(file.resolve().as_uri())


def _params(config: Config, job: str) -> ReportParams:
    definition = next(each for each in config.jobs if each.name == job)
    if definition.kind != KIND.name:
        reports = [each.name for each in config.jobs if each.kind == KIND.name]
        raise UsageError(
            f"job {job!r} is of kind {definition.kind!r}, not a report",
            hint=f"the reports are: {', '.join(reports)}" if reports else "the config has no report",
        )
    try:
        return ReportParams.model_validate(config.params[job])
    except ValidationError as error:  # pragma: no cover (the config was checked with the same model)
        raise UsageError(f"job {job!r}: its params are not understood") from error


@contextlib.contextmanager
def _context(config: Config, job: str, at: datetime | None) -> Iterator[_Looking]:
    try:
        with open_store(config) as store:
            yield _Looking(config, job, at, store)
    except SchemaMismatch as error:
        if "no tables" not in error.message:
            raise
        yield _Looking(config, job, at, None)


def _write(file: Path, params: ReportParams, context: ReportSource, built: Built) -> None:
    match file.suffix:
        case ".eml":
            content = preview_parcel(params, context, built).content
        case ".txt":
            content = built.text.encode()
        case _:
            content = with_inline_images(built).encode()
    try:
        write_whole(file, content)
    except OSError as error:
        raise CannotCreate(f"cannot write {file}: {error.strerror}", hint="name another file with --out") from error


class _Said:
    """A `Log` for a person: what somebody should look at goes to stderr, the rest nowhere."""

    def debug(self, event: str, **fields: Any) -> None:
        """Say nothing."""

    def info(self, event: str, **fields: Any) -> None:
        """Say nothing."""

    def warning(self, event: str, **fields: Any) -> None:
        """Say it."""
        say(message_of(event, fields), color="yellow")

    error = warning


class _Looking:
    """A `ReportSource` outside of any run. `store` None: it was never made."""

    def __init__(self, config: Config, job: str, at: datetime | None, store: Database | None) -> None:
        self.log = _Said()
        self.run_id = 0
        self.job = job
        self.scheduled_for = at.astimezone() if at is not None else None
        self.mail = config.mail
        self.store_id = _NO_STORE if store is None else meta.store_id(store)
        self._store = store
        self._databases = {name: Database(settings) for name, settings in config.databases.items()}

    def close(self) -> None:
        """Close every connection."""
        for database in self._databases.values():
            database.close()

    @property
    def previous_result(self) -> Mapping[str, JsonValue] | None:
        """See `ReportSource`."""
        return None if self._store is None else results.previous_result(self._store, self.job, _NEXT_RUN)

    def now(self) -> datetime:
        """See `ReportSource`."""
        return SystemClock().now()

    def database(self, name: str) -> Database:
        """See `ReportSource`."""
        return self._databases[name]

    def reading(self, database: Database) -> contextlib.AbstractContextManager[Any]:
        """See `ReportSource`."""
        return database.reading()

    def digest(self, since: datetime, until: datetime) -> Digest:
        """See `ReportSource`."""
        if self._store is None:
            raise SchemaMismatch("the store has no tables yet", hint="start the daemon once, or run `batchd migrate`")
        return digest(self._store, since, until)

    def raise_if_stopping(self) -> None:
        """Go on: Ctrl-C ends the command."""

    def wait(self, pause: timedelta) -> None:
        """Wait; Ctrl-C ends it."""
        _NEVER.wait(pause.total_seconds())
