"""What is written down about the config is what the models say."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchd
from batchd.config.load import load_config
from batchd.config.reference import reference_markdown
from batchd.config.settings import Settings
from batchd.jobs.catalog import kinds

_CHECKOUT = Path(batchd.__file__).parent.parent


def test_the_reference_is_generated_from_the_models() -> None:
    """Write it again after a change: `python -m batchd.config.reference > docs/configuration.md`."""
    page = (_CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference_markdown(kinds())


def test_the_reference_has_every_section() -> None:
    """Also a new one: whoever looks a key up looks here."""
    titles = {part.partition("`")[0] for part in reference_markdown({}).split("\n## `[")[1:]}
    assert {title.rstrip("]").partition(".")[0].partition("]")[0] for title in titles} >= {*Settings.model_fields}


def test_the_example_config_is_right_as_it_stands() -> None:
    """Without any environment variable."""
    config = load_config(_CHECKOUT / "config.example.toml", {})
    assert {job.kind for job in config.jobs} == set(kinds()), "every kind has a job in the example"


@pytest.mark.parametrize("name", sorted(kinds()))
def test_each_kinds_example_is_accepted(name: str, tmp_path: Path) -> None:
    """As `batchd kinds` prints it."""
    file = tmp_path / "config.toml"
    databases = '[databases.app]\nurl = "sqlite:///app.db"\n[queues.maintenance]\n'
    file.write_text(databases + kinds()[name].example, encoding="utf-8")
    assert load_config(file, {}).jobs[0].kind == name
