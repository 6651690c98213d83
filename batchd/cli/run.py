"""`batchd run`: the daemon itself."""

from __future__ import annotations

from dataclasses import replace

import click

from batchd import daemon
from batchd.cli.session import config_option, open_whole_config
from batchd.config.http import listening_on
from batchd.config.load import Config
from batchd.errors import UsageError


@click.command()
@config_option
@click.option(
    "--no-wait", is_flag=True, help="Exit with 69 when the store cannot be reached, instead of waiting for it."
)
@click.option(
    "--import",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="A module whose functions with @batchd.job become jobs; beside those of [daemon] import.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Serve HTTP there, though the config has no [http], or another address in it: 127.0.0.1:8787.",
)
@click.option("--allow-empty", is_flag=True, help="Accept a config without any job (which removes every schedule).")
def run(
    config_file: str | None, *, modules: tuple[str, ...], listen: str | None, no_wait: bool, allow_empty: bool
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C, which stop it gracefully; a second signal stops it at once.

    \b
      batchd run --config config.toml
      batchd run --import myapp.jobs
      BATCHD_CONFIG=/etc/batchd/config.toml batchd run

    Makes or upgrades its tables, takes over the config's jobs, then plans and runs them. Logs go to stdout: JSON, or
    readable lines on a terminal. Exit codes: 0 stopped, 69 store unreachable and told not to wait, 70 a part of it
    died, 73 state cannot be made, 75 another daemon has this SQLite store, 76 tables are newer than this batchd, 78
    config invalid.
    """
    config = open_whole_config(config_file, modules)
    if listen is not None:
        config = _listening(config, listen)
    click.get_current_context().exit(daemon.run(config, no_wait=no_wait, allow_empty=allow_empty, modules=modules))


def _listening(config: Config, listen: str) -> Config:
    try:
        asked = listening_on(listen)
    except ValueError as error:
        raise UsageError(f"--listen {error}") from None
    http = (
        asked
        if config.http is None
        else replace(config.http, listen=asked.listen, hosts=config.http.hosts | asked.hosts)
    )
    return replace(config, http=http)
