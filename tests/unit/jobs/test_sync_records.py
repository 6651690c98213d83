"""Records that are read fast: the same texts as record by record, or no answer."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from batchd.db.catalogue_facts import ColumnFacts
from batchd.jobs.sync.json_text import Digits, json_text
from batchd.jobs.sync.mapping import Field, FieldMap
from batchd.jobs.sync.read_records import ReadRecords, joined
from batchd.jobs.sync.record_path import found_at
from batchd.jobs.sync.record_reader import RecordReader
from batchd.jobs.sync.watermark import moment_of

_TYPES = ["bigint", "text", "numeric", "boolean", "jsonb", "text[]", "timestamp with time zone", "double precision", ""]
_PATHS = [("a",), ("b",), ("in", "a"), ("in", "b"), ("in", "in", "a"), ("d.ot",)]
_ORDINARY = st.sampled_from(
    [None, 1, -7, 2**70, True, "", "12.50", "null", "a\n", "日本", Digits("1.10"), Digits("1E5")]
)
_ODD = st.sampled_from(["\x00", "\ud800", '"', "\\", Digits("-0.0"), [], ["a", None, Digits("0.50")], {"a": [1, "x"]}])
_VALUES = st.one_of(_ORDINARY, _ORDINARY, _ORDINARY, _ODD)


def _records(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Records that have a value at each of the paths, most often."""
    inner = st.fixed_dictionaries({"a": values, "in": st.just({"a": "deep"})}, optional={"b": values, "at": values})
    record = st.fixed_dictionaries({"a": values, "in": inner}, optional={"b": values, "d.ot": values, "x": values})
    return st.lists(record, max_size=3) | st.lists(record | values, max_size=2)


_FIELDS = st.dictionaries(
    st.sampled_from(_PATHS),
    st.tuples(st.sampled_from(_TYPES), st.booleans(), st.booleans()),
    min_size=1,
    max_size=3,
)


def _fields(wanted: dict[tuple[str, ...], tuple[str, bool, bool]]) -> FieldMap:
    return FieldMap(
        [
            Field(ColumnFacts(f"c{place}", kind, nullable), path, is_key=place == 0, is_optional=optional and nullable)
            for place, (path, (kind, nullable, optional)) in enumerate(wanted.items())
        ],
        is_json=True,
    )


@given(
    data=st.data(),
    wanted=_FIELDS,
    values=st.sampled_from([_VALUES, st.integers(0, 9), st.sampled_from(["", "x"])]),
    moment_at=st.none() | st.just(("in", "at")),
)
def test_both_ways_read_the_same(
    data: st.DataObject, wanted: dict[Any, Any], values: st.SearchStrategy[Any], moment_at: tuple[str, ...] | None
) -> None:
    """Whatever the records and the columns are; also what is around them, and when they were changed."""
    fields, records = _fields(wanted), data.draw(_records(values))
    try:
        reader = RecordReader(fields, ("more", "list"), moment_at)
    except ValueError:
        return
    document = {"more": {"next": Digits("1.50"), "list": records}, "n": [1]}
    whole = reader.body(json_text(document).encode(errors="surrogatepass"), lambda: records)
    lines = [json_text(record).encode(errors="surrogatepass") for record in records]
    mapped = [fields.mapped(record) for record in records]
    for read in (None if whole is None else whole[0], reader.lines(lines, lambda: records)):
        if read is not None:
            assert [list(texts) for texts in read.texts] == [each.texts for each in mapped if each.reason is None]
            assert len(read) == len(mapped)
            moments = [moment_of(found_at(each, moment_at)) for each in records] if moment_at else []
            assert list(map(moment_of, read.moments)) == moments
    if whole is not None:
        assert found_at(whole[1], ("more", "next")) == "1.50"
        assert found_at(whole[1], ("n",)) == [1]
        assert not found_at(whole[1], ("more", "list"))


@pytest.mark.parametrize(
    ("kind", "written", "texts"),
    [
        ("bigint", ["1", "-2", "null"], ["1", "-2", None]),
        ("text", ['"a\\n\\u00e9"', "7", "true", '"日本"'], ["a\né", "7", "true", "日本"]),
        ("numeric", ["1.10", '"12.50"', "1E5", "null"], ["1.10", "12.50", "1E5", None]),
        ("numeric", ["1", "true"], ["1", "1"]),
        ("boolean", ["true", "0", "null"], ["true", "0", None]),
        ("jsonb", ['{"a": [1.10, null]}', '"x"', "null"], ['{"a": [1.10, null]}', '"x"', None]),
        ("jsonb", ["1.10", '"7"', "null"], ["1.10", '"7"', None]),
        ("text[]", ['["a", "b"]', "null"], ['{"a","b"}', None]),
    ],
)
def test_ordinary_values_are_read(kind: str, written: list[str], texts: list[str | None]) -> None:
    """Each type's usual values, with their digits; and two pages together are still read."""
    reader = RecordReader(_fields({("id",): ("bigint", False, False), ("v",): (kind, True, True)}))
    body = "[" + ",".join(f'{{"skipped": [1], "v": {each}, "id": 1}}' for each in written) + ', {"id": 1}]'
    read = reader.body(body.encode(), lambda: json.loads(body))
    assert read is not None
    assert [row[1] for row in read[0].texts] == [*texts, None]
    twice = joined([read[0], read[0]])
    assert isinstance(twice, ReadRecords)
    assert len(twice) == 2 * len(written) + 2
    assert twice[-1] == {"id": 1}


@pytest.mark.parametrize(
    "record",
    [
        b'{"v": "a"}',
        b'{"id": 1}',
        b'{"id": null, "v": "a"}',
        b'{"id": 1, "v": 1.0}',
        b'{"id": 1, "v": "\\ud800"}',
        b'{"id": 1, "v": "a", "x": NaN}',
        b'{"id": 1, "v": "a", "x": "\xff"}',
        b'{"id": 1, "v": "a", "x": "\t"}',
        b"null",
        b'[1, "a"]',
        b'{"id": 1, "v": "a"',
        b'{"id": 1, "v": "a"} {"id": 2, "v": "a"}',
        b'\xef\xbb\xbf{"id": 1, "v": "a"}',
    ],
)
def test_what_is_odd_has_no_answer(record: bytes) -> None:
    """Such a page goes record by record, where it is told what is wrong; the same record alone on its line too."""
    reader = RecordReader(_fields({("id",): ("bigint", False, False), ("v",): ("text", True, False)}))
    assert reader.body(b'[{"id": 1, "v": "a"}, ' + record + b"]", list) is None
    assert reader.lines([b'{"id": 1, "v": "a"}\n', record], list) is None


def test_paths_that_no_record_has_are_refused() -> None:
    """A value cannot be an object as well; and a number in a path may count the items of a list."""
    for paths in ([("a",), ("a", "b")], [("a", "b"), ("a",)], [("a", "0")]):
        with pytest.raises(ValueError, match=r"cannot be both|may count"):
            RecordReader(_fields(dict.fromkeys(paths, ("text", True, False))))
