"""What `show` tells of the records that a run could not take: they lie in the job's database, not in the store."""

from __future__ import annotations

import contextlib
import json

from pydantic import ValidationError

from batchd.cli.output import emit_table, heading, say
from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.errors import BatchdError
from batchd.store import rejects
from batchd.store.meta import store_id
from batchd.store.queries import RunView
from batchd.store.rejects import RejectView

COUNTED = "rejected"
"""The key of a run's result under which a kind says how many records it could not take."""


def rejects_of(config: Config, store: Database, run: RunView, limit: int) -> tuple[RejectView, ...]:
    """Return the first rejects of a run that has some or is not over yet; says so when its database does not answer."""
    if limit == 0 or (run.is_final and not (run.result or {}).get(COUNTED)):
        return ()
    found: list[RejectView] = []
    mine = store_id(store)
    for name in _databases_of(config, run):
        with contextlib.closing(Database(config.databases[name])) as database:
            try:
                found += rejects.of_run(database, mine, run.id, limit=limit)
            except BatchdError as error:
                say(f"rejects cannot be read: {error.message}", color="yellow")
    return tuple(found)


def print_rejects(run: RunView, shown: tuple[RejectView, ...]) -> None:
    """Print the rejects as a table, with how many there are in all."""
    if not shown:
        return
    counted = (run.result or {}).get(COUNTED)
    more = isinstance(counted, int) and counted > len(shown)
    heading(f"Rejects (the first {len(shown)} of {counted:,})" if more else "Rejects")
    headers = ("at", "key", "reason", "record")
    emit_table(headers, [(row.position, row.key, row.reason, _record_text(row)) for row in shown])
    say(f"`at` is the place in {shown[0].source}")


def _databases_of(config: Config, run: RunView) -> list[str]:
    kind = config.kinds.get(run.kind)
    if kind is None:
        return []
    try:
        params = kind.params.model_validate(config.resolve_params(run.schedule_id, run.params))
    except (ValidationError, BatchdError):
        return []
    return [name for name in dict.fromkeys(kind.databases(params)) if name in config.databases]


def _record_text(row: RejectView) -> str:
    return "" if row.record is None else json.dumps(row.record, ensure_ascii=False)
