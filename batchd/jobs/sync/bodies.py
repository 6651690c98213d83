"""The records in an HTTP answer's body."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from batchd.errors import JobError
from batchd.jobs.http.origin import shown
from batchd.jobs.http.retry import AskAgain
from batchd.jobs.sync.answers import Answer
from batchd.jobs.sync.json_text import parse_json
from batchd.jobs.sync.record_path import MISSING, found_at, parse_path
from batchd.jobs.sync.sources import BadLine

if TYPE_CHECKING:
    from batchd.jobs.sync.record_reader import RecordReader

_LONGEST_LINE = 16 << 20
_SHOWN_OF_LINE = 500


@dataclass(frozen=True, slots=True)
class Body:
    """`document` is what was around the records: where paging looks for the next page. `digest` tells bodies apart."""

    records: Sequence[Any]
    document: Any
    digest: str


def json_body(answer: Answer, records_at: str | None, largest: int, reader: RecordReader | None) -> Body:
    """Return the records of a JSON body; raises AskAgain for one that is cut, JobError for something else."""
    if answer.size > largest:
        raise JobError(
            f"GET {shown(answer.url)} answered with {answer.size:,} bytes, more than `max_page` ({largest:,})",
            hint="ask for smaller pages, raise `max_page`, or let the server answer with NDJSON, which is streamed",
            retryable=False,
        )
    data = answer.body.read()
    if not data.strip():
        if answer.is_empty_on_purpose:
            return Body([], None, "")
        raise AskAgain("the answer is empty")
    refuse_html(answer, data)
    digest, url = hashlib.sha256(data).hexdigest(), answer.url
    read = None if reader is None else reader.body(data, lambda: _records(parse_json(data), records_at, url))
    if read is not None:
        return Body(*read, digest)
    try:
        document = parse_json(data)
    except ValueError as error:
        raise AskAgain(f"the answer of {len(data)} bytes is not whole, or not JSON: {error}") from error
    return Body(_records(document, records_at, url), document, digest)


def ndjson_lines(body: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield each line that holds a record; raises JobError for a line that is too long to be one."""
    while line := body.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise JobError(f"{name}: a line is longer than {_LONGEST_LINE >> 20} MiB; is this NDJSON?", retryable=False)
        if line.strip():
            yield line


def line_records(lines: Sequence[bytes], reader: RecordReader | None) -> Sequence[Any]:
    """Return the records of NDJSON lines; a BadLine for what is none."""

    def parsed() -> list[Any]:
        return list(map(_line_record, lines))

    read = None if reader is None else reader.lines(lines, parsed)
    return parsed() if read is None else read


def check_ndjson_is_whole(answer: Answer) -> None:
    """Raise AskAgain when the last line is cut: the server did not say how much was to come."""
    refuse_html(answer, answer.body.read(_SHOWN_OF_LINE))
    answer.body.seek(max(0, answer.size - _LONGEST_LINE))
    tail = answer.body.read().rpartition(b"\n")[2]
    try:
        parse_json(tail if tail.strip() else b"null")
    except ValueError as error:
        raise AskAgain("the answer ends in the middle of a line") from error
    answer.body.seek(0)


def refuse_html(answer: Answer, data: bytes) -> None:
    """Raise JobError for a web page: most often a login, or a notice that somebody works on the server."""
    kind = answer.headers.get("content-type", "")
    if "html" in kind.lower() or data.lstrip()[:1] == b"<":
        text = " ".join(data[:_SHOWN_OF_LINE].decode(errors="replace").split())
        raise JobError(
            f"GET {shown(answer.url)} answered with {kind or 'a web page'} instead of JSON: {text[:150]}",
            hint="a login page, or a notice? Is the URL that of the API?",
        )


def _line_record(line: bytes) -> Any:
    try:
        return parse_json(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        return BadLine(f"not JSON: {error}", line[:_SHOWN_OF_LINE].decode(errors="replace"))


def _records(document: Any, records_at: str | None, url: str) -> list[Any]:
    found = document if records_at is None else found_at(document, parse_path(records_at))
    if isinstance(found, list):
        return found
    if found is MISSING or found is None:
        holds = ", ".join(map(str, document)) if isinstance(document, dict) else type(document).__name__
        raise JobError(
            f"GET {shown(url)}: there is no `{records_at}` in the answer; it holds: {holds[:200]}", retryable=False
        )
    hint = None
    if isinstance(found, dict):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        if lists:
            hint = f'is it `records = "{".".join(filter(None, (records_at, lists[0])))}"`?'
    raise JobError(
        f"GET {shown(url)} answered with a JSON {type(found).__name__} where a list of records should be",
        hint=hint,
        retryable=False,
    )
