"""The JSON Schema that editors get: right for every good config, and it marks what is wrong."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import batchd
from batchd.cli.main import main
from batchd.config.schema import json_schema
from batchd.jobs.catalog import kinds
from tests.support.batchd_kinds import PROBE

_EXAMPLE = tomllib.loads((Path(batchd.__file__).parent.parent / "config.example.toml").read_text(encoding="utf-8"))


def faults(document: Any, schema: Any = None) -> list[str]:
    """Return what the schema has against the document."""
    validator = Draft202012Validator(json_schema() if schema is None else schema)
    return [error.message for error in validator.iter_errors(document)]


def test_the_schema_is_one_and_prints_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """`batchd schema` prints a draft 2020-12 schema with a title for people."""
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed["title"] == "batchd"


def test_the_example_config_passes() -> None:
    """As it stands."""
    assert faults(_EXAMPLE) == []


@pytest.mark.parametrize("name", sorted(kinds()))
def test_each_kinds_example_passes(name: str) -> None:
    """As `batchd kinds` prints it."""
    assert faults(tomllib.loads(kinds()[name].example)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[daemn]\n",
        "[daemon]\nworkrs = 1",
        "[daemon]\nworkers = 0",
        "[databases.app]\nurll = 'x'",
        "[log]\nlevel = 'inof'",
        "[defaults]\nretry = { max_atempts = 1 }",
        "[jobs.a]\nkind = 'cleanupp'",
        "[jobs.a]\nkind = 'cleanup'\ndatabase = 'a'\ntable = 't'",
        "[jobs.a]\nkind = 'health_check'\ndatabses = ['*']",
        "[jobs.a]\nkind = 'health_check'\ndatabases_file = 'x'",
        "[jobs.a]\nkind = 'health_check'\nlatency = { wran = '1s' }",
        "[jobs.a]\nkind = 'health_check'\nenabled = 'yes'",
    ],
)
def test_a_typo_is_refused(text: str) -> None:
    """In every section, at any depth."""
    assert faults(tomllib.loads(text)) != []


def test_a_variable_may_stand_for_a_number() -> None:
    """As batchd reads it."""
    assert faults(tomllib.loads("[daemon]\nworkers = '${WORKERS:-4}'\n[defaults]\nenabled = '${ON}'")) == []


def test_a_secret_may_come_from_a_file() -> None:
    """Only a secret: its key has a twin that ends in `_file`."""
    schema = json_schema({"probe": PROBE})
    job = "[jobs.a]\nkind = 'probe'\ndatabase = 'app'\n"
    assert faults(tomllib.loads(job + "token_file = 'x'"), schema) == []
    assert faults(tomllib.loads(job + "note_file = 'x'"), schema) != []
