"""`[exports]`: what may be exported over HTTP, from the section to the settings that the surface knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batchd.config.problems import Problems
from batchd.domain.exporting import ExportJob, ExportSettings, ExportSource
from batchd.domain.job import JobDefinition, JsonObject
from batchd.jobs.params import Duration, NotBlank, SqlName

if TYPE_CHECKING:
    from batchd.config.settings import Settings

KIND = "csv_export"
ExportFormat = Literal["csv", "csv.gz", "csv.zst", "tsv", "ndjson", "ndjson.gz", "ndjson.zst", "xlsx", "parquet"]
_KEY_FILE = "export-links.key"
_Positive = Annotated[Duration, Field(gt=timedelta(0))]


class ExportSourceSection(BaseModel):
    """`[exports.sources.NAME]`: rows that a request may ask for by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database: str = Field(description="Name of the [databases.NAME] that holds the rows.")
    table: SqlName | None = Field(None, description="Table, as in SQL. Either this or `query`.")
    query: NotBlank | None = Field(None, description="One SELECT. Either this or `table`.")
    where: NotBlank | None = Field(None, description="A SQL condition that rows of `table` must meet, always.")
    columns: list[str] = Field(
        min_length=1, description="The columns that may be exported; a request may name fewer. No other ever is."
    )
    filters: list[str] = Field(
        [], description="Columns by which a request may narrow the rows: by values, which are bound and never SQL."
    )
    formats: list[ExportFormat] = Field(
        ["csv", "csv.gz", "ndjson", "ndjson.gz"],
        min_length=1,
        description="Formats to choose from; the first is usual.",
    )
    escape_formulas: bool = Field(
        True, description="Put an apostrophe before texts of a CSV file that a spreadsheet would take for a formula."
    )

    @model_validator(mode="after")
    def _says_which_rows(self) -> ExportSourceSection:
        if (self.table is None) == (self.query is None):
            raise ValueError("set exactly one of `table` and `query`")
        if self.query is not None and self.where is not None:
            raise ValueError("`where` belongs to `table`; put the condition into the query")
        return self


class ExportsSection(BaseModel):
    """`[exports]`: what may be exported over HTTP; without the section nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(
        "exports", description="Where files of `sources` go, relative to the state folder. Nothing else belongs there."
    )
    keep_for: _Positive = Field(timedelta(days=7), description="How long files of `sources` are kept.")
    link_valid_for: _Positive = Field(timedelta(minutes=15), description="How long a download link is good.")
    jobs: list[str] = Field(
        [], description="Jobs of the kind csv_export that may be started and whose files may be downloaded."
    )
    sources: dict[str, ExportSourceSection] = Field(default_factory=dict)


def read_exports(
    settings: Settings,
    state: Path,
    folder: Path,
    jobs: Sequence[tuple[JobDefinition, JsonObject]],
    named: Collection[str],
    problems: Problems,
) -> ExportSettings | None:
    """Return the settings, or None without a section; what is wrong becomes problems.

    `jobs` are those of the config that are whole, with their params; `named` the names of all of them.
    """
    section = settings.exports
    if section is None:
        return None
    known = {definition.name: (definition, params) for definition, params in jobs}
    offered = {}
    for name in section.jobs:
        if name not in named:
            problems.add_named(("exports", "jobs"), f"there is no [jobs.{name}]", name, named)
        elif name in known:
            definition, params = known[name]
            if definition.kind != KIND:
                problems.add(("exports", "jobs"), f"[jobs.{name}] is a {definition.kind}, not a {KIND}")
            else:
                offered[name] = ExportJob(str(_absolute(folder, str(params["path"]))), dict(definition.params))
    for name, source in section.sources.items():
        if source.database not in settings.databases:
            said = f"there is no [databases.{source.database}]"
            problems.add_named(("exports", "sources", name, "database"), said, source.database, settings.databases)
    whole_state = _absolute(folder, str(state))
    return ExportSettings(
        folder=str(_absolute(whole_state, section.folder)),
        key_file=str(whole_state / _KEY_FILE),
        keep_for=section.keep_for,
        link_valid_for=section.link_valid_for,
        jobs=offered,
        sources=_sources(section.sources),
    )


def _sources(sections: Mapping[str, ExportSourceSection]) -> dict[str, ExportSource]:
    return {
        name: ExportSource(
            name=name,
            database=section.database,
            table=section.table,
            query=section.query,
            where=section.where,
            columns=tuple(section.columns),
            filters=frozenset(section.filters),
            formats=tuple(section.formats),
            escape_formulas=section.escape_formulas,
        )
        for name, section in sections.items()
    }


def _absolute(base: Path, path: str) -> Path:
    return (base / Path(path).expanduser()).absolute()
