"""/metrics and /readyz: what they say, in which words, and what they cost."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchd.domain.surface import Phase
from batchd.store.gauges import GaugeReader
from batchd.telemetry.meters import OTHER, Meters
from batchd.web.health import STALE
from tests.support import promtool
from tests.support.cleaning import FixedClock
from tests.support.store_rows import LONG_AGO, add_run, add_schedule, add_worker
from tests.support.web import Surface, opened_surface

_NAME = re.compile(r"(batchd|process)_[a-z][a-z0-9_]*")
_UNITS = ("_seconds", "_bytes", "_total", "_info", "_ratio")
_COUNTS = {"batchd_ready", "batchd_daemon_answers", "batchd_config_last_reload_successful", "batchd_executor_slots",
           "batchd_store_up", "batchd_queue_runs", "batchd_queue_paused", "batchd_workers", "batchd_jobs",
           "batchd_runs_in_progress", "batchd_incidents_open", "batchd_sse_clients", "process_open_fds"}  # fmt: skip
"""What counts things or answers yes or no, and so has no unit."""


def scraped(surface: Surface, **sent: object) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a scrape, as Prometheus' own parser reads it."""
    answer = surface.get("/metrics", **{"as_": "metrics", **sent})  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _counted() -> dict[str, object]:
    meters = Meters(["nightly", "idle"])
    meters.started(0.2)
    meters.ended("nightly", "succeeded", "schedule", 3.0, 1_200)
    meters.ended("gone", "failed", "manual", 0.05, None)
    meters.count("missed", "nightly", 4)
    return {**meters.snapshot(), "slots": {"all": 10, "busy": 3}, "worker": "w1"}


def test_a_scrape_tells_of_the_store_the_daemon_and_the_server(surface: Surface) -> None:
    """Values from all three sources, with the values that they should have."""
    add_schedule(surface.store)
    add_schedule(surface.store, "idle", paused_at=LONG_AGO)
    add_worker(surface.store)
    add_run(surface.store, "succeeded", started_at=LONG_AGO, finished_at=LONG_AGO + timedelta(seconds=90))
    add_run(surface.store, "failed", started_at=LONG_AGO, finished_at=LONG_AGO + timedelta(minutes=5))
    add_run(surface.store)
    surface.beat()
    surface.daemon.answer = _counted()
    surface.get("/healthz")
    found = scraped(surface)

    def value(name: str, **labels: str) -> float:
        return found[f"batchd_{name}", frozenset(labels.items())]

    assert value("runs_total", job="nightly", outcome="succeeded", trigger="schedule") == 1
    assert value("runs_total", job="idle", outcome="failed", trigger="manual") == 0
    assert value("runs_total", job=OTHER, outcome="failed", trigger="manual") == 1
    assert value("run_duration_seconds_bucket", job="nightly", le="1") == 0
    assert value("run_duration_seconds_bucket", job="nightly", le="10") == 1
    assert value("run_duration_seconds_count", job="nightly") == 1
    assert value("rows_processed_total", job="nightly") == 1_200
    assert value("missed_fires_total", job="nightly") == 4
    assert value("executor_slots", state="free") == 7
    assert value("queue_runs", queue="default", state="ready") == 1
    assert value("jobs", state="paused") == 1
    assert value("workers", state="alive") == 1
    assert value("job_last_success_timestamp_seconds", job="nightly") == (LONG_AGO + timedelta(seconds=90)).timestamp()
    assert value("job_last_duration_seconds", job="nightly") == 300
    assert value("job_expected_interval_seconds", job="nightly") == 60
    assert 0 <= value("scheduler_loop_age_seconds") < 60
    assert value("http_requests_total", route="/healthz", code="200") == 1
    assert value("store_up") == 1


def test_names_follow_the_rules_of_prometheus(surface_on_sqlite: Surface) -> None:
    """One prefix, base units, `_total` on counters alone, help, no label that grows with the runs; promtool agrees."""
    surface = surface_on_sqlite
    surface.beat()
    add_schedule(surface.store)
    surface.daemon.answer = _counted()
    add_run(surface.store, "failed", started_at=LONG_AGO, finished_at=LONG_AGO + timedelta(minutes=5))
    text = surface.get("/metrics", as_="metrics").text
    assert promtool.complaints("metrics", given=text) == ""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert _NAME.fullmatch(family.name), family.name
        assert family.documentation.endswith("."), family.name
        names = {sample.name for sample in family.samples}
        assert (family.type == "counter") == all(name.endswith("_total") for name in names), family.name
        assert family.name in _COUNTS or family.type == "counter" or family.name.endswith(_UNITS), family.name
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= {"job", "outcome", "trigger", "queue", "state", "rule", "route", "code", "reason", "check",
                          "le", "version", "python", "store"}  # fmt: skip


def test_what_does_not_answer_is_missing_and_not_nought(surface_on_sqlite: Surface) -> None:
    """A daemon that hangs cannot be asked: its counters are left out, and a gauge says why."""
    found = scraped(surface_on_sqlite)
    assert found["batchd_daemon_answers", frozenset()] == 0
    assert not any(name.startswith("batchd_runs_total") for name, _ in found)
    assert not any(name == "batchd_scheduler_loop_age_seconds" for name, _ in found)


def test_a_scrape_may_be_open_to_everybody(surface_on_sqlite: Surface) -> None:
    """By the config; a token is needed otherwise."""
    assert surface_on_sqlite.get("/metrics").status_code == 401
    with opened_surface(surface_on_sqlite.store, metrics_open=True, name="open") as opened:
        assert opened.get("/metrics").status_code == 200


def test_many_scrapes_ask_the_store_once(surface_on_sqlite: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scrape has read serves the next ones."""
    surface_on_sqlite.desk.clock = FixedClock()  # a slow machine would need more than one reading's time
    asked = []
    real = GaugeReader.read
    monkeypatch.setattr(GaugeReader, "read", lambda self, *given: asked.append(1) or real(self, *given))
    for _ in range(5):
        scraped(surface_on_sqlite)
    assert len(asked) == 1


def test_last_successes_are_followed_without_reading_history_again(surface: Surface) -> None:
    """A reader that knows a job hears of its new endings, the later ones and no others."""
    reader = GaugeReader()
    add_schedule(surface.store)
    moment = LONG_AGO + timedelta(hours=1)
    add_run(surface.store, "succeeded", started_at=LONG_AGO, finished_at=moment)
    assert _success(reader, surface) == moment
    add_run(surface.store, "failed", started_at=LONG_AGO)
    assert _success(reader, surface) == moment
    add_run(surface.store, "succeeded", started_at=LONG_AGO)
    latest = _success(reader, surface)
    assert latest is not None
    assert latest > moment


def _success(reader: GaugeReader, surface: Surface) -> datetime | None:
    (job,) = reader.read(surface.store).jobs
    return job.last_success_at


def test_readiness_is_judged_from_outside_the_daemon(surface_on_sqlite: Surface) -> None:
    """Red before the first sign, when signs are old, and while it drains; only who may read is told why."""
    surface = surface_on_sqlite
    assert surface.get("/readyz").status_code == 503
    surface.desk.health.answered()
    surface.beat()
    assert (surface.get("/readyz").status_code, surface.get("/readyz").json()) == (200, {"status": "ready"})
    surface.beat(Phase.DRAINING)
    assert surface.get("/readyz").status_code == 503
    surface.beat(age=STALE.total_seconds() + 1)
    red = surface.get("/readyz", as_="viewer")
    assert red.status_code == 503
    assert {check["name"] for check in red.json()["checks"] if not check["ok"]} == {"daemon", "scheduler", "leases"}
    assert surface.get("/healthz").status_code == 200
