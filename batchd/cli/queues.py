"""`batchd queues`, and what other commands know of queues."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from batchd.cli.output import emit_json, emit_table, json_option
from batchd.cli.session import STORE, config_option, open_config, open_store
from batchd.cli.text import moment
from batchd.config.load import Config
from batchd.config.queue_words import limits_text, rate_text
from batchd.config.settings import QueueSettings
from batchd.db.engine import Database
from batchd.domain.jsonable import jsonable
from batchd.domain.queue import QueueOrder
from batchd.errors import UsageError
from batchd.store import queries
from batchd.store.queries import QueueView

_DEFAULT = "default"

F = TypeVar("F", bound=Callable[..., Any])


def queue_option(command: F) -> F:
    """Add `--queue`."""
    return click.option("--queue", metavar="QUEUE", help="A queue, instead of a job.")(command)


def known_queue(config: Config, store: Database, name: str) -> None:
    """Raise UsageError unless the config has the queue or a run is in it."""
    known = {_DEFAULT, *config.settings.queues, *(queue.queue for queue in queries.listed_queues(store))}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
        raise UsageError(f"there is no queue {name!r}", hint=hint)


@click.command()
@config_option
@json_option
def queues(config_file: str | None, *, as_json: bool) -> None:
    """List the queues: what waits, what runs in all daemons, limits and pauses.

    \b
      batchd queues
      batchd queues --json | jq '.queues[] | select(.paused_at != null).queue'

    `ready` runs may begin now, `later` ones have a time, `parked` ones wait for a mutex or for their key's limit.
    """
    config = open_config(config_file, secrets=STORE)
    with open_store(config) as store:
        found = {queue.queue: queue for queue in queries.listed_queues(store)}
    settings = config.settings.queues
    names = [*settings, *sorted({_DEFAULT, *found} - settings.keys())]
    listed = [
        (found.get(name, QueueView(name, 0, 0, 0, 0, None)), settings.get(name, QueueSettings())) for name in names
    ]
    order = config.settings.daemon.queue_order
    if as_json:
        emit_json({"order": order, "queues": [_as_json(view, each) for view, each in listed]})
        return
    turn = "priority" if order is QueueOrder.STRICT else "weight"
    emit_table(
        ("queue", "ready", "later", "parked", "running", turn, "limits", "paused since"),
        [
            (
                view.queue,
                view.ready,
                view.later,
                view.parked,
                view.running,
                getattr(each, turn),
                limits_text(each) or "-",
                moment(view.paused_at),
            )
            for view, each in listed
        ],
    )


def _as_json(view: QueueView, settings: QueueSettings) -> dict[str, object]:
    limits: dict[str, object] = {
        name: getattr(settings, name)
        for name in ("concurrency", "max_running", "max_running_per_key", "priority", "weight")
    }
    rates = {name: rate_text(getattr(settings, name)) for name in ("rate", "rate_per_key")}
    columns: dict[str, object] = jsonable(view)
    return {**columns, **limits, **rates}
