"""Rows as an Excel workbook, in flat memory: XlsxWriter (the extra `xlsx`) writes each row to disk as it comes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchd.domain.template import plain
from batchd.errors import JobError
from batchd.jobs.exports.libraries import library

MOST_ROWS = 1_048_576
"""Rows of a sheet, the header among them: the format's own limit. More rows go on in a further sheet."""

_MOST_CHARACTERS = 32_767
_EXACT = 10**15
"""Beyond it Excel rounds numbers; they are written as text."""

_FIRST_DAY = datetime(1900, 3, 1)  # noqa: DTZ001 (a bound of the format, which knows no time zones)


def write_workbook(path: Path, columns: Sequence[str], rows: Iterator[Sequence[Sequence[Any]]]) -> Iterator[int]:
    """Write the file; yield the number of rows written after each of the given parts. Texts are never formulas."""
    xlsxwriter = library("xlsxwriter", "xlsx")
    options = {"constant_memory": True, "remove_timezone": True, "tmpdir": str(path.parent), "nan_inf_to_errors": False}
    with xlsxwriter.Workbook(str(path), options) as workbook:
        workbook.use_zip64()
        styles = {
            datetime: workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
            date: workbook.add_format({"num_format": "yyyy-mm-dd"}),
            time: workbook.add_format({"num_format": "hh:mm:ss"}),
        }
        bold = workbook.add_format({"bold": True})
        sheet, at, done = _new_sheet(workbook, columns, bold), 1, 0
        for part in rows:
            for row in part:
                if at == MOST_ROWS:
                    sheet, at = _new_sheet(workbook, columns, bold), 1
                for place, value in enumerate(row):
                    _write(sheet, at, place, value, styles)
                at += 1
            done += len(part)
            yield done


def _new_sheet(workbook: Any, columns: Sequence[str], bold: Any) -> Any:
    sheet = workbook.add_worksheet()
    sheet.freeze_panes(1, 0)
    for place, name in enumerate(columns):
        sheet.write_string(0, place, name, bold)
    return sheet


def _write(sheet: Any, row: int, place: int, value: Any, styles: Mapping[type, Any]) -> None:
    match value:
        case None:
            return
        case bool():
            sheet.write_boolean(row, place, value)
        case int() | float() | Decimal() if _is_exact(value):
            sheet.write_number(row, place, value)
        case datetime() if _naive(value) >= _FIRST_DAY:
            sheet.write_datetime(row, place, _naive(value), styles[datetime])
        case date() if not isinstance(value, datetime) and value >= _FIRST_DAY.date():
            sheet.write_datetime(row, place, value, styles[date])
        case time() if value.tzinfo is None:
            sheet.write_datetime(row, place, value, styles[time])
        case _:
            sheet.write_string(row, place, _text(value, row))


def _is_exact(value: float | Decimal) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite() and len(value.as_tuple().digits) < len(str(_EXACT)) and abs(value) < _EXACT
    return math.isfinite(value) and (not float(value).is_integer() or abs(value) < _EXACT)


def _naive(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _text(value: Any, row: int) -> str:
    if isinstance(value, timedelta):
        return str(value)
    flat = plain(value)
    text = flat if isinstance(flat, str) else str(flat)
    if len(text) > _MOST_CHARACTERS:
        raise JobError(
            f"a text of {len(text):,} characters in row {row:,} does not fit into a cell of a workbook",
            hint=f"cells hold {_MOST_CHARACTERS:,}; export as CSV, or leave the column out with `columns`",
            retryable=False,
        )
    return text
