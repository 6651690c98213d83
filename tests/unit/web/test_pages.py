"""What pages are made of: words, forms from a kind's model, results, config."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from batchd.jobs.catalog import kinds
from batchd.store.job_history import Amounts, Part
from batchd.store.job_lists import JobRow
from batchd.store.overview import Coming
from batchd.web.pages.config_lines import config_lines
from batchd.web.pages.job_view import amount_values, calendar_values, day_edges, edges_of
from batchd.web.pages.params_form import fields_of, param_values, written_params
from batchd.web.pages.result_view import result_view
from batchd.web.pages.timeline_view import tracks
from batchd.web.pages.words import ago, clean, css, pace_text, short

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
JOB = JobRow(
    id="nightly",
    kind="cleanup",
    schedule="15 3 * * *",
    timezone="Europe/Berlin",
    queue="default",
    priority=0,
    params={"table": "logs", "token": {"$ref": "config"}},
    enabled=True,
    next_run_at=NOW,
    paused_at=None,
    removed_at=None,
    catch_up="once",
    catch_up_max_runs=1,
    catch_up_max_age_seconds=60,
    overlap="skip",
    start_deadline_seconds=None,
    jitter_seconds=0,
    timeout_seconds=3600,
    max_attempts=3,
    retry={"backoff": "fixed", "delay_seconds": 10.0, "max_delay_seconds": 60.0},
    mutex=None,
    limit_key=None,
    keep={"failed": 86_400.0},
    then_run=None,
    error=None,
    updated_at=NOW,
)


def test_config_is_shown_without_its_secrets() -> None:
    """As it would be written; a mask where the config keeps a secret."""
    lines = [f"{line.key} = {line.value}" for line in config_lines(JOB, JOB.params)]
    assert 'schedule = "15 3 * * *"' in lines
    assert 'timeout = "1h"' in lines
    assert 'retry = { max_attempts = 3, backoff = "fixed", delay = "10s", max_delay = "1m" }' in lines
    assert 'keep_for = { failed = "1d" }' in lines
    assert 'token = "***"' in lines
    assert 'mutex = "x"' in [f"{each.key} = {each.value}" for each in config_lines(replace(JOB, mutex="x"), {})]


def test_a_form_has_a_field_for_each_param_that_may_be_set_from_here() -> None:
    """Of the right sort, with what the config says, and never a secret."""
    every = {name: replace(kind, adjustable=frozenset(kind.params.model_fields)) for name, kind in kinds().items()}
    secret = {name for name, field in every["http"].params.model_fields.items() if "Secret" in str(field.annotation)}
    assert secret
    found = {field.name: field for field in fields_of(every["http"], {"url": "https://example.com"}, {"url": "x"})}
    assert not secret & found.keys()
    assert found["url"].shown == "https://example.com"
    assert found["url"].value == "x"
    cleanup = {field.name: field for field in fields_of(every["cleanup"], {}, {})}
    assert cleanup["dry_run"].sort == "flag"
    assert cleanup["batch_size"].sort == "number"
    assert cleanup["column_unit"].choices == ("seconds", "milliseconds", "microseconds", "nanoseconds")
    assert [field.name for field in fields_of(kinds()["cleanup"], {}, {})] == ["dry_run"]


def test_what_is_written_is_json_where_it_is_json() -> None:
    """As on the command line; empty fields are left to the config."""
    form = {"param.a": " 5 ", "param.b": "", "param.c": "text", "param.d": "[1]", "param.e": "NaN", "other": "x"}
    assert param_values(written_params(form)) == {"a": 5, "c": "text", "d": [1], "e": "NaN"}


def test_a_syncs_result_is_its_difference() -> None:
    """Numbers in order, a bar of their shares, and everything else."""
    view = result_view("sync", {"added": 3, "changed": 1, "removed": 0, "unchanged": 96, "mode": "full"})
    assert view is not None
    assert [(each.name, each.count) for each in view.counts][:2] == [("Added", 3), ("Changed", 1)]
    assert view.bar is not None
    assert view.bar.count("<rect") == 3
    dry = result_view("sync", {"added": 0, "dry_run": True, "would": {"add": 7, "change": 0, "remove": 2}})
    assert dry is not None
    assert ("Would be added", 7) in [(each.name, each.count) for each in dry.counts]
    assert result_view("sync", None) is None


def test_days_of_a_calendar_are_local_and_may_be_longer() -> None:
    """The day on which the clock goes back has 25 hours."""
    edges = day_edges(datetime(2026, 10, 26, 12, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
    lengths = [(after - before) // timedelta(hours=1) for before, after in zip(*_utc(edges), strict=True)]
    assert set(lengths) == {24, 25}
    assert edges[-1].date().isoformat() == "2026-10-27"


def _utc(edges: list[datetime]) -> tuple[list[datetime], list[datetime]]:
    moments = [edge.astimezone(UTC) for edge in edges]
    return moments[:-1], moments[1:]


def test_a_calendar_says_how_much_succeeded() -> None:
    """In a number, and for each day in words."""
    days = [Part(NOW, NOW + timedelta(days=1), {"succeeded": 3, "failed": 1})]
    values = calendar_values(days)
    assert values["success_words"] == "75 % succeeded"
    assert values["days"][0].said == "3 succeeded, 1 failed"


def test_rows_are_summed_by_part() -> None:
    """What several runs did in one part is one bar."""
    edges = edges_of("24h", NOW)
    found = [Amounts(place, NOW - timedelta(minutes=5), {"added": 2}) for place in range(3)]
    values = amount_values(found, edges, "24h", ZoneInfo("UTC"))
    assert [row.total for row in values["amount_rows"]] == [6]
    assert amount_values([], edges, "24h", ZoneInfo("UTC")) == {"amounts": None}


@pytest.mark.parametrize(("schedule", "count"), [("every 1h", 24), ("*/5 * * * *", 288), ("0 0 1 1 *", 1), ("no", 1)])
def test_tracks_count_the_fires_of_a_day(schedule: str, count: int) -> None:
    """Also where there are too many for dots, and where the schedule cannot be read."""
    coming = Coming("nightly", schedule, "UTC", NOW + timedelta(minutes=5 if "*/5" in schedule else 60), None)
    assert tracks([coming], NOW)[0].count == count


def test_words() -> None:
    """Ages, paces and short numbers; text that would hide or turn text around is cleaned."""
    assert ago(NOW - timedelta(seconds=90), NOW) == "1m ago"
    assert ago(NOW + timedelta(hours=3), NOW) == "in 3h"
    assert (short(1_500), short(2_000_000), short(7)) == ("1.5k", "2M", "7")
    assert clean("a\x1b[31m\u202eb\nc") == "a[31mb c"
    assert css('"><x') == "x"
    run: Any = SimpleNamespace(progress_done=50, progress_total=150, started_at=NOW - timedelta(seconds=10))
    assert pace_text(run, NOW) == " · 5.0/s, 20s left"
