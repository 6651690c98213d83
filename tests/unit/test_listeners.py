"""Registering listeners: what they want, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

import batchd
from batchd import listeners
from batchd.listeners import Event, EventName, registered

EVENT = Event(
    1, EventName.FAILED, datetime(2026, 5, 1, tzinfo=UTC), 7, "nightly", "sync", "low", "failed", None, 1, "no"
)


@pytest.fixture(autouse=True)
def nobody_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without listeners."""
    monkeypatch.setattr(listeners, "_registered", {})


def test_a_function_is_registered_and_stays_itself() -> None:
    """Under its module and name, or the name that it is given."""

    @batchd.on("failed", "missed")
    def page(event: Event) -> str:
        return f"run {event.run_id}"

    batchd.on("succeeded", name="other")(page)
    assert page(EVENT) == "run 7"
    assert [each.name for each in registered()] == ["other", f"{__name__}:{page.__qualname__}"]
    assert registered()[1].events == {"failed", "missed"}


@pytest.mark.parametrize(
    ("narrow", "is_wanted"),
    [
        ({}, True),
        ({"job": "nightly"}, True),
        ({"job": ["hourly", "nightly"], "kind": "sync", "queue": "low"}, True),
        ({"job": "hourly"}, False),
        ({"kind": "cleanup"}, False),
        ({"queue": "critical", "job": "nightly"}, False),
    ],
)
def test_what_a_listener_wants(narrow: dict[str, Any], is_wanted: bool) -> None:
    """One name or several, and all of them must fit."""
    batchd.on("failed", **narrow)(print)
    assert registered()[0].wants(EVENT) is is_wanted


def test_what_cannot_be_is_refused_with_advice() -> None:
    """While the module is imported, and not when the event comes."""
    with pytest.raises(ValueError, match="did you mean 'failed'"):
        batchd.on("faild")
    with pytest.raises(ValueError, match="needs the events"):
        batchd.on()
    with pytest.raises(ValueError, match="give_up_after"):
        batchd.on("failed", give_up_after=0)


def test_two_functions_of_one_name_are_refused() -> None:
    """They would share one place in the stream; a module that is imported again is no second one."""

    def first(event: Event) -> None: ...

    def second(event: Event) -> None: ...

    batchd.on("failed", name="same")(first)
    batchd.on("failed", name="same")(first)
    with pytest.raises(ValueError, match="two listeners 'same'"):
        batchd.on("failed", name="same")(second)


def test_it_imports_nothing_of_the_daemon() -> None:
    """Application code may register listeners wherever it likes."""
    heavy = "{'sqlalchemy', 'pydantic', 'psycopg', 'apscheduler', 'click', 'structlog', 'tenacity'}"
    code = f"import sys, batchd; batchd.on('failed')(print); sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
