"""Planted secrets: none of them may come out anywhere, whatever goes wrong."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from batchd.domain.run import CreatedBy, RunState
from batchd.store import control
from batchd.store.schema import metadata
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.store_reading import wait_for_state

_CANARIES = ("canary-in-a-parameter-81f2", "canary-in-a-url-5c0d", "canary-from-a-file-7e33")


def test_no_secret_reaches_a_log_a_table_or_a_command(tmp_path: Path, urls: Urls) -> None:
    """Secrets from the environment, a URL and a file stay out of the log, every table and every command's output."""
    in_parameter, in_url, in_file = _CANARIES
    (tmp_path / "url.txt").write_text(f"postgresql://me:{in_file}@127.0.0.1:1/none")
    config = write_config(
        tmp_path,
        {
            "log": {"format": "json", "level": "debug"},
            "store": {"url": urls.store},
            "databases": {
                "app": {"url": "postgresql://me:${PASSWORD}@127.0.0.1:1/none"},
                "other": {"url_file": str(tmp_path / "url.txt")},
            },
            "jobs": {
                "fail": {"kind": "fail", "token": "${TOKEN}", "retry": {"max_attempts": 1}},
                "append": {"kind": "append", "database": "app", "retry": {"max_attempts": 1}},
                "append-other": {"kind": "append", "database": "other", "retry": {"max_attempts": 1}},
            },
        },
    )
    environment = {"TOKEN": in_parameter, "PASSWORD": in_url}
    said = []
    with Daemon(config, environment=environment) as daemon, opened(urls.store) as store:
        daemon.ready()
        ids = [control.trigger(store, job, {}, created_by=CreatedBy.CLI) for job in ("fail", "append", "append-other")]
        for run_id in ids:
            wait_for_state(store, run_id, RunState.FAILED, seconds=40)
        for command in (["check", "--connect"], ["jobs"], ["runs", "--json"], *(["show", str(id_)] for id_ in ids)):
            done = batchd(config, *command, environment=environment)
            said.append(done.stdout + done.stderr)
        daemon.stop()
        said.append(daemon.output)
        with store.reading() as connection:
            said += [str(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]
    text = "\n".join(said)
    assert "fail" in text
    for canary in _CANARIES:
        assert canary not in text
