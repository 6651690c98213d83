"""The API against its own document: whatever is sent, right or wrong, no 5xx and no answer that is not documented.

schemathesis makes the requests from the document; each answer must be one that the document has, of a media type that
it names and of the shape that it says. Streams are let go at once here, for an answer without an end is none.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import pytest
import schemathesis
from schemathesis import GenerationMode

from batchd.domain.exporting import ExportJob, ExportSettings, ExportSource
from batchd.web import openapi
from tests.support.postgres import fresh_database
from tests.support.store_rows import add_log_line, add_run, add_schedule, add_worker
from tests.support.web import Surface

_DOCUMENT = openapi.document()
_SCHEMA = schemathesis.openapi.from_dict(_DOCUMENT)
_OPERATIONS = [found.ok() for found in _SCHEMA.get_all_operations()]
_EXAMPLES = int(os.environ.get("BATCHD_TEST_API_EXAMPLES", "3"))
"""Requests for each operation, right ones and wrong ones; `make stress` sends many."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    """A surface with something of everything; the requests may change it as they like."""
    from batchd.store.migrate import migrate  # noqa: PLC0415
    from tests.support.databases import open_database  # noqa: PLC0415
    from tests.support.web import opened_surface  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("api")
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder}/batchd.db"
        if request.param == "postgresql":
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres_server")))
        store = stack.enter_context(contextlib.closing(open_database(url)))
        migrate(store)
        surface = stack.enter_context(opened_surface(store))
        surface.desk.exports = _exports(folder)
        add_schedule(store)
        add_schedule(store, "users", kind="csv_export")
        add_worker(store)
        for state in ("queued", "running", "succeeded", "failed"):
            add_log_line(store, add_run(store, state), "said")
        surface.desk.live.hub.close()
        yield surface


def _exports(folder: Path) -> ExportSettings:
    source = ExportSource("rows", "app", "rows", None, None, ("id",), frozenset({"id"}), ("csv",), escape_formulas=True)
    return ExportSettings(
        str(folder),
        str(folder / "links.key"),
        timedelta(days=1),
        timedelta(minutes=5),
        {"users": ExportJob(f"{folder}/users.csv", {})},
        {"rows": source},
    )


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("operation", _OPERATIONS, ids=lambda each: f"{each.method} {each.path}")
def test_every_answer_is_documented(api: Surface, operation: Any, mode: GenerationMode) -> None:
    """Requests as the document has them, and such as it has not."""

    @hypothesis.settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        _check(operation, _sent(api, case))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what hypothesis thinks of the strategies is not the API's business
        ask()


def _sent(api: Surface, case: Any) -> Any:
    """Send what was made up, as an operator; a body may be of any sort."""
    wanted = case.as_transport_kwargs(base_url="http://localhost:8787")
    headers = {
        name: value
        for name, value in dict(wanted.get("headers") or {}).items()
        if name.lower() not in {"authorization", "host", "content-length"} and str(value).isprintable()
    }
    sent: dict[str, Any] = {"headers": headers, "params": wanted.get("params")}
    if wanted.get("json") is not None:
        sent["json"] = wanted["json"]
    elif wanted.get("data") is not None:
        sent["content"] = wanted["data"] if isinstance(wanted["data"], bytes | str) else str(wanted["data"])
    as_ = "cron" if "/api/cron/" in case.path else "operator"
    return api.request(wanted["method"], wanted["url"].removeprefix("http://localhost:8787"), as_=as_, **sent)


def _check(operation: Any, answer: Any) -> None:
    told = f"{operation.method} {answer.request.url} → {answer.status_code} {answer.text[:500]}"
    responses = _DOCUMENT["paths"][operation.path][operation.method]["responses"]
    if answer.status_code == 404 and answer.json()["detail"] == "there is no such page":
        return  # what was made up for the path has slashes, and leads elsewhere
    assert answer.status_code < 500, told
    assert str(answer.status_code) in responses, told
    content = responses[str(answer.status_code)].get("content")
    if content is None:
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content, told
    if media_type.endswith("json"):
        jsonschema.validate(answer.json(), {**content[media_type]["schema"], "components": _DOCUMENT["components"]})
