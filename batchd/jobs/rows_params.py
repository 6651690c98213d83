"""The parameters that say which rows a job walks over, the same for every kind that does."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from batchd.db.engine import Database
from batchd.db.row_source import RowSource, RowsWanted, find_rows
from batchd.jobs.contract import JobContext, Params
from batchd.jobs.params import NotBlank, SqlName


class RowsParams(Params):
    """Which rows, in which order, how many at once."""

    database: str = Field(description="Name of the [databases.NAME] that holds the rows.")
    table: SqlName | None = Field(
        default=None,
        description='Table, as in SQL: `users`, `crm.users`, or `"User"` with double quotes for mixed case. '
        "Either this or `query`.",
        examples=["users", "crm.users", '"User"'],
    )
    query: NotBlank | None = Field(
        default=None,
        description="One SELECT whose rows are walked. It runs again for each batch with a condition on the key, so "
        "that should be an indexed column that the query passes through.",
    )
    key: list[str] = Field(
        default=[],
        description="Columns whose order the walk follows. The table's primary key (or a unique key without NULLs) "
        "when not set; required with `query`. Rows with equal values come in one batch.",
        examples=[["id"], ["tenant_id", "id"]],
    )
    where: NotBlank | None = Field(
        default=None,
        description="A SQL condition that rows of `table` must meet, for example \"active AND email <> ''\".",
    )
    columns: list[str] = Field(default=[], description="Columns to read. All of them when not set.")
    batch_size: int = Field(
        default=1_000, ge=1, le=100_000, description="Rows in one batch, which is one transaction and one checkpoint."
    )

    @model_validator(mode="after")
    def _says_which_rows(self) -> RowsParams:
        if (self.table is None) == (self.query is None):
            raise ValueError("set exactly one of `table` and `query`")
        if self.query is not None and not self.key:
            raise ValueError("`query` needs `key`: the columns of its result to go by")
        if self.query is not None and self.where is not None:
            raise ValueError("`where` belongs to `table`; put the condition into the query")
        return self

    @property
    def wanted(self) -> RowsWanted:
        """The rows, as the database floor asks for them."""
        return RowsWanted(self.table, self.query, tuple(self.key), self.where, tuple(self.columns))


def find_source(context: JobContext, params: RowsParams) -> RowSource:
    """Return the source of the params' rows; tells when no index serves the walk."""
    database = context.database(params.database)
    with context.reading(database) as connection:
        source = find_rows(connection, params.wanted)
    if source.is_indexed is False:
        context.log.warning("walk.index_missing", rows=source.name, key=", ".join(source.key_names))
    return source


def checked_source(params: RowsParams, databases: Mapping[str, Database]) -> RowSource | None:
    """Return the source as it is now, for `check_connected`, or None when its database is not there.

    Raises JobError for rows that cannot be walked.
    """
    database = databases.get(params.database)
    if database is None:
        return None
    with database.reading() as connection:
        return find_rows(connection, params.wanted)
