"""A team's own listeners in the real daemon: found by `[daemon] import`, and told of everything, whatever is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchd.domain.run import CreatedBy
from batchd.store.enqueue import NewRun, enqueue
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import Daemon, batchd, write_config
from tests.support.waiting import wait_until

_MODULE = """
import json
import os
import pathlib
import batchd

FILE = pathlib.Path(__file__).with_name("heard.ndjson")


@batchd.on("succeeded", "failed", name="keep")
def keep(event):
    with FILE.open("a") as file:
        file.write(json.dumps([event.run_id, event.name, event.kind]) + "\\n")
    if event.run_id == 5 and not FILE.with_name("killed").exists():
        FILE.with_name("killed").touch()
        os.kill(os.getpid(), 9)


@batchd.on("failed")
def broken(event):
    raise ConnectionError("no pager")
"""


def _heard(folder: Path) -> list[Any]:
    file = folder / "heard.ndjson"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_no_event_is_lost_to_a_kill(tmp_path: Path, urls: Urls) -> None:
    """The daemon is killed in the middle of a delivery; the next goes on there: each run at least once, in order."""
    (tmp_path / "my_listeners.py").write_text(_MODULE)
    config = write_config(
        tmp_path,
        {
            "daemon": {"import": ["my_listeners"], "state": str(tmp_path), "workers": 1},
            "store": {"url": urls.store},
            "jobs": {"bad": {"kind": "fail", "message": "no", "retry": {"max_attempts": 1}}},
        },
    )
    with Daemon(config) as daemon:
        daemon.ready()
        with opened(urls.store) as store:
            enqueue(store, [NewRun(kind="noop")] * 7 + [NewRun(job="bad")], created_by=CreatedBy.API)
        wait_until(lambda: daemon.code is not None, seconds=60, what="the kill")
    with Daemon(config) as daemon:
        wait_until(lambda: len({run for run, _, _ in _heard(tmp_path)}) == 8, seconds=60, what="all events")
        daemon.wait_for_event("listener.failed", listener="my_listeners:broken")
        said = json.loads(batchd(config, "status", "--json").stdout)
        assert daemon.stop() == 0
    order = list(dict.fromkeys(run for run, _, _ in _heard(tmp_path)))
    assert order == sorted(order)
    assert _heard(tmp_path)[-1] == [8, "failed", "fail"]
    failures = {each["name"]: each["failures"] for each in said["listeners"]}
    assert failures["my_listeners:broken"] >= 1
    assert any("no pager" in complaint for complaint in said["degraded"])
