"""Records out of bytes: each comes once, with its line, whatever the file is like, and reading goes on behind it."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchd.errors import JobError
from batchd.jobs.csv_import import byte_lines
from batchd.jobs.csv_import.chunks import read_chunks
from batchd.jobs.csv_import.content import Content, Resume
from batchd.jobs.csv_import.fingerprint import BLOCK, Fingerprint
from batchd.jobs.csv_import.formats import CsvFormat, FormatRequest, checked_delimiter, checked_encoding, format_of
from batchd.jobs.csv_import.records import BadRecord, RecordReader
from batchd.jobs.csv_import.sources import FileSource

_AUTO = FormatRequest("auto", "auto", '"', None)


def _source(data: bytes) -> FileSource:
    return FileSource(io.BytesIO(data), "test.csv", len(data))


def _read(
    data: bytes, form: CsvFormat, width: int | None, *, rows: int, offset: int = 0, line: int = 0
) -> tuple[list[tuple[int, tuple[str, ...]]], list[BadRecord]]:
    """Return all records and all bad ones, taken in pieces of `rows`."""
    reader = RecordReader(io.BytesIO(data[offset:]).read, form, offset=offset, line=line)
    found: list[tuple[int, tuple[str, ...]]] = []
    bad: list[BadRecord] = []
    while not reader.is_at_end:
        taken = reader.take(width, rows=rows, size=1 << 16)
        found += [(at, tuple(row)) for at, row in zip(taken.lines, taken.rows, strict=True)]
        bad += taken.bad
        assert len(taken.rows) + len(taken.bad) <= rows or rows == 0
    assert reader.offset == len(data)
    return found, bad


_fields = st.text(
    alphabet=st.one_of(st.sampled_from(list(",;\t|\"'\n\r\\ aé日\x00")), st.characters(codec="utf-8")), max_size=8
)
_tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(_fields, min_size=width, max_size=width), max_size=12)
)


@settings(max_examples=300, deadline=None)
@given(
    table=_tables,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"]),
    last_newline=st.booleans(),
    rows=st.integers(1, 5),
)
@example(
    table=[["\ufffd"]],
    delimiter=",",
    newline="\n",
    quoting=csv.QUOTE_ALL,
    encoding="utf-16-le",
    last_newline=False,
    rows=1,
)
def test_what_was_written_is_read(
    table: list[list[str]],
    delimiter: str,
    newline: str,
    quoting: Any,
    encoding: str,
    last_newline: bool,
    rows: int,
) -> None:
    """Every dialect, line breaks and quotes in fields, NULs: the same fields come back, however small the pieces."""
    if quoting is csv.QUOTE_MINIMAL:  # Python's own writer leaves a bare carriage return unquoted
        table = [[field.replace("\r", "") for field in row] for row in table]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows(table)
    text = written.getvalue() if last_newline else written.getvalue().removesuffix(newline)
    width = len(table[0]) if table else 1
    found, bad = _read(text.encode(encoding), CsvFormat(encoding, delimiter, '"', None), width, rows=rows)
    expected = [
        tuple(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row
    ]
    assert ([row for _, row in found], bad) == (expected, [])
    assert [line for line, _ in found] == sorted({line for line, _ in found})


@settings(max_examples=300, deadline=None)
@given(data=st.lists(st.sampled_from([b"a", b",", b'"', b"\n", b"\r\n", b"\x00", b"\xff", b"\xc3\xa9"]), max_size=60))
def test_nothing_that_bytes_can_be_is_lost_or_raises(data: list[bytes]) -> None:
    """Ragged rows, broken quotes and characters are bad records; a reader of any piece size sees the same."""
    whole = b"".join(data)
    form = CsvFormat("utf-8", ",", '"', None)
    assert _read(whole, form, 2, rows=1) == _read(whole, form, 2, rows=1_000)


@settings(max_examples=150, deadline=None)
@given(table=_tables, rows=st.integers(1, 4), pack=st.sampled_from([bytes, gzip.compress, zstandard.compress]))
def test_reading_goes_on_behind_every_chunk(table: list[list[str]], rows: int, pack: Callable[[bytes], bytes]) -> None:
    """From the resume point of each chunk the rest is read as it would have been, packed or not."""
    written = io.StringIO(newline="")
    csv.writer(written).writerows(table)
    data, width = written.getvalue().encode(), len(table[0]) if table else 1
    form = CsvFormat("utf-8", ",", '"', None)

    def chunks(resume: Resume | None, line: int, *, is_unchanged: bool = False) -> list[Any]:
        content = Content(_source(pack(data)), resume, is_unchanged=is_unchanged)
        reader = RecordReader(content.read, form, offset=resume.offset if resume else 0, line=line)
        return list(read_chunks(content, reader, width=width, rows=rows, dialect="sqlite"))

    def key(chunk: Any) -> Any:
        return list(chunk.lines), [list(row) for row in chunk.rows], chunk.resume, chunk.line

    whole = chunks(None, 0)
    for number, chunk in enumerate(whole):
        for is_unchanged in (False, True):
            rest = chunks(chunk.resume, chunk.line, is_unchanged=is_unchanged)
            assert [key(each) for each in rest] == [key(each) for each in whole[number + 1 :]]


def test_a_changed_beginning_is_noticed() -> None:
    """One byte that is different before the resume point, and a file that is shorter, packed or not."""
    data = b"a,b\n" * 400_000
    for pack in (bytes, gzip.compress):
        content = Content(_source(pack(data)))
        while content.read(1 << 16):
            pass
        resume = content.sealed_at(1_200_000)
        for other in (data[:5] + b"x" + data[6:], data[:100_000]):
            with pytest.raises(JobError, match="is not what it was"):
                Content(_source(pack(other)), resume)
        assert Content(_source(pack(data)), resume).read(4) == b"a,b\n"


def test_an_untouched_file_is_read_from_its_last_block_only() -> None:
    """Going on in a large file does not read its beginning again, but looks at the part before the resume point."""
    data = bytes(range(256)) * (3 * BLOCK // 256)
    seal = Fingerprint()
    seal.update(data[: 2 * BLOCK + 100])
    resume = Resume(2 * BLOCK + 100, seal.chain, seal.digest)
    source = _source(data)
    Content(source, resume, is_unchanged=True)
    assert source.position == resume.offset
    changed = data[: 2 * BLOCK + 50] + b"!" + data[2 * BLOCK + 51 :]
    with pytest.raises(JobError, match="is not what it was"):
        Content(_source(changed), resume, is_unchanged=True)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_packed_file_that_is_cut_is_an_error(pack: Callable[[bytes], bytes]) -> None:
    """It is never taken for one that ends there; several packed parts in a row are one file."""
    packed = pack(b"a,b\n" * 10_000)
    content = Content(_source(packed[:-9]))
    with pytest.raises(JobError, match="cannot be unpacked"):
        while content.read(1 << 16):
            pass
    content = Content(_source(packed + packed))
    assert sum(len(part) for part in iter(lambda: content.read(1 << 16), b"")) == 80_000


def test_a_field_of_ten_megabytes_is_a_field() -> None:
    """Also with line breaks in it; the records around it have their lines."""
    big = "x" * 5_000_000 + "\n" + "y" * 5_000_000
    found, bad = _read(f'a,b\n"{big}",c\nd,e\n'.encode(), CsvFormat("utf-8", ",", '"', None), 2, rows=100)
    assert bad == []
    assert [(line, len(row[0])) for line, row in found] == [(1, 1), (2, len(big)), (4, 1)]


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the file it is one bad record; in an endless one the record's first line is told."""
    form = CsvFormat("utf-8", ",", '"', None)
    _, bad = _read(b'a,b\nc,"d\ne,f\n', form, 2, rows=10)
    assert [(record.line, record.reason) for record in bad] == [
        (2, "a quoted field is not closed before the end of the file")
    ]
    monkeypatch.setattr("batchd.jobs.csv_import.records.LONGEST_RECORD", 10_000)
    with pytest.raises(JobError, match="begins on line 2 is longer"):
        _read(b'a,b\nc,"d\n' + b"e,f\n" * 10_000, form, 2, rows=10)
    monkeypatch.setattr(byte_lines, "LONGEST_LINE", 10_000)
    with pytest.raises(JobError, match="line 2 is longer"):
        _read(b"a,b\n" + b"x" * 500_000, form, 2, rows=10)


_JAPANESE = "名前,メール\n山田,ヤマダ@x\n"
_SAMPLES: list[tuple[bytes, str, str]] = [
    (b"a,b\n1,2\n", "utf-8", ","),
    ("\ufeffa;b\n1;2\n".encode(), "utf-8", ";"),
    ("a\tb\né\t2\n".encode(), "utf-8", "\t"),
    ("\ufeffa,b\n1,2\n".encode("utf-16-le"), "utf-16-le", ","),
    ("\ufeffa|b\n1|2\n".encode("utf-16-be"), "utf-16-be", "|"),
    ("name,value\n1,2\n".encode("utf-16-le"), "utf-16-le", ","),
    (_JAPANESE.encode("cp932"), "cp932", ","),
    ("Straße;Größe\nÄrger;5\n".encode("latin-1"), "cp1252", ";"),
    (b"a,b\n\x81,\x8d\n", "latin-1", ","),
    (b'"a;b","c"\n"1;2","3"\n', "utf-8", ","),
    (b"a\n1,5\n2,5\n", "utf-8", ","),
    (b"", "utf-8", ","),
]


@pytest.mark.parametrize(("sample", "encoding", "delimiter"), _SAMPLES)
def test_a_files_beginning_shows_how_it_is_written(sample: bytes, encoding: str, delimiter: str) -> None:
    """Byte order marks, encodings and delimiters, as far as they can be seen."""
    form = format_of(sample, _AUTO)
    assert (form.encoding, form.delimiter, form.detected) == (encoding, delimiter, ("encoding", "delimiter"))
    assert not sample[form.begin :].decode(form.encoding).startswith("\ufeff")


def test_what_is_told_is_not_guessed() -> None:
    """The file's beginning is not asked; a byte order mark of the told encoding is no part of the text."""
    form = format_of("\ufeffa;b".encode(), FormatRequest("utf-8", ",", '"', None))
    assert (form.encoding, form.delimiter, form.begin, form.detected) == ("utf-8", ",", 3, ())
    assert format_of(b"a;b", FormatRequest("latin-1", ";", '"', None)).begin == 0


def test_an_old_line_end_is_seen() -> None:
    """A file whose lines end in a carriage return alone has lines all the same."""
    form = format_of(b"a,b\r1,2\r", _AUTO)
    found, bad = _read(b"a,b\r1,2\r", form, 2, rows=10)
    assert ([row for _, row in found], bad) == ([("a", "b"), ("1", "2")], [])


@pytest.mark.parametrize(
    ("encoding", "trail"), [("cp932", "ソ表"), ("shift_jis", "ソ"), ("gb18030", "\U0001f600"), ("big5", "功")]
)
def test_half_a_character_is_no_line_end_and_no_escape(encoding: str, trail: str) -> None:
    """In these encodings a character's second byte may be a backslash or a digit; fields come out whole."""
    found, bad = _read(f'{trail},"{trail}"\n'.encode(encoding), CsvFormat(encoding, ",", '"', None), 2, rows=10)
    assert (found, bad) == ([(1, (trail, trail))], [])


def test_a_broken_character_is_told_with_its_line() -> None:
    """The record is bad, with the bytes; the next one is read."""
    found, bad = _read(b"a,b\nc\xff,d\ne,f\n", CsvFormat("utf-8", ",", '"', None), 2, rows=10)
    assert [row for _, row in found] == [("a", "b"), ("e", "f")]
    assert [(record.line, record.reason) for record in bad] == [(2, "line 2 is not utf-8: bytes ff 2c 64 0a")]


def test_half_a_character_of_utf_16_is_a_bad_record_of_the_same_length() -> None:
    """The records beside it are read, and the place behind it is right."""
    data = b"".join((line + "\n").encode("utf-16-le", errors="surrogatepass") for line in ("a", "\ud800b", "\ufffd"))
    found, bad = _read(data, CsvFormat("utf-16-le", ",", '"', None), 1, rows=1)
    assert found == [(1, ("a",)), (3, ("\ufffd",))]
    assert [(record.line, record.reason, record.fields) for record in bad] == [
        (2, "line 2 is not utf-16-le", ("\ufffdb",))
    ]


@pytest.mark.parametrize("name", ["utf-7", "iso2022_jp", "utf-32", "nonsense", "cp037"])
def test_an_encoding_without_plain_lines_is_refused(name: str) -> None:
    """The message says what to do instead."""
    with pytest.raises(ValueError, match="encoding"):
        checked_encoding(name)


def test_delimiters_have_names() -> None:
    """One character or a name; nothing else."""
    assert [checked_delimiter(word) for word in ("tab", "\\t", "Pipe", ";", "auto")] == ["\t", "\t", "|", ";", "auto"]
    for word in ("ab", "", "\n", '"'):
        with pytest.raises(ValueError, match="is no delimiter"):
            checked_delimiter(word)
