"""Commands for whoever installs batchd: migrate, completion."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from batchd.cli.output import emit_json, json_option
from batchd.cli.session import STORE, config_option, open_config
from batchd.db.engine import Database, dialect_of
from batchd.errors import CannotCreate, UsageError
from batchd.store.migrate import migrate as apply_migrations
from batchd.store.migrate import migration_sql

_COMPLETE_VARIABLE = "_BATCHD_COMPLETE"


@click.command()
@config_option
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL for an administrator to run, and change nothing.")
@json_option
def migrate(config_file: str | None, *, as_sql: bool, as_json: bool) -> None:
    """Make or upgrade batchd's tables in the store. The daemon does the same when it starts.

    \b
      batchd migrate
      batchd migrate --sql | psql "$BATCHD_STORE_URL"
    """
    config = open_config(config_file, secrets=STORE)
    if as_sql:
        click.echo(migration_sql(dialect_of(config.store.url).name))
        return
    with contextlib.closing(Database(config.store)) as store:
        _make_folder(store)
        changed = apply_migrations(store)
    if as_json:
        emit_json({"changed": bool(changed)})
    else:
        click.echo("the store's tables are made and up to date" if changed else "the store's tables were up to date")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes your shell complete batchd's commands, options and the config's job names.

    \b
      bash:  batchd completion bash > ~/.local/share/bash-completion/completions/batchd
      zsh:   batchd completion zsh > "${fpath[1]}/_batchd"
      fish:  batchd completion fish > ~/.config/fish/completions/batchd.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise UsageError(f"no completion for {shell}")
    root = click.get_current_context().find_root()
    click.echo(script(root.command, {}, str(root.info_name), _COMPLETE_VARIABLE).source())


def _make_folder(store: Database) -> None:
    if store.dialect.name != "sqlite":
        return
    folder = Path(str(store.engine.url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreate(
            f"cannot create {folder}: {error.strerror}", hint="set [store] url to another file"
        ) from error
