"""A csv_export takes the query of a report, with its database and its period."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid

_REPORT = """
[databases.app]
url = "sqlite:///app.db"
[databases.other]
url = "sqlite:///other.db"

[jobs.shop-report]
kind = "report"
database = "app"
save_to = "shop.html"
period = "7d"
queries.sold = "SELECT id FROM orders WHERE at >= :since AND at < :until"
queries.stock = {sql = "SELECT name FROM stock", database = "other"}

[jobs.export]
kind = "csv_export"
path = "sold-{date}.csv"
"""


def _loaded(folder: Path, rest: str) -> Config:
    file = folder / "config.toml"
    file.write_text(_REPORT + rest)
    return load_config(file, {})


def test_the_query_comes_with_database_and_period(tmp_path: Path) -> None:
    """The row of the store and a run's params hold them whole, and nothing of the report's name."""
    config = _loaded(tmp_path, 'report = "shop-report.sold"')
    taken = {
        "database": "app",
        "query": "SELECT id FROM orders WHERE at >= :since AND at < :until",
        "period": "7d",
        "path": "sold-{date}.csv",
    }
    export = next(job for job in config.jobs if job.name == "export")
    assert export.params == taken
    assert config.resolve_params("export", export.params) == taken


def test_a_query_has_its_own_database_and_no_period_that_it_does_not_use(tmp_path: Path) -> None:
    """As the report asks it."""
    config = _loaded(tmp_path, 'report = "shop-report.stock"')
    export = next(job for job in config.jobs if job.name == "export")
    assert export.params["database"] == "other"
    assert "period" not in export.params


def test_a_period_of_its_own_stands(tmp_path: Path) -> None:
    """What the export says itself is over what the report says."""
    config = _loaded(tmp_path, 'report = "shop-report.sold"\nperiod = "1d"')
    assert next(job for job in config.jobs if job.name == "export").params["period"] == "1d"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('report = "shop-reprot.sold"', "there is no [jobs.shop-reprot]; name a job of kind 'report'; did you mean"),
        ('report = "export.sold"', "[jobs.export] is of kind 'csv_export'; name a job of kind 'report'"),
        ('report = "shop-report.solt"', "has no query 'solt'; it has: sold, stock"),
        ('report = "sold"', "name the job and its query: JOB.QUERY"),
        ('report = "shop-report.sold"\ndatabase = "app"', "`database` is that of the report; leave it out"),
        ('report = "shop-report.sold"\nquery = "SELECT 1"', "set exactly one of `table`, `query` and `report`"),
        ('query = "SELECT 1"', "set `database`"),
        ('database = "app"\nquery = "SELECT :since"', "say with `period` how long that is"),
        ('database = "app"\ntable = "orders"\nperiod = "1d"', "`period` is for a `query`"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    """One message, which names the job."""
    with pytest.raises(ConfigInvalid) as raised:
        _loaded(tmp_path, line)
    (problem,) = raised.value.problems
    assert said in str(problem)
    assert "jobs.export" in str(problem)


def test_a_query_from_outside_is_not_copied_into_the_store(tmp_path: Path) -> None:
    """It could be a secret, and the report's own row holds none."""
    text = _REPORT.replace('"SELECT name FROM stock"', '"SELECT ${COLUMN} FROM stock"') + 'report = "shop-report.stock"'
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match="values from outside"):
        load_config(tmp_path / "config.toml", {"COLUMN": "name"})
