"""What goes to stdout: a table for people, JSON for programs; and what goes to stderr: what is said about it.

Colours only on a terminal and never with NO_COLOR. rich is imported only to draw a table on a terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO, TypeVar

import click

from batchd.cli.text import cleaned
from batchd.domain.jsonable import jsonable
from batchd.domain.run import RunState

F = TypeVar("F", bound=Callable[..., Any])

STATE_COLORS = {
    RunState.SUCCEEDED.value: "green",
    RunState.FAILED.value: "red",
    RunState.QUARANTINED.value: "red",
    RunState.RUNNING.value: "cyan",
    RunState.QUEUED.value: "blue",
    RunState.SKIPPED.value: "yellow",
    RunState.MISSED.value: "yellow",
    RunState.CANCELLED.value: "yellow",
}

_GAP = 2


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def emit_json(value: object) -> None:
    """Print a value as JSON: moments as ISO 8601 in UTC, durations in seconds, everything beyond ASCII escaped."""
    click.echo(json.dumps(jsonable(value), indent=2))


def emit_table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, color_column: str | None = None) -> None:
    """Print a table: drawn on a terminal, else aligned columns that a person can read and `awk` can cut.

    `color_column` holds the name of a run's state.
    """
    cells = [[cleaned("-" if cell is None else plain_text(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        if shutil.get_terminal_size().columns < _narrowest(headers, cells):
            _list(headers, cells)
        else:
            _draw(headers, cells, color_column)
        return
    widths = [max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))]
    for line in [[header.upper() for header in headers], *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def emit_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print "name  value" lines, aligned; facts that are None are left out."""
    shown = [(name, value) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {cleaned(plain_text(value))}")


def plain_text(value: object) -> object:
    """Return the value as JSON and TOML write it where Python would differ: true, false and nested values."""
    return json.dumps(jsonable(value), ensure_ascii=False) if isinstance(value, bool | list | dict) else value


def styled(stream: TextIO) -> bool:
    """Return whether text on the stream may have colours and bold type: a terminal that can, and no NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(message: str, *, color: str | None = None) -> None:
    """Tell a person something on stderr, where it cannot spoil the data."""
    colored = color is not None and styled(sys.stderr)
    click.echo(click.style(cleaned(message), fg=color) if colored else cleaned(message), err=True)


def heading(text: str) -> None:
    """Print a heading on stdout."""
    click.echo("\n" + (click.style(text, bold=True) if styled(sys.stdout) else text))


def _narrowest(headers: Sequence[str], cells: list[list[str]]) -> int:
    """Return how wide a terminal must be at least, so that no word of the table is broken."""
    columns = zip(headers, *cells, strict=True)
    longest = [max(len(word) for cell in column for word in cell.split(" ")) for column in columns]
    return sum(longest) + _GAP * (len(longest) - 1)


def _list(headers: Sequence[str], cells: list[list[str]]) -> None:
    """Print one block of "name  value" lines a row: what a table becomes where there is no room for one."""
    for number, line in enumerate(cells):
        if number:
            click.echo()
        emit_facts([(header, cell) for header, cell in zip(headers, line, strict=True) if cell not in {"", "-"}])


def _draw(headers: Sequence[str], cells: list[list[str]], color_column: str | None) -> None:
    from rich.console import Console  # noqa: PLC0415 (only a terminal needs it, and it takes 60 ms)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    plain = not styled(sys.stdout)
    table = Table(
        box=None, pad_edge=False, header_style="" if plain else "bold", show_edge=False, padding=(0, _GAP, 0, 0)
    )
    for header in headers:
        table.add_column(header, overflow="fold")
    for line in cells:
        table.add_row(
            *(
                Text(cell, style=STATE_COLORS.get(cell, "") if header == color_column and not plain else "")
                for header, cell in zip(headers, line, strict=True)
            )
        )
    Console(highlight=False, markup=False, color_system=None if plain else "auto").print(table)
