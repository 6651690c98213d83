"""Which store a script reports to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from batchd.config.load import load_config
from batchd.config.places import config_path
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database, secrets_in
from batchd.errors import SchemaMismatch
from batchd.store.meta import has_tables
from batchd.store.migrate import check_version
from batchd.telemetry.masking import Masker

STORE_VARIABLE = "BATCHD_STORE_URL"


@dataclass(frozen=True, slots=True)
class Place:
    """An open store, and what takes its secrets out of what is recorded there."""

    store: Database
    mask: Callable[[Any], Any]


def open_place(url: str | None, config: str | None) -> Place:
    """Open the store: `url`, else that of the config file, else $BATCHD_STORE_URL, else that of the usual config.

    Raises BatchdError when there is none, or it has no tables (of this version).
    """
    settings, secrets = _settings(url, config)
    store = Database(settings)
    try:
        _check_tables(store)
    except BaseException:
        store.close()
        raise
    return Place(store, Masker(secrets).masked)


def _check_tables(store: Database) -> None:
    if not has_tables(store):
        raise SchemaMismatch("the store has no tables yet", hint="start the daemon once, or run `batchd migrate`")
    check_version(store)


def _settings(url: str | None, config: str | None) -> tuple[DatabaseSettings, frozenset[str]]:
    url = url or (None if config else os.environ.get(STORE_VARIABLE))
    if url:
        limit = timedelta(seconds=5)
        known = DatabaseSettings(
            name="store",
            url=url,
            pool_size=2,
            connect_timeout=limit,
            statement_timeout=limit,
            lock_timeout=limit,
            is_store=True,
        )
        return known, secrets_in(url)
    loaded = load_config(config_path(config, os.environ), os.environ, may_lack_secrets=True)
    loaded.require_secrets(("store",))
    return loaded.store, loaded.secrets
