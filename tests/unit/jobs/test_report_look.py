"""What mail clients drop, and that a report does not depend on it."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

import pytest

from batchd.jobs.reports.blocks import View, block_of, chart_of, figures_of
from batchd.jobs.reports.content import (
    Answer,
    Change,
    Chart,
    Figure,
    Figures,
    Report,
    Sense,
    Series,
    TableBlock,
    table_of,
)
from batchd.jobs.reports.daily import daily_blocks
from batchd.jobs.reports.formats import Formats
from batchd.jobs.reports.text import report_text
from batchd.jobs.templating import Templates
from batchd.store.digest import BUCKETS, Bucket, Digest, Totals
from tests.support.reporting import UNTIL

FORMATS = Formats("1,234.5", UNTIL.tzinfo)  # type: ignore[arg-type]
GMAIL_CLIPS_AT = 102 * 1024
_KEPT_TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "div",
        "table",
        "tbody",
        "tr",
        "td",
        "th",
        "img",
        "span",
        "a",
        "p",
        "b",
    ]
)
_DROPPED_CSS = re.compile(r"\b(position|float|flex|grid|var\(|calc\(|background-image|transform|animation)\b")


class Reader(HTMLParser):
    """Collects tags with their attributes, and whether they nest."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def chart(points: int, style: str = "bar") -> Chart:
    """A chart of one series."""
    values = tuple(float(n) for n in range(points))
    labels = tuple(f"label {n}" for n in range(points))
    return chart_of("c", "Chart", style, labels, (Series("n", values),), FORMATS)  # type: ignore[arg-type]


def table(rows: int = 3, **more: object) -> TableBlock:
    """A table of a text and a number."""
    cells = [(f"row <{n}>", f"{n:,}") for n in range(rows)]
    return table_of("Table", [("Name", False), ("Count", True)], cells, **more)  # type: ignore[arg-type]


FIGURES = Figures(
    "",
    (
        Figure("Orders", "1,234", Change("▲", "+10.0\xa0%", Sense.GOOD, "1,100")),
        Figure("Refunds", "41", Change("▲", "+5.0\xa0%", Sense.BAD, "39")),
        Figure("New", "7"),
        Figure("Long", "123,456,789.00\xa0€"),
    ),
)
WHOLE = Report(
    title="Shop <today>",
    subtitle="2026-11-25",
    blocks=(FIGURES, table(), table(0), chart(5), chart(30), replace(chart(5), image="chart-1"), chart(0)),
    summary="Orders 1,234",
    alert="Something & more",
    footer=("Sent by batchd", "job x"),
    attachments=("rows.csv",),
)


def html_of(report: Report) -> str:
    """The report's HTML."""
    return Templates(None).render("batchd/report.html", {"report": report})


def test_only_tags_and_styles_that_mail_clients_keep() -> None:
    """Tables for layout, no scripts, links, forms or classes that anything depends on; every tag closed."""
    html = html_of(WHOLE)
    reader = Reader(html)
    assert {tag for tag, _ in reader.tags} <= _KEPT_TAGS
    assert (reader.wrong, reader.open) == ([], [])
    styles = [attributes.get("style") or "" for _, attributes in reader.tags]
    assert [style for style in styles if _DROPPED_CSS.search(style)] == []
    assert not re.search(r'(?:src|href|url)[=(]\s*"?https?:', html), "nothing is loaded from anywhere"
    assert [attributes["src"] for tag, attributes in reader.tags if tag == "img"] == ["cid:chart-1"]
    assert all(attributes.get("alt") for tag, attributes in reader.tags if tag == "img")


def test_without_its_style_sheet_the_report_looks_the_same() -> None:
    """Every colour, width and alignment is inline: a client that drops <style> shows the light mail of 600 pixels."""
    html = re.sub(r"<style>.*?</style>", "", html_of(WHOLE), flags=re.DOTALL)
    reader = Reader(html)
    for tag, attributes in reader.tags:
        style = attributes.get("style") or ""
        if tag == "table":
            assert "border-collapse" in style or "max-width:600px" in style
            assert attributes.get("cellpadding") == "0"
        if tag in {"td", "th"} and "ink" in (attributes.get("class") or ""):
            assert "font-size" in style
            assert "color:" in style
    card = [attributes for tag, attributes in reader.tags if attributes.get("class") == "card"]
    assert card[0]["width"] == "600"
    assert card[0]["bgcolor"] == "#ffffff"


def test_layout_tables_are_marked_and_data_tables_are_not() -> None:
    """For those who have a mail read to them."""
    reader = Reader(html_of(WHOLE))
    data = [attributes for tag, attributes in reader.tags if tag == "table" and attributes.get("role") is None]
    assert len(data) == 1
    assert all(attributes.get("scope") == "col" for tag, attributes in reader.tags if tag == "th")


def test_numbers_stand_right_and_changes_have_colour_and_sign() -> None:
    """A head stands over its column."""
    html = html_of(WHOLE)
    assert html.count('align="right"') >= 2 + 3
    assert re.search(r'<th[^>]*align="right"[^>]*>Count</th>', html)
    assert re.search(r'class="good" style="[^"]*color:#15803d"><span[^>]*>▲&nbsp;\+10.0', html)
    assert re.search(r'class="bad" style="[^"]*color:#b91c1c"><span[^>]*>▲&nbsp;\+5.0', html)


def test_whatever_is_in_the_data_is_text() -> None:
    """Nothing is markup but the template's own."""
    html = html_of(WHOLE)
    assert "Shop &lt;today&gt;" in html
    assert "row &lt;1&gt;" in html
    assert "Something &amp; more" in html


def test_a_large_report_is_not_clipped() -> None:
    """Gmail cuts a message off at 102 kB: the tables of an ordinary report stay below."""
    wide = [(f"column {n}", n > 1) for n in range(6)]
    rows = [tuple(f"{row * n:,}" for n in range(6)) for row in range(50)]
    report = replace(WHOLE, blocks=(*WHOLE.blocks, table_of("Wide", wide, rows), table(50)))
    assert len(html_of(report).encode()) < GMAIL_CLIPS_AT


@pytest.mark.parametrize("blocks", [(), (table(0),), (chart(0),), (chart(1),), (replace(FIGURES, figures=()),)])
def test_nothing_to_show_is_said(blocks: tuple[object, ...]) -> None:
    """In HTML and in text."""
    report = replace(WHOLE, blocks=blocks)  # type: ignore[arg-type]
    reader = Reader(html_of(report))
    assert (reader.wrong, reader.open) == ([], [])
    assert report_text(report)


def test_a_quiet_day_looks_calm() -> None:
    """Green when all went well; plain when nothing ran."""
    buckets = tuple(Bucket(UNTIL, 0, 0) for _ in range(BUCKETS))
    nothing = Totals({}, UNTIL - UNTIL, {})
    quiet = Digest(UNTIL.replace(day=24), UNTIL, nothing, nothing, buckets, (), (), {}, ())
    assert "No run ended in this time." in html_of(replace(WHOLE, blocks=daily_blocks(quiet, FORMATS)))
    well = replace(quiet, totals=replace(nothing, states={"succeeded": 5}))
    html = html_of(replace(WHOLE, blocks=daily_blocks(well, FORMATS)))
    assert re.search(r'class="calm"[^>]*>&#10003;&nbsp; No run failed\.', html)


def test_the_text_is_aligned_and_says_the_same() -> None:
    """Numbers right, wide characters counted as two."""
    columns = [("Name", False), ("n", True)]
    report = replace(WHOLE, blocks=(FIGURES, table_of("T", columns, [("日本", "5"), ("ab", "1,000")]), chart(3)))
    text = report_text(report)
    assert "Orders              1,234   ▲ +10.0\xa0% from 1,100" in text
    assert "日本      5\nab    1,000" in text
    assert "label 2  2  ########################" in text
    assert text.endswith("-- \nSent by batchd · job x\n")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity"), None])
def test_what_is_no_number_breaks_nothing(odd: object) -> None:
    """A chart draws it as nothing, a figure shows it, and the next run has nothing to compare with."""
    answer = Answer("q", ("label", "n"), (("a", odd), ("b", 5)), is_cut=False)
    drawn = block_of(answer, View(show="bar"), FORMATS, {})
    assert isinstance(drawn, Chart)
    assert [bar.percent for bar in drawn.bars] == [0, 100]
    single = Answer("q", ("n",), ((odd,),), is_cut=False)
    figures = block_of(single, View(), FORMATS, {"q.n": 1.0})
    assert isinstance(figures, Figures)
    assert figures.figures[0].change is None
    assert figures_of({"q": single}, {"q": View()}) == {}
