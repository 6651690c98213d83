"""csv_import: a CSV file, a folder of them or a download into a table, exactly once, at the speed of COPY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from sqlalchemy import func, select

from batchd.db.catalogue import TableFacts, find_table
from batchd.db.engine import Database
from batchd.db.explained import looking, plain_sql, written_out
from batchd.db.identifiers import parse_name
from batchd.db.rights import missing_rights, missing_rights_to_make
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.csv_import.begin import ImportRequest
from batchd.jobs.csv_import.formats import FormatRequest, checked_delimiter, checked_encoding
from batchd.jobs.csv_import.inbox import is_pattern
from batchd.jobs.csv_import.load import CsvImport
from batchd.jobs.csv_import.mapping import MappingRequest, column_problems
from batchd.jobs.csv_import.sources import STDIN, is_url
from batchd.jobs.csv_import.upsert_key import chosen_key
from batchd.jobs.csv_import.writing import Conflict
from batchd.jobs.looks import Look, LookedAt, index_advice, locks_of
from batchd.jobs.params import Duration

_SETTLE = timedelta(seconds=10)


class CsvImportParams(Params):
    """What to import, how it is written, where it goes."""

    database: str = Field(description="Name of the [databases.NAME] that holds the table.")
    table: str = Field(
        description='Table, as in SQL: `users`, `crm.users`, or `"User"` with double quotes for mixed case.',
        examples=["users", "crm.users", '"User"'],
    )
    path: str = Field(
        description="A file, a pattern (`inbox/*.csv`) or an http(s) URL; `.gz` and `.zst` are unpacked. Relative to "
        "the folder in which the daemon runs.",
        examples=["inbox/*.csv", "/srv/export/users.csv.gz", "https://example.org/users.csv"],
    )
    columns: dict[str, str] | None = Field(
        default=None,
        description='Which field goes into which column: `{ email = "E-Mail" }`; other fields are left out. When '
        "unset each field goes into the column of its name.",
    )
    ignore: list[str] = Field(
        default_factory=list, description='Fields that go nowhere; `["*"]` for all that no column is named after.'
    )
    constants: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description='Columns that get the same value in every row: `{ source = "crm" }`.'
    )
    computed: dict[str, Literal["now", "file", "line", "run_id"]] = Field(
        default_factory=dict,
        description="Columns that get the moment of the run (\"now\"), the file's name, the line or the run's id: "
        '`{ created_at = "now" }`.',
    )
    null_values: list[str] = Field(
        default_factory=lambda: [""],
        description="Fields that mean NULL, quoted or not. An empty one stays an empty text in a text column that may "
        "not be NULL.",
    )
    header: list[str] | None = Field(
        default=None, description="Names of the fields, for a file without a header. When unset its first line is one."
    )
    skip_lines: int = Field(default=0, ge=0, description="Lines before the header, or before the first record.")
    encoding: str = Field(
        default="auto",
        description='Such as "utf-8", "utf-16", "latin-1" or "cp932" (Shift_JIS). "auto" looks at the beginning and '
        "says in the log what it saw.",
    )
    delimiter: str = Field(
        default="auto", description='One character, "tab", or "auto" for the one that the first records show.'
    )
    quote: str = Field(default='"', max_length=1, description="Quoting character; empty when quotes mean nothing.")
    escape: str | None = Field(
        default=None, min_length=1, max_length=1, description="Escape character; when unset a quote is doubled."
    )
    on_conflict: Conflict = Field(
        default=Conflict.ERROR,
        description="When the table has a record's unique key already: `error` rejects the record, `skip` leaves the "
        "row as it is, `update` sets it to the record.",
    )
    key: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Columns of the unique key that `update` goes by; needed when the file fills several.",
    )
    update: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Columns that `update` sets. When unset all that come from the file, but for the key.",
    )
    max_rejects: int = Field(
        default=100,
        ge=0,
        description="Most bad records of one file; one more fails it. What was imported before stays.",
    )
    rejects_to: Path | None = Field(
        default=None,
        description="Folder for files with all bad records, their lines and the reasons. The first thousand are in "
        "`batchd_rejects` in any case.",
    )
    after: Literal["keep", "move"] | None = Field(
        default=None,
        description="`move` puts an imported file into `done_folder`, a bad one into `failed_folder`. When unset: "
        "`move` for a pattern, `keep` for anything else.",
    )
    done_folder: str = Field(default="done", description="Folder beside the file, for files that were imported.")
    failed_folder: str = Field(default="failed", description="Folder beside the file, for files that could not be.")
    settle: Duration | None = Field(
        default=None,
        description="A file is taken when nobody has changed it for so long. When unset 10s for a pattern, else 0s.",
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description='HTTP headers for a URL: `{ Authorization = "Bearer ${TOKEN}" }`.'
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Records of one transaction. When unset 15000 on PostgreSQL, 5000 on SQLite, where others wait.",
    )
    pause: Duration = Field(default=timedelta(0), description="Pause between two transactions.")
    dry_run: bool = Field(default=False, description="Read and check everything, but roll every transaction back.")

    @field_validator("table")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        parse_name(value)
        return value

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        return checked_encoding(value)

    @field_validator("delimiter")
    @classmethod
    def _is_a_delimiter(cls, value: str) -> str:
        return checked_delimiter(value)

    @field_validator("done_folder", "failed_folder")
    @classmethod
    def _is_a_folders_name(cls, value: str) -> str:
        if not value or "/" in value or value in {".", ".."}:
            raise ValueError("is the name of a folder beside the file, without a slash")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> CsvImportParams:
        if self.key is not None and self.on_conflict is not Conflict.UPDATE:
            raise ValueError('`key` belongs to `on_conflict = "update"`; `skip` and `error` look at every unique key')
        if self.update is not None and self.on_conflict is not Conflict.UPDATE:
            raise ValueError('`update` belongs to `on_conflict = "update"`')
        if self.after == "move" and (is_url(self.path) or self.path == STDIN):
            raise ValueError('only a file can be moved; leave `after = "move"` out')
        if self.header is not None and len(set(self.header)) != len(self.header):
            raise ValueError("`header` names a field twice")
        if self.quote and self.quote == self.delimiter:
            raise ValueError("`quote` and `delimiter` are the same character")
        return self

    @property
    def moves(self) -> bool:
        """Whether files are put away afterwards."""
        return is_pattern(self.path) and not is_url(self.path) if self.after is None else self.after == "move"


def request_of(params: CsvImportParams) -> ImportRequest:
    """Return what the params ask for."""
    settle = params.settle
    if settle is None:
        settle = _SETTLE if is_pattern(params.path) and not is_url(params.path) else timedelta(0)
    return ImportRequest(
        path=params.path,
        table=params.table,
        form=FormatRequest(params.encoding, params.delimiter, params.quote or None, params.escape),
        header=params.header,
        skip_lines=params.skip_lines,
        mapping=MappingRequest(
            columns=params.columns,
            ignore=params.ignore,
            constants={name: _as_text(value) for name, value in params.constants.items()},
            computed=params.computed,
            nulls=params.null_values,
        ),
        conflict=params.on_conflict,
        key=params.key,
        update=params.update,
        max_rejects=params.max_rejects,
        rejects_to=params.rejects_to,
        batch_size=params.batch_size,
        pause=params.pause,
        settle=settle,
        headers=params.headers,
        done_folder=params.done_folder if params.moves else None,
        failed_folder=params.failed_folder if params.moves else None,
        dry_run=params.dry_run,
    )


def run(params: CsvImportParams, context: JobContext) -> JsonObject:
    """Import what the params describe and return how many records became what."""
    return CsvImport(context, context.database(params.database), request_of(params)).run()


def _check(params: CsvImportParams) -> list[tuple[str, str]]:
    if params.path == STDIN:
        return [("path", "a daemon has no standard input; `batchd import -` reads it")]
    return []


def _check_connected(params: CsvImportParams, databases: Mapping[str, Database]) -> Sequence[tuple[str, str]]:
    """Return what the table has against the params. What only the file's header can tell is left to the run."""
    database = databases.get(params.database)
    if database is None:
        return []
    with database.reading() as connection:
        try:
            table = find_table(connection, params.table)
        except JobError as error:
            return [("table", _said(error))]
        known, found = _known_columns(table, params)
        if found:
            return found
        filled = [name for param in ("columns", "constants", "computed") for name in known[param]]
        needed = {"INSERT": filled, "SELECT": filled}
        if params.columns is not None:
            found += [("columns", message) for _, message in column_problems(table, filled)]
        if params.on_conflict is Conflict.UPDATE:
            needed["UPDATE"] = known["update"] or filled
            try:
                chosen_key(table, params.key, None if params.columns is None else set(filled))
            except JobError as error:
                found.append(("key", _said(error)))
        lacking = missing_rights(connection, table, needed)
        lacking += missing_rights_to_make(connection, "batchd_checkpoints", "batchd_rejects")
    return found + [("table", f"this user lacks {right}") for right in dict.fromkeys(lacking)]


def _known_columns(table: TableFacts, params: CsvImportParams) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Return the real names of the columns that each param names, and what is wrong with the others."""
    known: dict[str, list[str]] = {}
    found = []
    for param in ("columns", "constants", "computed", "key", "update"):
        known[param] = []
        for name in getattr(params, param) or ():
            try:
                known[param].append(table.column_named(name).name)
            except JobError as error:
                found.append((param, _said(error)))
    return known, found


def _said(error: JobError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _look(params: CsvImportParams, databases: Mapping[str, Database], now: datetime) -> Look:  # noqa: ARG001
    database = databases[params.database]
    with looking(database, timedelta(seconds=5)) as connection:
        facts = find_table(connection, params.table)
        counting = written_out(connection, select(func.count()).select_from(facts.as_table()))
    key = "none"
    advice: tuple[str, ...] = ()
    if params.on_conflict is not Conflict.ERROR:
        keys = facts.unique_keys
        key = ", ".join(params.key or (keys[0] if keys else ())) or "none"
        if not keys and params.key:
            advice = (index_advice(facts, tuple(params.key), unique=True),)
    columns = [facts.column_named(name).name for name in params.columns or ()] or [each.name for each in facts.columns]
    sql = f"INSERT INTO {facts.written} ({', '.join(columns)}) VALUES (…)"  # noqa: S608 (shown, not executed)
    looked = LookedAt(
        "copies the records into a staging table and from there into the table (rows now in it)",
        params.database,
        sql,
        None,
        plain_sql(counting),
        locks_of(database.dialect.name, sql),
    )
    files = sorted(Path().glob(params.path)) if not (is_url(params.path) or Path(params.path).is_absolute()) else []
    waiting = [file for file in files if file.is_file()]
    found = [("from", params.path), ("on conflict", f"{params.on_conflict.value}, by the key {key}")]
    if not is_url(params.path):
        size = sum(file.stat().st_size for file in waiting)
        found.append(("files that wait", f"{len(waiting)}, {size} bytes"))
    return Look((looked,), tuple(found), advice)


KIND = Kind(
    name="csv_import",
    summary="Imports CSV files, packed or not, from a folder or over HTTP, exactly once and at the speed of COPY.",
    params=CsvImportParams,
    run=run,
    example="""\
[jobs.import-users]
kind = "csv_import"
schedule = "every 5m"
database = "app"
table = "users"
path = "inbox/users-*.csv"
on_conflict = "update"
key = ["email"]
computed = { created_at = "now" }
# columns = { email = "E-Mail", name = "Full name" }
# rejects_to = "inbox/rejects"
""",
    databases=lambda params: [params.database],
    check=_check,
    check_connected=_check_connected,
    look=_look,
)
