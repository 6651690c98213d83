"""Rules for every file of the repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchd.store.all_tables import all_tables
from batchd.store.job_schema import checkpoint_metadata

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("batchd", "tests", "docs", "systemd", ".ci")
_MOST_LINES = 400

_MACHINE_PATHS = re.compile("|".join(re.escape(f"/{word}/") for word in ("work", "root", "farm")) + r"|/home/\w")
_SECRETS = re.compile(
    "|".join(("-----BEGIN [A-Z ]*PRIV" + "ATE KEY", r"AKI" + r"A[0-9A-Z]{16}", r"gh[pousr]_" + r"[A-Za-z0-9]{36}"))
)


def _files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name not in (".git", ".env"))
    for folder in _FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield path


@pytest.mark.parametrize("pattern", [_MACHINE_PATHS, _SECRETS], ids=["machine paths", "secrets"])
def test_no_file_holds_what_belongs_to_one_machine(pattern: re.Pattern[str]) -> None:
    """No file names a path of somebody's machine or holds a key."""
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in _files()
        if (match := pattern.search(path.read_text(encoding="utf-8", errors="ignore")))
    ]
    assert found == []


def test_every_test_says_what_it_proves() -> None:
    """Each test has a docstring of one line that states the behaviour."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_module_outgrows_a_screenful_of_ideas() -> None:
    """A module of the product is split before it has too many lines."""
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in (ROOT / "batchd").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > _MOST_LINES
    ]
    assert long == []


def test_the_page_that_explains_names_every_table() -> None:
    """`docs/how-it-works.md` is where somebody with psql looks them up."""
    named = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    tables = {*all_tables().tables, *checkpoint_metadata.tables}
    assert [table for table in sorted(tables) if f"`{table}`" not in named] == []
