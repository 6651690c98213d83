"""COPY … TO STDOUT: the server's own bytes, passed through. PostgreSQL only."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select

if TYPE_CHECKING:
    from psycopg import Connection as PsycopgConnection

_ENOUGH_BYTES = 128 * 1024
"""What one turn brings: few turns, and little to hold."""

_OPTIONS_OF_LINES = r"FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02'"
"""CSV with marks that JSON never holds, so that each line comes out as it is. COPY's text format would escape it."""


@dataclass(frozen=True, slots=True)
class CopyFormat:
    """CSV as COPY writes it; `as_lines`: one column of JSON, a line each, and nothing else applies."""

    delimiter: str = ","
    null: str = ""
    header: bool = False
    quote_all: bool = False
    as_lines: bool = False


def copy_out(connection: Connection, statement: Select[Any], wanted: CopyFormat) -> Iterator[tuple[bytes, int]]:
    """Yield the lines, many a turn, and how many they are, within the connection's transaction.

    Leaving the iterator early cancels the statement. The values of `statement` are written into its text, since COPY
    takes no parameters.
    """
    driver: PsycopgConnection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    # The compiler doubles percent signs for a driver that looks for parameters; a statement without any is sent as is.
    query = str(compiled).replace("%%", "%")
    # Copied together at once: to hold thousands of little pieces and join them then takes twice the time.
    buffer = io.BytesIO()
    lines = told = 0
    with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT ({_options(wanted)})".encode()) as copy:
        for lines, line in enumerate(copy, start=1):
            buffer.write(line)
            if buffer.tell() >= _ENOUGH_BYTES:
                yield buffer.getvalue(), lines - told
                told = lines
                buffer.seek(0)
                buffer.truncate()
    if lines > told:
        yield buffer.getvalue(), lines - told


def _options(wanted: CopyFormat) -> str:
    if wanted.as_lines:
        return _OPTIONS_OF_LINES
    delimiter, null = (text.replace("'", "''") for text in (wanted.delimiter, wanted.null))
    quoted = ", FORCE_QUOTE *" if wanted.quote_all else ""
    return f"FORMAT csv, HEADER {str(wanted.header).lower()}, DELIMITER '{delimiter}', NULL '{null}'{quoted}"
