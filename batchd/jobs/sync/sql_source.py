"""Records from a query on another database, streamed: neither side holds the whole result in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from batchd.db.engine import Database, driver_message
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.answers import Spent
from batchd.jobs.sync.sources import Page, SourceFacts

_ROWS_OF_A_PAGE = 5_000


class SqlSource:
    """See `Source`. A result has no place to go on from, so that each attempt asks anew."""

    def __init__(self, context: JobContext, database: Database, sql: str, binds: Mapping[str, str | None]) -> None:
        self.name = f"database {database.name!r}"
        self.facts = SourceFacts()
        self._context = context
        self._database = database
        self._sql = sql
        self._binds = binds
        self._open = ExitStack()

    @property
    def mark(self) -> str | None:
        """See `Source`."""
        return None

    def pages(self, place: JsonObject | None) -> Iterator[Page]:  # noqa: ARG002
        """See `Source`."""
        connection = self._open.enter_context(self._context.reading(self._database))
        read_only(connection)
        streaming = connection.execution_options(stream_results=True, max_row_buffer=_ROWS_OF_A_PAGE)
        try:
            statement = text(self._sql)
            result = streaming.execute(statement, {name: self._binds[name] for name in statement._bindparams})  # noqa: SLF001
        except KeyError as error:
            raise JobError(
                f"`sql` has the bind parameter :{error.args[0]}, which nothing gives a value",
                hint="write `\\\\:` for a colon that is none, or set `updated_since.param` to its name",
                retryable=False,
            ) from error
        except DBAPIError as error:
            raise JobError(f"{self.name}: `sql` failed: {driver_message(error)}") from error
        names = list(result.keys())
        rows = result.fetchmany(_ROWS_OF_A_PAGE)
        while True:
            following = result.fetchmany(_ROWS_OF_A_PAGE) if rows else []
            yield Page([dict(zip(names, row, strict=True)) for row in rows], {} if following else None)
            if not following:
                return
            rows = following

    def taken(self) -> Spent:
        """See `Source`."""
        return Spent()

    def close(self) -> None:
        """See `Source`."""
        self._open.close()


def read_only(connection: Connection) -> None:
    """Let the transaction's statements change nothing; on SQLite the rollback at its end sees to that."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
