"""Writes docs/cli.md from the commands themselves: `python -m batchd.cli.reference > docs/cli.md`; a test compares."""

from __future__ import annotations

from typing import Any

import click

from batchd.cli.commands import GROUPS
from batchd.cli.main import cli
from batchd.errors import ExitCode

EXIT_CODES = {
    ExitCode.OK: "done; a stopped daemon, also by SIGTERM; a config that is right",
    ExitCode.UNEXPECTED: "an unexpected error, or a second signal stopped the daemon at once",
    ExitCode.USAGE: "bad usage: an unknown command, option, job or run, or a run that cannot be cancelled or retried",
    ExitCode.RUN_FAILED: "`--wait`: the run failed or was quarantined",
    ExitCode.RUN_TIMED_OUT_OR_CANCELLED: "`--wait`: the run timed out or was cancelled, or `--timeout` passed",
    ExitCode.RUN_SKIPPED: "`--wait`: the run was skipped or missed",
    ExitCode.DEGRADED: "`status --check`: degraded",
    ExitCode.STORE_UNREACHABLE: "the store (or with `check --connect` a database) cannot be reached",
    ExitCode.INTERNAL: "a part of the daemon died; a supervisor should start it again",
    ExitCode.CANNOT_CREATE: "state, lock or database file cannot be created",
    ExitCode.ALREADY_RUNNING: "another daemon has this SQLite store",
    ExitCode.SCHEMA_MISMATCH: "the store has no tables yet, or they are of another version than this batchd",
    ExitCode.NO_PERMISSION: "the config, a credential or the state may not be read",
    ExitCode.CONFIG_INVALID: "the config is invalid, or there is none",
    ExitCode.INTERRUPTED: "Ctrl-C in a command",
}

_WIDTH = 100

_HEAD = """# Commands

<!-- Written by `python -m batchd.cli.reference`; change the help texts, not this file. -->

Data goes to stdout, everything said about it to stderr. Tables are drawn on a terminal and plain aligned text in a
pipe; colours appear on a terminal only and never with `NO_COLOR`. Text that jobs stored is printed without control and
bidi characters.

`--json` prints JSON for programs: keys stay, new ones may be added; moments are ISO 8601 in UTC, durations are numbers
of seconds, everything beyond ASCII is escaped. An error is then one object on stderr:

```json
{"error": {"code": "usage", "message": "no job 'cleanp' in config.toml", "hint": "did you mean 'cleanup'?"}}
```

`code` is the exit code's name in the table below, in small letters.

The config is `--config FILE`, else `$BATCHD_CONFIG`, else `./config.toml`, else `/etc/batchd/config.toml`. Commands
read and write the store directly, so they work with and without a running daemon; only `run`, `migrate` and `demo` make
tables. On PostgreSQL a running daemon hears of a `trigger`, `cancel`, `pause` or `resume` at once (LISTEN/NOTIFY), on
SQLite within a quarter of a second. `BATCHD_DEBUG=1` shows the traceback of an unexpected error.

`batchd completion bash|zsh|fish` makes your shell complete commands, options and job names.
"""


def render() -> str:
    """Return the page."""
    parts = [_HEAD, "\n## Exit codes\n\n| Code | Name | Meaning |\n|---|---|---|\n"]
    parts += [f"| {int(code)} | `{code.name.lower()}` | {meaning} |\n" for code, meaning in EXIT_CODES.items()]
    for group, entries in GROUPS.items():
        parts.append(f"\n## {group}\n")
        parts += [f"\n### batchd {name}\n\n```text\n{_help(name)}\n```\n" for name in entries]
    return "".join(parts)


def _help(name: str) -> str:
    settings: dict[str, Any] = {**cli.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    with click.Context(cli, info_name="batchd", **settings) as root:
        command = cli.get_command(root, name)
        if command is None:
            raise LookupError(name)
        with click.Context(command, info_name=name, parent=root) as context:
            pages = [command.get_help(context)]
            for inner in command.commands.values() if isinstance(command, click.Group) else ():
                with click.Context(inner, info_name=inner.name, parent=context) as inside:
                    pages.append(inner.get_help(inside))
            return "\n\n\n".join(pages)


if __name__ == "__main__":
    click.echo(render(), nl=False)
