"""The HTTP application without a process: a client on it, with a token of each role.

    def test_it(surface: Surface) -> None:
        assert surface.get("/api/v1/jobs", as_="viewer").status_code == 200

Requests run through every layer of the app, on an event loop of the client's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from starlette.applications import Starlette

from batchd.clock import SystemClock
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.access import Role
from batchd.domain.job import JobDefinition, JsonObject
from batchd.domain.queue import QueueLimits, QueueRules
from batchd.domain.surface import HttpSettings, Phase, Tcp
from batchd.errors import ParamsInvalid
from batchd.jobs.catalog import kinds
from batchd.jobs.contract import Kind
from batchd.store import tokens
from batchd.web.app import create_app
from batchd.web.desk import Desk
from batchd.web.health import Health
from batchd.web.pulse import Beat, Pulse
from tests.support.asgi import InProcess
from tests.support.definitions import job

CRON_SECRET = "a-secret-for-cron-callers"
WRONG_TOKEN = f"batchd_{'0' * 12}_{'A' * 43}"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class OneJob:
    """The config's jobs: `nightly`, as `tests.support.store_rows` adds it; the param `secret` is refused."""

    def __init__(self) -> None:
        self.known: dict[str, JobDefinition] = {"nightly": job("nightly", kind="cleanup")}

    def definitions(self) -> Mapping[str, JobDefinition]:
        return self.known

    def check_overrides(self, _job: str, overrides: JsonObject) -> None:
        if "secret" in overrides:
            raise ParamsInvalid("secret is a secret, and a run's params are stored", hint="set it in the config")

    def queues(self) -> tuple[str, ...]:
        return ("default",)

    @property
    def timezone(self) -> str:
        return "Europe/Berlin"

    def limits(self, queue: str) -> str:
        return "2 in all" if queue == "default" else ""

    def queue_limits(self) -> QueueLimits:
        return QueueLimits({"default": QueueRules(max_running=2)})

    def kind(self, name: str) -> Kind[Any] | None:
        return kinds().get(name)

    def databases_of(self, _kind: str, _job: str | None, _params: JsonObject) -> tuple[DatabaseSettings, ...]:
        return ()


class CountedBefore:
    """A daemon that answers with what the test says."""

    def __init__(self) -> None:
        self.answer: JsonObject | None = None

    def counted(self) -> JsonObject | None:
        return self.answer


class Surface:
    """The app on a store, and a client. `tokens` by role; `as_` names one, or "cron", "wrong", "session"."""

    def __init__(self, store: Database, *, name: str = "the", **settings: Any) -> None:
        self.store = store
        self.clock = SystemClock()
        self.pulse = Pulse()
        self.jobs = OneJob()
        self.daemon = CountedBefore()
        self.settings = HttpSettings(Tcp("127.0.0.1", 8787), **{"cron_secret": CRON_SECRET, **settings})
        self.desk = Desk(
            store,
            self.settings,
            self.jobs,
            self.daemon,
            Health(self.pulse, self.clock),
            self.clock,
            lambda value: value,
        )
        self.app: Starlette = create_app(self.desk)
        self.tokens = {role.value: tokens.create(store, f"{name}-{role.value}", role).text for role in Role}
        self.tokens |= {"cron": CRON_SECRET, "wrong": WRONG_TOKEN}
        self.client = InProcess(self.app)

    def request(
        self, method: str, path: str, *, as_: str | None = None, headers: Mapping[str, str] | None = None, **sent: Any
    ) -> httpx2.Response:
        """Send one request and return the answer, as the holder of a token, or as nobody."""
        said = {"Host": "localhost:8787", **(headers or {})}
        if as_ is not None:
            said["Authorization"] = f"Bearer {self.tokens[as_]}"
        return self.client.request(method, path, headers=said, **sent)

    def get(self, path: str, **sent: Any) -> httpx2.Response:
        """GET the path."""
        return self.request("GET", path, **sent)

    def post(self, path: str, **sent: Any) -> httpx2.Response:
        """POST to the path."""
        return self.request("POST", path, **sent)

    def sign_in(self, role: str = "operator") -> dict[str, str]:
        """Sign in as a browser does and return the headers that go with its further requests."""
        answer = self.post("/login", data={"token": self.tokens[role]}, headers=SAME_ORIGIN)
        assert answer.status_code == 303, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return {"Cookie": cookie, **SAME_ORIGIN}

    def forget_failures(self) -> None:
        """Let the wrong tokens so far count no more."""
        self.app.state.gate._failures._at.clear()

    def beat(self, phase: Phase = Phase.SERVING, *, age: float = 0.0) -> None:
        """Let the daemon have told that all is well, so many seconds ago."""
        at = self.clock.monotonic() - age
        self.pulse.write(Beat(phase, at, at, at))

    def close(self) -> None:
        """Let go of the event loop and the threads."""
        self.client.close()
        self.desk.threads.shutdown(wait=True)


@contextlib.contextmanager
def opened_surface(store: Database, **settings: Any) -> Iterator[Surface]:
    """Yield the app on a store that has its tables."""
    surface = Surface(store, **settings)
    try:
        yield surface
    finally:
        surface.close()
