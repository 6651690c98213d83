"""`batchd run`: the daemon itself."""

from __future__ import annotations

import os

import click

from batchd import daemon
from batchd.cli.session import config_option
from batchd.config.http import listening_on
from batchd.config.places import config_path
from batchd.config.source import ConfigSource
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
    readable lines on a terminal. SIGHUP and `batchd reload` take over a changed config, SIGUSR1 logs what it does at
    the moment, SIGUSR2 has it claim no more runs, and claim again. Exit codes: 0 stopped, 69 store unreachable, 70 a
    part of it died, 73 state cannot be made, 75 another daemon has this SQLite store, 76 tables are newer than this
    batchd, 78 config invalid.
    """
    if listen is not None:
        _check(listen)
    context = click.get_current_context()
    # Absolute: the daemon works in the config's folder, and reads it again from there.
    path = config_path(config_file or context.find_root().obj, os.environ).absolute()
    source = ConfigSource(path, dict(os.environ), modules, allow_empty=allow_empty, listen=listen)
    context.exit(daemon.run(source, no_wait=no_wait))


def _check(listen: str) -> None:
    try:
        listening_on(listen)
    except ValueError as error:
        raise UsageError(f"--listen {error}") from None
