"""An export as a person sees it: started over HTTP, followed live, downloaded by the link at its end."""

from __future__ import annotations

import contextlib
import gzip
import sqlite3
import time
from pathlib import Path

import httpx2

from batchd.domain.access import Role
from batchd.store import tokens
from tests.e2e.conftest import Urls
from tests.support.app_table import opened
from tests.support.daemon import Daemon, write_config
from tests.support.live_server import Listener
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def test_an_export_is_followed_to_its_download(tmp_path: Path, urls: Urls) -> None:
    """From the request to the file, with every event on the way; a stop of the daemon ends the streams whole."""
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("CREATE TABLE customers (id integer PRIMARY KEY, country text, password text)")
        shop.executemany("INSERT INTO customers VALUES (?, ?, 'x')", [(n, "DE" if n % 2 else "FR") for n in range(500)])
    port = free_port()
    config = write_config(
        tmp_path,
        {
            "daemon": {"state": str(tmp_path / "state")},
            "store": {"url": urls.store},
            "databases": {"shop": {"url": f"sqlite:///{tmp_path / 'shop.db'}"}},
            "http": {"listen": f"127.0.0.1:{port}"},
            "exports": {
                "sources": {
                    "customers": {
                        "database": "shop",
                        "table": "customers",
                        "columns": ["id", "country"],
                        "filters": ["country"],
                    }
                }
            },
            "jobs": {"idle": {"kind": "noop"}},
        },
    )
    with Daemon(config) as daemon, contextlib.ExitStack() as stack:
        daemon.ready()
        daemon.wait_for_event("http.listening")
        with opened(urls.store) as store:
            token = tokens.create(store, "operator", Role.OPERATOR).text
        authorization = f"Authorization: Bearer {token}\r\n"
        everything = stack.enter_context(
            contextlib.closing(Listener(port, "/api/v1/events?event=state", headers=authorization))
        )
        everything.placed()
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as api:
            asked = {"source": "customers", "format": "csv.gz", "match": {"country": "DE"}}
            export = api.post("/api/v1/exports", json=asked).json()
            follower = stack.enter_context(contextlib.closing(Listener(port, export["events"], headers=authorization)))
            heard = follower.until(lambda event: event.event == "end")
            assert follower.next() is None
            assert follower.is_whole
            assert heard[0].event == "snapshot"
            assert heard[-1].data == {"run_id": export["run_id"], "state": "succeeded"}
            (link,) = [event.data for event in heard if event.event == "download"]
            answer = httpx2.get(f"http://127.0.0.1:{port}{link['url']}")  # by the link alone
            lines = gzip.decompress(answer.content).decode().splitlines()
            assert lines[0] == "id,country"
            assert lines[1:] == [f"{number},DE" for number in range(1, 500, 2)]
            assert answer.headers["etag"] == link["etag"]
            assert link["size_bytes"] == len(answer.content)
            started = everything.until(lambda event: event.data["state"] == "succeeded")
            assert [event.data["event"] for event in started] == ["run.started", "run.finished"]
            assert {event.data["run_id"] for event in started} == {export["run_id"]}
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 10
        wait_until(lambda: everything.next() is None, what="the end of the stream")
        assert everything.is_whole
