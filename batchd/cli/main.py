"""The door: parses the command line, runs the command, turns whatever happens into one message and an exit code."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import shell_complete

from batchd import __version__
from batchd.cli.commands import Commands
from batchd.cli.text import cleaned
from batchd.errors import BatchdError, ExitCode

_PROGRAM = "batchd"
_COMPLETE_VARIABLE = "_BATCHD_COMPLETE"
_DEBUG_VARIABLE = "BATCHD_DEBUG"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

_HELP = """Run batch jobs against the SQL database that you already have.

\b
  batchd check --connect           is the config right, do the databases answer?
  batchd run                       the daemon
  batchd jobs                      what is there, when does it run next?
  batchd runs --since 1d           what happened?
  batchd show 42                   why?
  batchd trigger cleanup --wait    now, please

The config is --config, else $BATCHD_CONFIG, else ./config.toml, else /etc/batchd/config.toml. Most commands know
--json. Exit codes: 0 done, 1 unexpected error, 2 bad usage, 10 to 13 what a run or the daemon's health came to, 69
store unreachable, 75 already running, 76 tables missing or of another version, 78 config invalid, 130 Ctrl-C.
"""


@click.command(cls=Commands, name=_PROGRAM, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "-c", metavar="FILE", help="The config file; may also stand after the command.")
@click.version_option(__version__, "--version", "-V", message="batchd %(version)s")
@click.pass_context
def cli(context: click.Context, config: str | None) -> None:
    """Remember the config that was named before the command."""
    context.obj = config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code; never raises."""
    if sys.stdout is None:  # closed by the caller: `batchd jobs >&-`
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    words = list(sys.argv[1:] if arguments is None else arguments)
    instruction = os.environ.get(_COMPLETE_VARIABLE)
    if instruction:
        return shell_complete(cli, {}, _PROGRAM, _COMPLETE_VARIABLE, instruction)
    as_json = "--json" in words
    try:
        code = _invoke(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return ExitCode.OK
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        return _report_usage(error, as_json=as_json)
    except BatchdError as error:
        return _report(error.message, error.hint, error.exit_code, as_json=as_json)
    except Exception as error:
        if os.environ.get(_DEBUG_VARIABLE):
            raise
        return _report_unexpected(error, as_json=as_json)
    return code


def _invoke(words: list[str]) -> int:
    try:
        with cli.make_context(_PROGRAM, words) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return ExitCode.OK


def _report_usage(error: click.ClickException, *, as_json: bool) -> int:
    if as_json:
        return _report(error.format_message(), None, ExitCode.USAGE, as_json=True)
    error.show()
    return ExitCode.USAGE


def _report_unexpected(error: Exception, *, as_json: bool) -> int:
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        _silence_stdout()
        return _report(f"cannot write: {error.strerror}", None, ExitCode.CANNOT_CREATE, as_json=as_json)
    first_line = next(iter(str(error).splitlines()), "")
    return _report(
        f"unexpected error: {type(error).__name__}: {first_line}",
        f"set {_DEBUG_VARIABLE}=1 to see where it comes from",
        ExitCode.UNEXPECTED,
        as_json=as_json,
    )


def _report(message: str, hint: str | None, code: ExitCode, *, as_json: bool) -> int:
    if as_json:
        said = {"code": code.name.lower(), "message": message, "hint": hint}
        click.echo(json.dumps({"error": said}), err=True)
        return code
    click.echo(click.style("error: ", fg="red", bold=True) + cleaned(message, keep="\n"), err=True, color=_err_color())
    if hint:
        click.echo(click.style("hint: ", fg="cyan") + cleaned(hint, keep="\n"), err=True, color=_err_color())
    return code


def _err_color() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _silence_stdout() -> None:
    """Let the interpreter's own flush at exit go nowhere: whoever read us has stopped reading."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
