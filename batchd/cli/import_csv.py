"""`batchd import`: the kind csv_import on one file, at once and without a daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from batchd.cli.direct_run import DirectContext, as_interrupts, described, kept_rejects, record, validated
from batchd.cli.output import emit_facts, emit_json, emit_table, heading, json_option, say
from batchd.cli.progress_bar import ByteProgress
from batchd.cli.session import config_option, open_config
from batchd.cli.text import span
from batchd.cli.types import Override
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.domain.job import JsonObject, JsonValue
from batchd.domain.run import RunState
from batchd.errors import ExitCode, JobError, UsageError
from batchd.jobs.catalog import kinds
from batchd.store import checkpoints, rejects
from batchd.store.ended_runs import EndedRun

_KIND = "csv_import"
_STDIN = "-"
_SHOWN_REJECTS = 20
_UNSHARED = ("headers",)


@click.command(name="import")
@config_option
@click.argument("file", metavar="FILE")
@click.option("--database", "-d", required=True, metavar="NAME", help="One of the config's [databases.NAME].")
@click.option("--table", "-t", required=True, help='The table: users, crm.users, or "User" in double quotes.')
@click.option("--column", "-m", "columns", multiple=True, type=Override(), help="COLUMN=FIELD; may be given often.")
@click.option("--ignore", multiple=True, metavar="FIELD", help="A field that goes nowhere; * for all unknown ones.")
@click.option("--constant", "constants", multiple=True, type=Override(), help="COLUMN=VALUE, the same in every row.")
@click.option("--computed", multiple=True, type=Override(), help="COLUMN=now, file, line or run_id.")
@click.option("--delimiter", help='One character, "tab", or auto (the default).')
@click.option("--encoding", help="utf-8, utf-16, latin-1, cp932, … or auto (the default).")
@click.option("--on-conflict", type=click.Choice(["error", "skip", "update"]), help="When a key is there already.")
@click.option("--key", multiple=True, metavar="COLUMN", help="The key that --on-conflict update goes by.")
@click.option("--max-rejects", type=click.IntRange(0), help="Most bad records; one more ends the import.")
@click.option("--rejects-to", type=click.Path(path_type=Path), help="A folder for a file with all bad records.")
@click.option("--param", "-p", "params", multiple=True, type=Override(), help="KEY=VALUE: any other of csv_import's.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, but change nothing.")
@click.option("--restart", is_flag=True, help="Begin anew where an earlier import of this file was stopped.")
@json_option
def import_csv(config_file: str | None, *, file: str, restart: bool, as_json: bool, **given: Any) -> None:
    """Import a CSV file (also .gz, .zst, http(s)://…, or - for standard input) into a table, with a progress bar.

    \b
      batchd import users.csv --table users --database app
      batchd import users.csv -t users -d app --on-conflict update --key email --column name="Full name"
      zcat dump.gz | batchd import - -t users -d app -p 'header=["email","name"]'

    The daemon is not needed. Stopped in the middle, the same command goes on behind the last record that it committed;
    --restart begins anew. `batchd kinds csv_import` explains every parameter. Exits with 10 when the import failed.
    """
    config = open_config(config_file)
    kind = kinds()[_KIND]
    wanted = _params(file, given)
    params = validated(kind, wanted)
    with contextlib.closing(_database(config, given["database"])) as database:
        identity = None if file == _STDIN else f"{_KIND} {_whole(file)} {database.name} {given['table']}"
        began = SystemClock().now()
        with ByteProgress(Path(file).name or file, quiet=as_json) as bar:
            context = DirectContext(
                _KIND, {database.name: database}, identity=identity, on_progress=bar.show, is_quiet=as_json
            )
            if restart:
                _forget(database, context)
            try:
                with as_interrupts():
                    result, failed = kind.run(params, context), None
            except JobError as error:
                result, failed = error.result or {}, error
            except KeyboardInterrupt:
                if identity is not None and not given["dry_run"]:
                    say("stopped; the same command goes on behind the last record that was committed", color="yellow")
                raise
        state = RunState.SUCCEEDED if failed is None else RunState.FAILED
        shown = () if given["dry_run"] else kept_rejects(database, context, _SHOWN_REJECTS)
        run_id = None
        if not given["dry_run"]:
            stored: JsonObject = {key: value for key, value in wanted.items() if key not in _UNSHARED}
            why = None if failed is None else described(failed)
            run_id = record(config, kind, database, context, EndedRun(state, stored, began, result, why))
            if failed is None:
                _forget(database, context)
    took = SystemClock().now() - began
    _tell(result, took, run_id, shown, as_json=as_json)
    if failed is not None:
        raise ImportFailed(failed.message, hint=failed.hint)


class ImportFailed(JobError):
    """The import failed; what it committed stays."""

    exit_code = ExitCode.RUN_FAILED


def _params(file: str, given: dict[str, Any]) -> dict[str, JsonValue]:
    """Return the kind's params; what was not given is left to its defaults."""
    path = file if file == _STDIN else _whole(file)
    found: dict[str, JsonValue] = {"path": path, "after": "keep", **dict(given["params"])}
    for name in ("columns", "constants", "computed"):
        if given[name]:
            found[name] = {key: value if name == "constants" else str(value) for key, value in given[name]}
    for name in ("ignore", "key"):
        if given[name]:
            found[name] = list(given[name])
    for name in ("database", "table", "delimiter", "encoding", "on_conflict", "max_rejects"):
        if given[name] is not None:
            found[name] = given[name]
    if given["rejects_to"] is not None:
        found["rejects_to"] = str(given["rejects_to"])
    return {**found, "dry_run": given["dry_run"]}


def _whole(file: str) -> str:
    return file if "://" in file else str(Path(file).absolute())


def _database(config: Config, name: str) -> Database:
    settings = config.databases.get(name)
    if settings is None:
        known = ", ".join(sorted(config.databases)) or "none"
        raise UsageError(f"there is no [databases.{name}] in {config.path}", hint=f"it has: {known}")
    return Database(settings)


def _forget(database: Database, context: DirectContext) -> None:
    checkpoints.ensure_table(database)
    checkpoints.forget(database, context.key)
    rejects.forget(database, context.key)


def _tell(
    result: JsonObject, took: timedelta, run_id: int | None, shown: Sequence[rejects.RejectView], *, as_json: bool
) -> None:
    if as_json:
        emit_json({"run_id": run_id, "result": result, "rejects": shown, "duration_seconds": took})
        return
    records = result.get("records")
    rate = f"{records / max(took.total_seconds(), 0.001):,.0f} records/s" if isinstance(records, int) else None
    emit_facts([("run", run_id), *result.items(), ("took", span(took)), ("rate", rate)])
    if shown:
        heading("Rejects")
        emit_table(("line", "reason"), [(row.position, row.reason) for row in shown])
