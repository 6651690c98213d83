"""Every piece of TOML in README.md and docs/ is right, but for what a piece leaves to the rest of the config."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from batchd.config.load import load_config
from batchd.config.problems import ConfigInvalid

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PIECES = [
    pytest.param(piece, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, piece in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
OF_OTHERS = {"project", "sources"}
LEFT_OUT = re.compile(r"there is no \[(?:queues|jobs)\.|has no `kind`|environment variable \w+ is not set")
REST = {
    "databases": '[databases.app]\nurl = "sqlite:///app.db"\n',
    "mail": '[mail]\nfolder = "mail"\nfrom = "a@example.com"\n',
}
FILES = (
    "mail-password",
    "our-ca.pem",
    "templates/report.html",
    "mail-templates/welcome.txt",
    "mail-templates/reminder.txt",
)


@pytest.mark.parametrize("piece", PIECES)
def test_what_the_documentation_shows_is_right(tmp_path: Path, piece: str) -> None:
    """A reader copies it, and `batchd check` has nothing against it but what is not shown."""
    sections = tomllib.loads(piece)
    if OF_OTHERS & sections.keys():
        return
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x")
    whole = piece + "".join(f"\n{text}" for section, text in REST.items() if section not in sections)
    (tmp_path / "config.toml").write_text(whole, encoding="utf-8")
    url = "postgresql://me:secret-word@localhost/app"
    try:
        load_config(tmp_path / "config.toml", {"APP_DATABASE_URL": url, "BATCHD_STORE_URL": url})
    except ConfigInvalid as error:
        said = [str(problem) for problem in error.problems if not LEFT_OUT.search(str(problem))]
        is_cut = "# …" in piece
        assert [each for each in said if not (is_cut and each.endswith("is missing"))] == []
