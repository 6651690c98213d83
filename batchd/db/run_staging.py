"""Staging tables that last as long as a run: named after it, found again when it is gone, of the target's own types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, inspect
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import quoted_name

from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.staging import POSITION, Staging, drop_staging
from batchd.db.types import NamedType

_PREFIX = "batchd_staging_"
_ID_LENGTH = 12
"""Hex digits of the store's uuid in a name; PostgreSQL's names have at most 63 bytes."""


def typed_staging(name: str, columns: Sequence[ColumnFacts], *own: Column[Any]) -> Staging:
    """Return a staging table whose columns have the types of the table that the rows go to, and take NULL.

    `own` are further columns of the caller's. COPY then checks each value as the table would, lengths included. Nothing
    is made yet: see `make_staging`.
    """
    return Staging(
        Table(
            quoted_name(name, quote=True),
            MetaData(),
            Column(POSITION, BigInteger, nullable=False),
            *own,
            *(
                Column(quoted_name(facts.name, quote=True), NamedType(facts.declared or facts.type))
                for facts in columns
            ),
        )
    )


def make_staging(connection: Connection, staging: Staging) -> None:
    """Make the table anew and empty.

    On PostgreSQL it is unlogged: cheap, and emptied when the server itself crashes, so count what should be there.
    """
    drop_staging(connection, staging.table.name)
    table = staging.table.to_metadata(MetaData())
    if connection.dialect.name == "postgresql":
        table._prefixes = ["UNLOGGED"]  # noqa: SLF001 (the constructor's `prefixes`; the dialect is known only here)
    connection.execute(CreateTable(table))


def staging_name(store_id: str, run_id: int) -> str:
    """Return the name of a run's staging table; what is appended to it must be small letters and underscores."""
    return f"{_PREFIX}{_short_id(store_id)}_{run_id}"


def leftovers(connection: Connection, store_id: str) -> dict[int, list[str]]:
    """Return the staging tables of a store's runs in the connection's own schema, by the run's id."""
    pattern = re.compile(re.escape(f"{_PREFIX}{_short_id(store_id)}_") + r"(\d+)[a-z_]*")
    found: dict[int, list[str]] = {}
    for name in inspect(connection).get_table_names():
        match = pattern.fullmatch(name)
        if match is not None:
            found.setdefault(int(match[1]), []).append(name)
    return found


def _short_id(store_id: str) -> str:
    return store_id.replace("-", "")[:_ID_LENGTH]
