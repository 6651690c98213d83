"""csv_export: rows become a file, CSV, JSON lines, a workbook or Parquet, whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.db.matching import RANGE
from batchd.db.row_source import RowsWanted, find_rows
from batchd.domain.job import JsonObject
from batchd.domain.quantities import format_duration
from batchd.errors import JobError
from batchd.jobs.contract import Borrowed, JobContext, Kind, Params
from batchd.jobs.exports.export import Export, ExportRequest, rows_of
from batchd.jobs.exports.libraries import library
from batchd.jobs.exports.names import check_places, format_of, has_moving_places
from batchd.jobs.exports.texts import TextFormat
from batchd.jobs.looks import Look, look_at_rows
from batchd.jobs.params import Duration, NotBlank, SqlName
from batchd.jobs.period import uses_period

if TYPE_CHECKING:
    from batchd.jobs.reports.params import ReportParams

MatchParam = bool | int | float | str | list[bool | int | float | str] | dict[str, bool | int | float | str] | None
_BOOKS = ("xlsx", "parquet")
_DEFAULT_LEVEL = {"gzip": 3, "zstd": 3}
_HIGHEST_LEVEL = {"gzip": 9, "zstd": 19}


class CsvExportParams(Params):
    """What to export, where to, and in which form."""

    database: str = Field(default="", description="Name of the [databases.NAME] that holds the rows.")
    table: SqlName | None = Field(
        default=None,
        description='Table, as in SQL: `users`, `crm.users`, or `"User"`. Either this or `query`.',
    )
    query: NotBlank | None = Field(default=None, description="One SELECT. Either this or `table`.")
    report: NotBlank | None = Field(
        default=None,
        description="JOB.QUERY: the query of that name of a job of kind `report`, with its database and its period. "
        "Instead of `table` and `query`.",
        examples=["shop-report.top"],
    )
    period: Duration | None = Field(
        default=None,
        description="Length of the period that ends at the run's scheduled time: `:since` and `:until` in the `query`.",
    )
    where: NotBlank | None = Field(default=None, description="A SQL condition that rows of `table` must meet.")
    match: dict[str, MatchParam] = Field(
        default={},
        description="What rows must have in columns: a value, a list of values, or a range "
        '{ from = "2026-01-01", before = "2026-02-01" }. Values are bound, never SQL, so they may come from anywhere.',
    )
    columns: list[str] = Field(default=[], description="Columns to export, in this order. All of them when not set.")
    key: list[str] = Field(
        default=[],
        description="Columns to sort by. The table's primary key when `resumable` is set, no order else.",
    )
    path: Path = Field(
        description="The file. Its ending says the format: .csv, .tsv, .ndjson, .jsonl, .xlsx, .parquet; .gz or .zst "
        "behind it packs a text file. May hold {date}, {time} (of the fire, in UTC), {run_id} and {job}.",
        examples=["exports/users-{date}.csv.gz"],
    )
    if_exists: Literal["replace", "fail"] = Field(
        default="replace", description="When the file is there already: `replace` it in one step, or `fail`."
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="Between fields: a comma, or a tab in a .tsv."
    )
    header: bool = Field(default=True, description="Whether a CSV file begins with the columns' names.")
    null: str = Field(default="", description="What NULL is in a CSV file. An empty text is quoted, so they differ.")
    quote_all: bool = Field(default=False, description="Quote every field but NULLs.")
    bom: bool = Field(default=False, description="Begin a CSV file with a byte order mark, by which Excel knows UTF-8.")
    escape_formulas: bool = Field(
        default=False,
        description="Put an apostrophe before texts that a spreadsheet would take for a formula (= + - @ tab). "
        "A workbook needs none: its texts are texts.",
    )
    compression_level: int | None = Field(
        default=None, ge=1, le=19, description="Of .gz up to 9, of .zst up to 19; 3 when not set."
    )
    resumable: bool = Field(
        default=False,
        description="Go on after a crash instead of beginning anew: slices of the key, each synced. A resumed file "
        "holds two moments. For CSV and JSON lines.",
    )
    slice_rows: int = Field(default=100_000, ge=1, le=10_000_000, description="Rows of a slice, with `resumable`.")
    total: Literal["estimate", "exact"] = Field(
        default="estimate", description="What progress is measured by; `exact` counts the rows first."
    )
    keep: int | None = Field(
        default=None, ge=1, description="How many exports to keep, this one among them. For a `path` with {date} or so."
    )
    keep_for: Duration | None = Field(default=None, description="How long exports are kept, likewise.")
    dry_run: bool = Field(default=False, description="Write nothing; count the rows.")

    @field_validator("path")
    @classmethod
    def _is_a_known_format(cls, value: Path) -> Path:
        format_of(value.name)
        check_places(value)
        return value

    @field_validator("match")
    @classmethod
    def _has_edges(cls, value: dict[str, MatchParam]) -> dict[str, MatchParam]:
        for name, match in value.items():
            if isinstance(match, dict) and not (match and set(match) <= set(RANGE)):
                raise ValueError(f"of {name} must be a range {{ from = …, before = … }} or one edge of it")
            if isinstance(match, list) and not match:
                raise ValueError(f"of {name} is an empty list, which no row can meet")
        return value

    @field_validator("report")
    @classmethod
    def _names_a_query(cls, value: str | None) -> str | None:
        if value is not None and not all(value.rpartition(".")[::2]):
            raise ValueError("name the job and its query: JOB.QUERY")
        return value

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str | None) -> str | None:
        if value is not None and (value in '"\r\n\\.' or value.isalnum() or not value.isascii()):
            raise ValueError(f"cannot be {value!r}; take a comma, a semicolon, a tab or a bar")
        return value

    @field_validator("null")
    @classmethod
    def _is_one_word(cls, value: str) -> str:
        if any(character in value for character in '"\r\n'):
            raise ValueError("may hold neither quotes nor line ends")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> CsvExportParams:
        named = format_of(self.path.name)
        if sum(source is not None for source in (self.table, self.query, self.report)) != 1:
            raise ValueError("set exactly one of `table`, `query` and `report`")
        if self.report is None and not self.database:
            raise ValueError("set `database`")
        if self.report is not None and self.database:
            raise ValueError("`database` is that of the report; leave it out")
        self._check_period()
        if self.table is None and self.where is not None:
            raise ValueError("`where` belongs to `table`; put the condition into the query")
        if self.resumable and named.format in _BOOKS:
            raise ValueError(f"a {named.format} file cannot be gone on with; leave `resumable` out")
        if self.resumable and self.table is None and not self.key:
            raise ValueError("a resumable `query` needs `key`: the columns of its result to go by")
        if (self.keep is not None or self.keep_for is not None) and not has_moving_places(self.path):
            raise ValueError("`keep` and `keep_for` need {date}, {time} or {run_id} in the file's name")
        if self.delimiter is not None and self.null and self.delimiter in self.null:
            raise ValueError("`null` may not hold the delimiter")
        level, highest = self.compression_level, _HIGHEST_LEVEL.get(named.compression or "")
        if level is not None and (highest is None or level > highest):
            raise ValueError(f"`compression_level` is for .gz up to 9 and .zst up to 19, not {level} here")
        return self

    def _check_period(self) -> None:
        speaks_of_it = self.query is not None and uses_period(self.query)
        if speaks_of_it and self.period is None:
            raise ValueError("the query speaks of `:since` or `:until`; say with `period` how long that is")
        if self.table is not None and self.period is not None:
            raise ValueError("`period` is for a `query` that speaks of `:since` or `:until`")


def run(params: CsvExportParams, context: JobContext) -> JsonObject:
    """Write the file and return its path, rows and bytes."""
    if params.report is not None:
        raise JobError(
            f"`report` ({params.report}) is looked up in the config, not by a run",
            hint="set it in the job's config, or give the run `database` and `query`",
            retryable=False,
        )
    return Export(context, context.database(params.database), _request(params)).run()


def _request(params: CsvExportParams) -> ExportRequest:
    named = format_of(params.path.name)
    is_csv = named.format == "csv"
    comma = "\t" if ".tsv" in params.path.suffixes else ","
    return ExportRequest(
        rows=RowsWanted(
            params.table, params.query, tuple(params.key), params.where, tuple(params.columns), params.match
        ),
        path=params.path,
        text=TextFormat(named.format, params.delimiter or comma, params.null, params.quote_all, params.escape_formulas),
        has_header=is_csv and params.header,
        has_bom=is_csv and params.bom,
        compression=named.compression,
        level=params.compression_level or _DEFAULT_LEVEL.get(named.compression or "", 0),
        resumable=params.resumable,
        slice_rows=params.slice_rows,
        exact_total=params.total == "exact",
        replaces=params.if_exists == "replace",
        keep=params.keep,
        keep_for=params.keep_for,
        dry_run=params.dry_run,
        period=params.period,
    )


def _borrows(params: CsvExportParams) -> Borrowed | None:
    if params.report is None:
        return None
    job, _, query = params.report.rpartition(".")

    def take(report: ReportParams) -> JsonObject:
        asked = report.queries.get(query)
        if asked is None:
            raise LookupError(f"[jobs.{job}] has no query {query!r}; it has: {', '.join(report.queries) or 'none'}")
        return {
            "database": asked.database or report.database or "",
            "query": asked.sql,
            **({"period": format_duration(report.period)} if uses_period(asked.sql) else {}),
        }

    return Borrowed("report", job, "report", take)


def _check_code(params: CsvExportParams) -> list[tuple[str, str]]:
    """See that the libraries of the format are there; raises JobError."""
    match format_of(params.path.name).format:
        case "xlsx":
            library("xlsxwriter", "xlsx")
        case "parquet":
            library("pyarrow", "parquet")
    return []


def _check_connected(params: CsvExportParams, databases: Mapping[str, Database]) -> list[tuple[str, str]]:
    database = databases.get(params.database)
    if database is not None:
        with database.reading() as connection:
            rows = rows_of(_request(params), SystemClock().now(), database.dialect.name)
            find_rows(connection, rows, ordered=params.resumable)
    return []


def _look(params: CsvExportParams, databases: Mapping[str, Database], now: datetime) -> Look:  # noqa: ARG001
    return look_at_rows(databases, params.database, _request(params).rows, ordered=params.resumable)


KIND = Kind(
    name="csv_export",
    summary="Writes a table, a query or one of a report's to a file: CSV, JSON lines, Excel or Parquet, packed or not.",
    params=CsvExportParams,
    run=run,
    example="""\
[jobs.export-users]
kind = "csv_export"
schedule = "every day at 02:00"
database = "app"
table = "users"
columns = ["id", "email", "created_at"]
path = "exports/users-{date}.csv.gz"
keep = 14
# where = "deleted_at IS NULL"
# escape_formulas = true       # for people who open it in a spreadsheet
# report = "shop-report.top"    # instead of database and table: that query of [jobs.shop-report]
""",
    databases=lambda params: [params.database] if params.database else [],
    defaults={"timeout": "6h"},
    check_connected=_check_connected,
    look=_look,
    check_code=_check_code,
    borrows=_borrows,
)
