"""Answers as files: CSV with what is in the box, XLSX with the extra `batchd[xlsx]`.

Both are opened by spreadsheets, which take a text that begins with `=` for a formula: it is written as text.
"""

from __future__ import annotations

import csv
import io
from datetime import datetime, tzinfo
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Literal

from batchd.errors import JobError
from batchd.jobs.reports.content import Answer
from batchd.mail.message import Attachment

FileFormat = Literal["csv", "xlsx"]

_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_WIDEST = 60
_LONGEST_CELL = 32_767


def can_write_xlsx() -> bool:
    """Return whether XlsxWriter is installed; does not import it."""
    return find_spec("xlsxwriter") is not None


def attachment_of(answer: Answer, file_format: FileFormat, zone: tzinfo) -> Attachment:
    """Return the answer as a file named after its query; moments in `zone`."""
    if file_format == "csv":
        return Attachment(f"{answer.name}.csv", "text/csv", _csv(answer, zone))
    return Attachment(f"{answer.name}.xlsx", _XLSX, _xlsx(answer, zone))


def _csv(answer: Answer, zone: tzinfo) -> bytes:
    """Return UTF-8 with a byte order mark, by which spreadsheets know that it is UTF-8."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([_harmless(name) for name in answer.columns])
    writer.writerows([_csv_cell(value, zone) for value in row] for row in answer.rows)
    return file.getvalue().encode("utf-8-sig", "replace")


def _csv_cell(value: Any, zone: tzinfo) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float() | Decimal():
            return value
        case datetime():
            return (value.astimezone(zone) if value.tzinfo else value).isoformat(sep=" ")
        case bytes() | memoryview():
            return bytes(value).hex()
    return _harmless(str(value))


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _xlsx(answer: Answer, zone: tzinfo) -> bytes:
    if not can_write_xlsx():
        raise JobError("an XLSX attachment needs XlsxWriter", hint="pip install 'batchd[xlsx]'", retryable=False)
    from xlsxwriter import Workbook  # noqa: PLC0415 (an optional extra)

    file = io.BytesIO()
    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": True,
        "default_date_format": "yyyy-mm-dd hh:mm:ss",
    }
    with Workbook(file, options) as book:
        sheet = book.add_worksheet("".join(char for char in answer.name if char not in "[]:*?/\\'")[:31] or "Rows")
        bold = book.add_format({"bold": True, "bottom": 1})
        for index, width in enumerate(_widths(answer)):
            sheet.set_column(index, index, width)
        sheet.freeze_panes(1, 0)
        for index, name in enumerate(answer.columns):
            sheet.write_string(0, index, name, bold)
        for number, row in enumerate(answer.rows, start=1):
            for index, value in enumerate(row):
                sheet.write(number, index, _xlsx_cell(value, zone))
        if answer.columns and answer.rows:
            sheet.autofilter(0, 0, len(answer.rows), len(answer.columns) - 1)
    return file.getvalue()


def _xlsx_cell(value: Any, zone: tzinfo) -> Any:
    match value:
        case None | bool() | int() | float() | Decimal():
            # Beyond 15 digits a spreadsheet would round: ids stay text.
            return str(value) if isinstance(value, int) and abs(value) > 10**15 else value
        case datetime():
            return (value.astimezone(zone) if value.tzinfo else value).replace(tzinfo=None)
        case bytes() | memoryview():
            return bytes(value).hex()[:_LONGEST_CELL]
    return str(value)[:_LONGEST_CELL]


def _widths(answer: Answer) -> list[int]:
    """Return a width for each column, from its name and its first rows."""
    first = answer.rows[:200]
    return [
        min(_WIDEST, 2 + max([len(name), *(len(str(row[index])) for row in first)]))
        for index, name in enumerate(answer.columns)
    ]
