"""What usually goes wrong is found, and says what to do; a healthy store has nothing to say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from batchd.cli.main import cli
from batchd.clock import SystemClock
from batchd.config.load import load_config
from batchd.db.ailments import DeadRows, Server
from batchd.outlook.examination import Finding, Health, examine, server_findings
from batchd.store.migrate import migrate
from tests.support.databases import open_database
from tests.support.store_rows import add_run, add_schedule, add_worker

_CONFIG = '[store]\nurl = "{url}"\n[jobs.shell]\nkind = "command"\nschedule = "@daily"\ncommand = ["true"]\n'


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Path:
    """A config on a migrated store with a daemon that is alive."""
    store = open_database(database_url)
    migrate(store)
    add_worker(store)
    store.close()
    file = tmp_path / "config.toml"
    file.write_text(_CONFIG.format(url=database_url))
    file.chmod(0o600)
    return file


def _doctor(config: Path) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(cli, ["doctor", "--config", str(config), "--json"], catch_exceptions=False)
    findings = json.loads(done.stdout)["findings"]
    ailing = [each for each in findings if each["health"] != "ok"]
    assert all(each["remedy"] for each in ailing)
    # The tests' server does not sync, which is told rightly; and how full this machine's disk is, is not the matter.
    told = [each for each in ailing if each["topic"] != "disk" and "fsync is off" not in each["message"]]
    return done.exit_code if told == ailing else 0, told


def test_a_healthy_store_has_nothing_to_say(config: Path) -> None:
    """Exit code 0, and nothing that is not well."""
    code, ailing = _doctor(config)
    assert ailing == []
    assert code == 0


def test_what_is_wrong_in_the_store_is_told(config: Path, database_url: str) -> None:
    """A stuck run, a backlog, failures, a broken schedule, a missing index: exit code 13."""
    store = open_database(database_url)
    hour_ago = SystemClock().now() - timedelta(hours=1)
    add_schedule(store, error="no such day")
    add_run(store, "running", lease_until=hour_ago)
    add_run(store, "queued", available_at=hour_ago)
    add_run(store, "failed")
    add_run(store, "quarantined")
    with store.writing() as connection:
        connection.execute(text("DROP INDEX batchd_runs_claim"))
    store.close()
    _, ailing = _doctor(config)
    code = CliRunner().invoke(cli, ["doctor", "--quiet", "--config", str(config)]).exit_code
    said = " | ".join(each["message"] for each in ailing)
    assert code == 13
    for part in (
        "lease over",
        "1 runs could start",
        "1 runs failed",
        "quarantined",
        "nightly",
        "index batchd_runs_claim",
    ):
        assert part in said


def test_a_file_that_every_user_may_write_is_told(config: Path) -> None:
    """So is one of the config."""
    config.chmod(0o602)
    assert ("permissions", "bad") in {(each["topic"], each["health"]) for each in _doctor(config)[1]}


def test_a_clock_that_is_wrong_is_told(config: Path) -> None:
    """A minute apart is bad: schedules go by one clock, leases by the other."""

    class Wrong(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(minutes=1)

    found = examine(load_config(config, {}), Wrong())
    assert [each.health for each in found if each.topic == "clock"] == [Health.BAD]


def test_no_daemon_is_told(config: Path, database_url: str) -> None:
    """One that fell silent does not count."""
    store = open_database(database_url)
    with store.writing() as connection:
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        moment = long_ago if store.dialect.name == "postgresql" else "2020-01-01T00:00:00.000000Z"
        connection.execute(text("UPDATE batchd_workers SET heartbeat_at = :at"), {"at": moment})
    store.close()
    assert [each["topic"] for each in _doctor(config)[1]] == ["daemon"]


def test_what_a_server_says_is_judged() -> None:
    """An old version, a pooler in transaction mode, autovacuum off, dead rows, an invalid index."""
    sick = Server(
        130_004, {"autovacuum": "off"}, (DeadRows("public.logs", 90, 10, True, False),), ("logs_idx",), "transaction"
    )
    found: list[Finding] = list(server_findings("store", sick))
    assert [(each.topic, each.health) for each in found] == [
        ("version", Health.WARNING),
        ("pgbouncer", Health.WARNING),
        ("settings", Health.WARNING),
        ("bloat", Health.WARNING),
        ("indexes", Health.WARNING),
    ]
    well = Server(160_002, {"autovacuum": "on"}, (), (), None)
    assert {each.health for each in server_findings("app", well)} == {Health.OK}
