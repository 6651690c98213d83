"""Each package that batchd depends on is there for a reason that is written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLED = {"python-dotenv": "python-dotenv", "pytest-cov": "cov", "pytest-randomly": "randomly"}
CALLED |= {"pytest-timeout": "timeout", "pytest-xdist": "xdist", "psycopg": "psycopg 3", "pydantic": "pydantic 2"}


def test_docs_design_has_a_line_for_each_dependency() -> None:
    """Those of the extras too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[^\w-]", each, maxsplit=1)[0] for each in wanted} - {"batchd"}
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    packages = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    missing = {name for name in names if not any(CALLED.get(name, name) in cell for cell in packages)}
    assert missing == set()
