"""The names of a kind's params, as whoever enqueues from outside may be told them."""

from __future__ import annotations

from typing import Any

from batchd.config.jobs import secret_fields
from batchd.jobs.contract import Kind
from batchd.store.known_names import KindParams


def param_names(kind: Kind[Any]) -> KindParams:
    """Return which params the kind takes (any, where its model allows extra ones), needs and keeps secret."""
    fields = kind.params.model_fields
    names = {field.alias or name for name, field in fields.items()}
    return KindParams(
        known=None if kind.params.model_config.get("extra") == "allow" else frozenset(names),
        required=frozenset(field.alias or name for name, field in fields.items() if field.is_required()),
        secret=frozenset(secret_fields(kind)),
    )
