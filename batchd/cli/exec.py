"""`batchd exec`: run any command, under cron or by hand, and have it in the ledger."""

from __future__ import annotations

from pathlib import PurePath

import click

from batchd.cli.session import complete_job, config_option
from batchd.cli.types import Override
from batchd.domain.job import JsonValue
from batchd.monitoring.command import Output, run_reported
from batchd.monitoring.places import open_place
from batchd.monitoring.recorder import Recorder


@click.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@config_option
@click.option(
    "--job", "-j", required=True, metavar="JOB", shell_complete=complete_job, help="What the run is a run of."
)
@click.option("--store", metavar="URL", envvar=None, help="The store, instead of the config's; see $BATCHD_STORE_URL.")
@click.option("--meta", "-m", "metadata", multiple=True, type=Override(), help="KEY=VALUE: kept with the run.")
@click.option(
    "--output",
    type=click.Choice([each.value for each in Output]),
    default=Output.ALL.value,
    show_default=True,
    help="What of the command's output is kept with the run.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    config_file: str | None,
    job: str,
    store: str | None,
    metadata: tuple[tuple[str, JsonValue], ...],
    output: str,
    command: tuple[str, ...],
) -> None:
    """Run a command and record it as a run of JOB: start, output, exit code, failure, and its sudden death.

    \b
      batchd exec --job nightly-backup -- pg_dump -Fc -f /backup/app.dump app
      0 3 * * *  batchd exec --job nightly-backup -- /usr/local/bin/backup.sh       (in a crontab)

    The command's output passes through, and its exit code is this command's: 127 when there is no such command, 128
    plus the number when a signal ended it. When the store cannot be reached, the command runs all the same, and stderr
    says that it is not recorded. The job need not stand in the config. `batchd cancel RUN` ends the command. The store
    is --store, else that of --config, else $BATCHD_STORE_URL, else that of the usual config. Of the output the first
    200 and the last 300 lines are kept; not what goes to a file with `>`.
    """
    context = click.get_current_context()
    config = config_file or context.find_root().obj
    # Only the command's name is kept: its arguments may well hold a password.
    params: dict[str, JsonValue] = {"command": PurePath(command[0]).name, **dict(metadata)}
    recorder = Recorder(job, params, lambda: open_place(store, config))
    context.exit(run_reported(command, recorder, Output(output)))
