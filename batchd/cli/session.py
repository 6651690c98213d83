"""What most commands need first: the config, wherever it is, and the store, if it was ever made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from batchd.config.load import Config, load_config
from batchd.config.places import config_path
from batchd.db.engine import Database
from batchd.errors import BatchdError, SchemaMismatch, UsageError
from batchd.jobs.catalog import kinds
from batchd.store.meta import has_tables
from batchd.store.migrate import check_version

F = TypeVar("F", bound=Callable[..., Any])

STORE = ("store",)
"""The sections whose secrets a command needs that works on batchd's own tables alone."""


def config_option(command: F) -> F:
    """Add `--config`, which wins over one that stands before the command."""
    return click.option(
        "--config",
        "-c",
        "config_file",
        metavar="FILE",
        shell_complete=complete_file,
        help="The config (default: $BATCHD_CONFIG, ./config.toml, …).",
    )(command)


def job_argument(*, required: bool = True) -> Callable[[F], F]:
    """Add the argument JOB, which the shell completes from the config."""
    return click.argument("job", required=required, shell_complete=complete_job)


def open_config(given: str | None, *, secrets: Collection[str] | None = None) -> Config:
    """Return the config of this command line; raises ConfigInvalid with every problem that it has.

    `secrets` are the sections whose secrets the command uses (None: all). Others may be such as only the service can
    read: raises CredentialDenied for those that are needed alone.
    """
    context = click.get_current_context(silent=True)
    before_command = context.find_root().obj if context else None
    config = load_config(config_path(given or before_command, os.environ), os.environ, may_lack_secrets=True)
    config.require_secrets(secrets)
    return config


def open_whole_config(
    given: str | None, modules: Sequence[str] = (), *, secrets: Collection[str] | None = None
) -> Config:
    """Return the config with the jobs that its `import` declares, and those of the modules; imports a team's code."""
    config = open_config(given, secrets=secrets)
    if not modules and not config.settings.daemon.imports:
        return config
    from batchd.config.imports import with_imports  # noqa: PLC0415 (most configs import nothing)

    return with_imports(config, modules)


@contextlib.contextmanager
def open_store(config: Config) -> Iterator[Database]:
    """Yield the store; raises SchemaMismatch when it was never made, CredentialDenied when only the service knows it.

    Makes nothing, not even an empty file.
    """
    config.require_secrets(STORE)
    with contextlib.closing(Database(config.store)) as store:
        if not has_tables(store):
            raise SchemaMismatch(
                "the store has no tables yet",
                hint="start the daemon (`batchd run`), which makes them, or run `batchd migrate`",
            )
        check_version(store)
        yield store


def known_job(config: Config, name: str) -> str:
    """Return the name if the config has such a job; raises UsageError with the nearest one that it has."""
    names = [job.name for job in config.jobs]
    if name in names:
        return name
    near = get_close_matches(name, names, n=1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"the config has: {', '.join(sorted(names))}" if names else "the config has no job at all"
    raise UsageError(f"no job {name!r} in {config.path}", hint=hint)


def complete_file(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell itself complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def complete_kind(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a kind."""
    return [CompletionItem(name, help=kind.summary) for name, kind in kinds().items() if name.startswith(incomplete)]


def complete_param(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the KEY= of a parameter of the job that the line names."""
    config = _config_of(context)
    # Behind an option that still lacks its value, click leaves the words before it where they are.
    words = {context.params.get("job"), *context.args}
    job = next((each for each in config.jobs if each.name in words), None) if config else None
    if config is None or job is None:
        return []
    keys = config.kinds[job.kind].params.model_fields
    return [CompletionItem(f"{key}=") for key in keys if key.startswith(incomplete)]


def complete_job(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a job of the config."""
    config = _config_of(context)
    jobs = config.jobs if config else ()
    return [CompletionItem(job.name, help=job.kind) for job in jobs if job.name.startswith(incomplete)]


def _config_of(context: click.Context) -> Config | None:
    given = context.params.get("config_file") or context.find_root().params.get("config")
    try:
        return load_config(config_path(given, os.environ), os.environ, may_lack_secrets=True)
    except BatchdError:
        return None
