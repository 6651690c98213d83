"""How a CSV file is written: encoding, delimiter, quoting, line ends; as told, or as its beginning shows."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from batchd.domain.job import JsonObject

AUTO = "auto"
SAMPLE_BYTES = 256 * 1024

_DELIMITERS = (",", ";", "\t", "|")
_NAMED_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF16 = ("utf-16-le", "utf-16-be")
_SHIFTING = ("utf-7", "utf7", "iso2022", "iso-2022", "hz", "utf-32", "utf32", "idna", "punycode")
_KANA = re.compile("[\u3040-\u30ff]")
_SAMPLE_RECORDS = 50


@dataclass(frozen=True, slots=True)
class FormatRequest:
    """What the params say; AUTO for what the file's beginning shall show."""

    encoding: str
    delimiter: str
    quote: str | None
    escape: str | None


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How one file is written. `begin` is where its text begins, behind a byte order mark.

    `newline` ends a line; `detected` names what was not told but seen.
    """

    encoding: str
    delimiter: str
    quote: str | None
    escape: str | None
    newline: str = "\n"
    begin: int = 0
    detected: tuple[str, ...] = field(default=())

    @property
    def is_utf16(self) -> bool:
        """Whether a character takes two bytes or four."""
        return self.encoding in _UTF16

    def as_json(self) -> JsonObject:
        """Return it for a checkpoint."""
        return {
            "encoding": self.encoding,
            "delimiter": self.delimiter,
            "quote": self.quote,
            "escape": self.escape,
            "newline": self.newline,
            "begin": self.begin,
            "detected": list(self.detected),
        }

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Return the standard library's parser over text lines; a broken quotation is an error, not a guess."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape,
            doublequote=self.escape is None,
            strict=True,
        )


def format_from_json(saved: JsonObject) -> CsvFormat:
    """Return what `as_json` made."""
    values: dict[str, object] = dict(saved)
    detected = values.pop("detected")
    assert isinstance(detected, list)
    return CsvFormat(**values, detected=tuple(map(str, detected)))  # type: ignore[arg-type]


def checked_encoding(name: str) -> str:
    """Return the codec's own name; raises ValueError for one that is unknown, or in which no line can be found."""
    if name.lower() == AUTO:
        return AUTO
    try:
        codec = codecs.lookup(name).name
        plain = ',"\n;\t|a'.encode(codec)
    except (LookupError, UnicodeError) as error:
        raise ValueError(f'unknown encoding {name!r}; write "utf-8", "utf-16", "latin-1", "cp932" or "auto"') from error
    if codec.startswith("utf-16"):
        return codec
    if codec.startswith(_SHIFTING) or (plain != b',"\n;\t|a' and codec != "utf-8-sig"):
        raise ValueError(f"lines cannot be told apart in the encoding {name!r}; convert the file to UTF-8")
    return "utf-8" if codec == "utf-8-sig" else codec


def checked_delimiter(text: str) -> str:
    """Return the delimiter, also by its name; raises ValueError unless it is one character."""
    delimiter = _NAMED_DELIMITERS.get(text.lower(), text)
    if text.lower() == AUTO:
        return AUTO
    if len(delimiter) != 1 or delimiter in '\r\n"\x00':
        raise ValueError(f'{text!r} is no delimiter; write one character, "tab" or "auto"')
    return delimiter


def format_of(sample: bytes, wanted: FormatRequest) -> CsvFormat:
    """Return how the file that begins with the sample is written."""
    detected = []
    encoding, begin = _encoding(sample, wanted.encoding)
    if wanted.encoding == AUTO:
        detected.append("encoding")
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(sample[begin:])
    newline = "\r" if "\n" not in text and "\r" in text else "\n"
    delimiter = wanted.delimiter
    if delimiter == AUTO:
        delimiter = _delimiter(text, wanted.quote, newline)
        detected.append("delimiter")
    return CsvFormat(encoding, delimiter, wanted.quote, wanted.escape, newline, begin, tuple(detected))


def _encoding(sample: bytes, wanted: str) -> tuple[str, int]:
    """Return the encoding and where the text begins."""
    for mark, encoding in _BOMS:
        if sample.startswith(mark) and (wanted in {AUTO, encoding} or (wanted == "utf-16" and encoding in _UTF16)):
            return encoding, len(mark)
    if wanted == "utf-16":
        return _utf16_without_mark(sample) or "utf-16-le", 0
    if wanted != AUTO:
        return wanted, 0
    unmarked = _utf16_without_mark(sample)
    if unmarked:
        return unmarked, 0
    if _decodes(sample, "utf-8") is not None:
        return "utf-8", 0
    japanese = _decodes(sample, "cp932")
    if japanese is not None and _KANA.search(japanese):
        return "cp932", 0
    return "cp1252" if _decodes(sample, "cp1252") is not None else "latin-1", 0


def _utf16_without_mark(sample: bytes) -> str | None:
    """Return which UTF-16 it is when every other byte of mostly Latin text is zero."""
    even, odd = sample[0:2000:2], sample[1:2000:2]
    if len(odd) < 2:  # noqa: PLR2004 (one character shows nothing)
        return None
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros.count(0) > 0.4 * len(zeros) and others.count(0) == 0:
            return encoding
    return None


def _decodes(sample: bytes, encoding: str) -> str | None:
    """Return the text if the bytes are of the encoding, but for a character that the sample's end cuts."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(sample, final=len(sample) < SAMPLE_BYTES)
    except UnicodeDecodeError:
        return None


def _delimiter(text: str, quote: str | None, newline: str) -> str:
    """Return the candidate that gives the first records the same number of fields, more than one; else a comma."""
    best, best_score = ",", (0.0, 0)
    for candidate in _DELIMITERS:
        widths = _widths(text, candidate, quote, newline)
        if not widths or widths[0] < 2:  # noqa: PLR2004 (one field is no sign of a delimiter)
            continue
        score = (Counter(widths)[widths[0]] / len(widths), widths[0])
        if score > best_score:
            best, best_score = candidate, score
    return best


def _widths(text: str, delimiter: str, quote: str | None, newline: str) -> list[int]:
    lines = io.StringIO(text.replace("\r", "\n") if newline == "\r" else text, newline="\n")
    form = CsvFormat("utf-8", delimiter, quote, None)
    widths: list[int] = []
    with contextlib.suppress(csv.Error):  # what was read before it counts
        for record in form.reader(lines):
            widths += [len(record)] if record else []
            if len(widths) == _SAMPLE_RECORDS:
                break
    return widths
