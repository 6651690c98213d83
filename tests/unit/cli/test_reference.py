"""docs/cli.md and the help say what the commands do."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from batchd.cli.commands import ENTRIES
from batchd.cli.main import cli
from batchd.cli.reference import EXIT_CODES, render
from batchd.errors import ExitCode

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_reference_is_what_the_commands_say() -> None:
    """`python -m batchd.cli.reference > docs/cli.md` writes it anew."""
    assert DOCS.read_text() == render()


def test_every_exit_code_is_documented() -> None:
    """None is left out."""
    assert set(EXIT_CODES) == set(ExitCode)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_leads_to_its_command(name: str) -> None:
    """Under its own name, with a help text that begins with what it does and shows an example."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert f"  batchd {name}" in command.help
