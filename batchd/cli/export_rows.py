"""`batchd export`: the kind csv_export at once and without a daemon."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from batchd.cli.direct_run import DirectContext, as_interrupts, described, record, validated
from batchd.cli.output import emit_facts, emit_json, json_option, say
from batchd.cli.progress_bar import RowProgress
from batchd.cli.session import config_option, open_config
from batchd.cli.text import span
from batchd.cli.types import Override
from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.job import JsonObject, JsonValue
from batchd.domain.run import RunState
from batchd.errors import ExitCode, JobError, UsageError
from batchd.jobs.catalog import kinds
from batchd.store.ended_runs import EndedRun

_KIND = "csv_export"


@click.command(name="export")
@config_option
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--database", "-d", required=True, metavar="NAME", help="One of the config's [databases.NAME].")
@click.option("--table", "-t", help='The table: users, crm.users, or "User" in double quotes.')
@click.option("--query", "-q", help="One SELECT, instead of a table.")
@click.option("--where", "-w", help="A SQL condition that rows of the table must meet.")
@click.option("--column", "-m", "columns", multiple=True, metavar="COLUMN", help="Only these, in this order.")
@click.option("--escape-formulas", is_flag=True, help="Make texts harmless that a spreadsheet would execute.")
@click.option("--param", "-p", "params", multiple=True, type=Override(), help="KEY=VALUE: any other of csv_export's.")
@click.option("--dry-run", is_flag=True, help="Count the rows, and write nothing.")
@json_option
def export_rows(config_file: str | None, *, file: Path, as_json: bool, **given: Any) -> None:
    """Export a table or a query to a file, with a progress bar. The file's ending says the format.

    \b
      batchd export users.csv --table users --database app
      batchd export orders-{date}.ndjson.zst -d app -q "SELECT * FROM orders WHERE total > 100"
      batchd export people.xlsx -d app -t users --column id --column email --where active

    Knows .csv, .tsv, .ndjson, .jsonl (with .gz or .zst), .xlsx and .parquet. The daemon is not needed. The file appears
    whole or not at all. `batchd kinds csv_export` explains every parameter. Exits with 10 when the export failed.
    """
    config = open_config(config_file)
    kind = kinds()[_KIND]
    wanted = _params(file, given)
    if wanted.get("resumable"):
        raise UsageError("`resumable` is for a job, whose next attempt goes on", hint="leave it out, or make it a job")
    params = validated(kind, wanted)
    settings = config.databases.get(given["database"])
    if settings is None:
        known = ", ".join(sorted(config.databases)) or "none"
        raise UsageError(f"there is no [databases.{given['database']}] in {config.path}", hint=f"it has: {known}")
    began = SystemClock().now()
    with contextlib.closing(Database(settings)) as database:
        with RowProgress(file.name, quiet=as_json) as bar:
            context = DirectContext(
                _KIND, {database.name: database}, identity=None, on_progress=bar.show, is_quiet=as_json
            )
            try:
                with as_interrupts():
                    result, failed = kind.run(params, context), None
            except JobError as error:
                result, failed = error.result or {}, error
            except KeyboardInterrupt:
                say("stopped; nothing was written", color="yellow")
                raise
        run_id = None
        if not given["dry_run"]:
            state = RunState.SUCCEEDED if failed is None else RunState.FAILED
            why = None if failed is None else described(failed)
            run_id = record(config, kind, database, context, EndedRun(state, wanted, began, result, why))
    took = SystemClock().now() - began
    if failed is not None:
        raise ExportFailed(failed.message, hint=failed.hint)
    if as_json:
        emit_json({"run_id": run_id, "result": result, "duration_seconds": took})
        return
    rows = result.get("rows")
    rate = f"{rows / max(took.total_seconds(), 0.001):,.0f} rows/s" if isinstance(rows, int) and rows else None
    emit_facts([("run", run_id), *result.items(), ("took", span(took)), ("rate", rate)])


class ExportFailed(JobError):
    """The export failed; no file was written."""

    exit_code = ExitCode.RUN_FAILED


def _params(file: Path, given: dict[str, Any]) -> JsonObject:
    """Return the kind's params; what was not given is left to its defaults."""
    found: dict[str, JsonValue] = {"path": str(file.absolute()), **dict(given["params"])}
    for name in ("database", "table", "query", "where"):
        if given[name] is not None:
            found[name] = given[name]
    if given["columns"]:
        found["columns"] = list(given["columns"])
    return {**found, "escape_formulas": given["escape_formulas"], "dry_run": given["dry_run"]}
