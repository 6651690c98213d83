"""What is going to fire, and where it crowds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

from batchd.domain.job import JobDefinition
from batchd.outlook.forecast import Forecast, forecast
from batchd.outlook.forecast_page import forecast_page
from tests.support.definitions import job

_BEGIN = datetime(2026, 10, 23, tzinfo=UTC)
_USUAL = timedelta(minutes=5)


def _of(*jobs: JobDefinition, days: int = 3, places: dict[str, int] | None = None) -> Forecast:
    return forecast(jobs, _BEGIN, _BEGIN + timedelta(days=days), {}, _USUAL, places or {})


def test_every_fire_is_there() -> None:
    """A job that fires each hour does so 72 times in three days."""
    (hourly,) = _of(job("hourly", schedule="0 * * * *")).jobs
    assert hourly.count == len(hourly.fires) == 72
    assert hourly.fires[0] == _BEGIN + timedelta(hours=1)


def test_the_busiest_minute_names_who_fires_in_it() -> None:
    """Two jobs at 03:00 make it the busiest minute of each day."""
    found = _of(job("a", schedule="0 3 * * *"), job("b", schedule="0 3 * * *"), job("c", schedule="5 3 * * *"))
    assert [(each.minute.hour, each.minute.minute, each.jobs) for each in found.busiest] == [(3, 0, ("a", "b"))] * 3


def test_runs_that_meet_on_a_table_collide() -> None:
    """The second begins while the first is at work on the same table of the same database."""
    params = {"database": "app", "table": "logs"}
    found = _of(
        job("a", schedule="0 3 * * *", params=params),
        job("b", schedule="4 3 * * *", params=params),
        job("c", schedule="0 3 * * *", params=params | {"database": "other"}),
    )
    (collision,) = found.collisions
    assert (collision.on, collision.name, collision.jobs, collision.times) == ("table", "app.logs", ("a", "b"), 3)


def test_jobs_with_a_common_mutex_do_not_collide_on_their_table() -> None:
    """They wait for each other, which is told as what it is."""
    params = {"database": "app", "table": "logs"}
    jobs = [job(name, schedule="0 3 * * *", params=params, mutex="logs") for name in "ab"]
    assert [each.on for each in _of(*jobs).collisions] == ["mutex"]


def test_a_queue_with_too_few_places_is_told() -> None:
    """Two runs at once in a queue with one place."""
    found = _of(job("a", schedule="0 3 * * *"), job("b", schedule="1 3 * * *"), places={"default": 1})
    assert [(each.on, each.name, each.times) for each in found.collisions] == [("queue", "default", 3)]
    assert not _of(job("a", schedule="0 3 * * *"), job("b", schedule="1 3 * * *"), places={"default": 2}).collisions


def test_a_change_of_the_clock_is_told_for_the_jobs_that_it_touches() -> None:
    """A job in the hour that comes twice fires once; one far from it is not mentioned."""
    berlin = {"timezone": "Europe/Berlin"}
    found = _of(job("night", schedule="30 2 * * *", **berlin), job("noon", schedule="0 12 * * *", **berlin))
    (note,) = found.clock_notes
    assert (note.job, note.at, note.change) == ("night", datetime(2026, 10, 25, 1, tzinfo=UTC), "clock goes back 1h")
    assert note.effect.startswith("fires at 02:30:00 +0200, once")


def test_the_page_is_one_file_without_script() -> None:
    """Own SVG, names escaped, nothing loaded from anywhere."""
    found = _of(job("<b>&evil", schedule="0 3 * * *"), job("often", schedule="every 1m"))
    page = forecast_page(found, "the plan")
    assert "<script" not in page
    assert "http" not in page
    assert "<b>" not in page
    for part in page.split("<svg")[1:]:
        ET.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
    assert page.count("<svg") == 2
