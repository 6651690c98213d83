"""The charts: well-formed, told in a sentence, and true to their numbers."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from batchd.store.job_history import Part
from batchd.web.charts.amounts import amounts, highest_amount
from batchd.web.charts.calendar import calendar
from batchd.web.charts.durations import durations, highest_duration
from batchd.web.charts.strip import strip
from batchd.web.charts.svg import counts_text, nice_ceiling, worst
from batchd.web.charts.timeline import dense_track, track

START = datetime(2026, 11, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)


def drawn(chart: str) -> ET.Element:
    """The chart as an element: it is well-formed, an image, and has a sentence; nothing in it needs `unsafe-inline`."""
    assert "style=" not in chart
    assert " on" not in re.sub(r'"[^"]*"|>[^<]*<', "", chart)
    element = ET.fromstring(chart)
    assert element.get("role") == "img"
    assert element.get("aria-label")
    return element


def test_a_strip_shows_the_worst_of_each_part() -> None:
    """A failure among successes is a failure; what is empty is one shape; tooltips are in local time."""
    chart = drawn(strip([{"succeeded": 9, "failed": 1}, {}, {"skipped": 1}], START, HOUR, ZoneInfo("Europe/Berlin")))
    cells = chart.findall("rect")
    assert [cell.get("class") for cell in cells] == ["cell is-failed", "cell is-skipped"]
    title = cells[0].find("title")
    assert title is not None
    assert title.text == "01:00–02:00: 9 succeeded, 1 failed"  # noqa: RUF001
    assert chart.get("aria-label") == "Last 24 hours: 9 succeeded, 1 failed, 1 skipped"


def test_durations_have_gaps_where_nothing_ran() -> None:
    """Each stretch is a band and two lines; a single part is a dot."""
    took = [timedelta(seconds=seconds) if seconds else None for seconds in (2, 4, None, 3)]
    parts = [
        Part(START + place * HOUR, START + (place + 1) * HOUR, {"succeeded": 1}, each, each and each * 2)
        for place, each in enumerate(took)
    ]
    assert highest_duration(parts) == timedelta(seconds=10)
    chart = drawn(durations(parts, ["a", "b", "c", "d"], "label"))
    lines = [path for path in chart.findall("path") if path.get("class") == "line is-p50"]
    assert len(lines) == 2
    assert "h0.01" in str(lines[1].get("d"))
    assert [rect.findtext("title") for rect in chart.findall("rect")] == ["a", "b", "d"]


def test_amounts_are_bars_of_their_height() -> None:
    """The largest fills its share of the scale; nothing has no bar."""
    assert highest_amount([0, 180, 40]) == 200
    bars = drawn(amounts([0, 180, 40], ["", "a", "b"], "label")).findall("rect")
    assert [float(str(bar.get("height"))) for bar in bars] == [108.0, 24.0]


def test_a_calendar_has_a_square_a_day_in_weeks_from_monday() -> None:
    """Days are coloured by how many of their runs ended well."""
    days = [{"succeeded": 20}, {"succeeded": 99, "failed": 1}, {"succeeded": 1, "failed": 1}, {"failed": 2}, {}]
    cells = drawn(calendar(date(2026, 11, 23), days, "label")).findall("rect")
    grades = [str(cell.get("class")).removeprefix("cell is-") for cell in cells]
    assert grades == ["succeeded", "mixed", "partly", "failed", "empty"]
    assert len({cell.get("x") for cell in cells}) == 1
    assert len({cell.get("y") for cell in cells}) == 5


def test_a_track_has_a_dot_a_fire() -> None:
    """As wide as the run is expected to take, within the track."""
    fires = [START + HOUR, START + 12 * HOUR, START + 25 * HOUR]
    dots = drawn(track(fires, START, 24 * HOUR, HOUR, "label")).findall("path")[-1].get("d")
    assert dots == "M40 12h40M480 12h40"
    assert drawn(dense_track(START, START + HOUR, 24 * HOUR, "label")) is not None


@pytest.mark.parametrize(("value", "top"), [(0, 1), (1, 1), (1.2, 2), (2.3, 2.5), (43, 50), (99, 100), (0.003, 0.005)])
def test_scales_end_at_numbers_that_read_well(value: float, top: float) -> None:
    """One, two, two and a half or five times a power of ten."""
    assert nice_ceiling(value) == pytest.approx(top)


def test_text_in_a_chart_is_escaped() -> None:
    """A job's name may be anything once it stands in a row."""
    assert "<script>" not in track([START], START, HOUR, None, '"><script>')


def test_words_for_a_mixed_lot() -> None:
    """What is good comes first, what is bad decides the colour."""
    assert counts_text({"failed": 1, "succeeded": 1_200, "missed": 0}) == "1,200 succeeded, 1 failed"
    assert counts_text({}) == "no runs"
    assert worst(["succeeded", "missed"]) == "missed"
    assert worst([]) is None
