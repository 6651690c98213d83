"""The names of the kinds and of their params, as whoever enqueues from outside may be told them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from batchd.config.jobs import secret_fields
from batchd.db.engine import Database
from batchd.jobs.catalog import Kinds
from batchd.jobs.contract import Kind
from batchd.store import known_names
from batchd.store.known_names import KindParams


def register_names(store: Database, kinds: Mapping[str, Kind[Any]], queues: Iterable[str]) -> None:
    """Tell the store which kinds and queues there are; kinds are imported for it only when they have changed."""
    queues = tuple(queues)
    if remember_names(store, kinds, queues):
        return
    known = {name: param_names(kind) for name, kind in kinds.items()}
    known_names.register(store, known, queues, fingerprint=_fingerprint(kinds))


def remember_names(store: Database, kinds: Mapping[str, Kind[Any]], queues: Iterable[str]) -> bool:
    """Tell it so without importing any kind; return False when the store does not know them as they are."""
    fingerprint = _fingerprint(kinds)
    return fingerprint is not None and known_names.remember(store, list(kinds), fingerprint, queues)


def param_names(kind: Kind[Any]) -> KindParams:
    """Return which params the kind takes (any, where its model allows extra ones), needs and keeps secret."""
    fields = kind.params.model_fields
    names = {field.alias or name for name, field in fields.items()}
    return KindParams(
        known=None if kind.params.model_config.get("extra") == "allow" else frozenset(names),
        required=frozenset(field.alias or name for name, field in fields.items() if field.is_required()),
        secret=frozenset(secret_fields(kind)),
    )


def _fingerprint(kinds: Mapping[str, Kind[Any]]) -> str | None:
    return kinds.fingerprint() if isinstance(kinds, Kinds) else None
