"""The list of events is closed: the source, the catalogue and the docs agree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import batchd
from batchd.telemetry.events import EVENTS, events_markdown, message_of

_SOURCE = Path(batchd.__file__).parent
_METHODS = {"debug", "info", "warning", "error", "critical", "exception"}
_LOGS = {"log", "_log", "tell"}


def _logged() -> Iterator[str]:
    for file in _SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func
            owner = called.value if isinstance(called, ast.Attribute) else None
            is_log = isinstance(called, ast.Attribute) and called.attr in _METHODS and _name(owner) in _LOGS
            if is_log or _name(called) == "tell":
                yield str(node.args[0].value)


def _name(node: ast.AST | None) -> str:
    return getattr(node, "attr", None) or getattr(node, "id", "")


def test_every_logged_event_is_in_the_list() -> None:
    """A name that is not there would have no sentence and no documentation."""
    assert set(_logged()) == set(EVENTS)


def test_the_docs_hold_the_same_list() -> None:
    """docs/events.md is generated; write it again after a change."""
    page = (_SOURCE.parent / "docs" / "events.md").read_text(encoding="utf-8")
    assert events_markdown() in page


def test_a_message_survives_a_missing_field() -> None:
    """A log line must never fail."""
    assert message_of("run.lost", {}) == "took back runs ?"
    assert message_of("no.such", {}) == "no.such"
    assert message_of("run.failed", {"duration_s": 1, "error": None}) == "failed after 1 s: ?"


def test_a_message_tells_a_list_in_words() -> None:
    """Not as Python has it."""
    assert message_of("run.lost", {"runs": [1, 2]}) == "took back runs 1, 2"
    assert message_of("service.draining", {"runs": []}) == "stopping; runs still at work: none"
