"""The version of the store's tables, and the way from one version to the next.

Alembic's operations run from code, without an `alembic.ini` and without Alembic's own version table: the version is the
row `schema_version` of `batchd_meta`, so that a store shares a database with an application that uses Alembic itself.
Alembic is imported only when there is something to do: it costs 0.2 s of every start otherwise.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from batchd.db.engine import Database, brief_message
from batchd.errors import BatchdError, SchemaMismatch
from batchd.store import meta
from batchd.store.migrations import versions
from batchd.store.schema import SCHEMA_VERSION
from batchd.store.schema import meta as meta_table

if TYPE_CHECKING:
    from alembic.migration import MigrationContext

_VERSION_KEY = "schema_version"
_LOCK = "migrate"


def migrate(database: Database) -> bool:
    """Bring the store's tables to this batchd's version and return whether there was anything to do.

    One transaction under a lock: any number of processes may call it at once. Raises SchemaMismatch for tables of a
    newer batchd and leaves them alone, BatchdError where the database refuses what is to be done.
    """
    with database.reading() as connection:
        before = _version(connection)
    _refuse_newer(database, before)
    if before == SCHEMA_VERSION:
        return False
    try:
        with database.writing() as connection:
            database.dialect.lock_for_transaction(connection, _LOCK)
            before = _version(connection)  # another process may have been faster
            _refuse_newer(database, before)
            if before < SCHEMA_VERSION:
                _upgrade(_context(connection), before)
    except DBAPIError as error:
        raise BatchdError(
            f"store {database.name!r}: its tables cannot be made or changed: {brief_message(error)}",
            hint="the store's user must be allowed to make tables there, and no others may have their names",
        ) from error
    return before < SCHEMA_VERSION


def is_behind(database: Database) -> bool:
    """Return whether `migrate` has something to do; raises SchemaMismatch for tables of a newer batchd."""
    with database.reading() as connection:
        found = _version(connection)
    _refuse_newer(database, found)
    return found < SCHEMA_VERSION


def check_version(database: Database) -> None:
    """Raise SchemaMismatch unless the store's tables are exactly of this batchd's version; change nothing."""
    with database.reading() as connection:
        found = _version(connection)
    _refuse_newer(database, found)
    if found < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"store {database.name!r} has no batchd tables"
            if found == 0
            else f"store {database.name!r} has tables of version {found}; this batchd needs version {SCHEMA_VERSION}",
            hint="run `batchd migrate`",
        )


def migration_sql(dialect_name: str) -> str:
    """Return the SQL that makes all tables in an empty "postgresql" or "sqlite" database, as one transaction."""
    from alembic.migration import MigrationContext  # noqa: PLC0415 (costs 0.2 s; see the module's docstring)

    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name=dialect_name, opts={"as_sql": True, "output_buffer": written, "literal_binds": True}
    )
    _upgrade(context, 0)
    return f"BEGIN;\n\n{written.getvalue()}COMMIT;\n"


def _version(connection: Connection) -> int:
    """Return the tables' version; 0 when there are none."""
    if not inspect(connection).has_table(meta_table.name):
        return 0
    return int(meta.value_of(connection, _VERSION_KEY) or 0)


def _refuse_newer(database: Database, found: int) -> None:
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"store {database.name!r} has tables of version {found}, made by a newer batchd; "
            f"this one knows versions up to {SCHEMA_VERSION}",
            hint="install the newer batchd again, or restore the store's backup from before the upgrade",
        )


def _context(connection: Connection) -> MigrationContext:
    from alembic.migration import MigrationContext  # noqa: PLC0415 (costs 0.2 s; see the module's docstring)

    return MigrationContext.configure(connection)


def _upgrade(context: MigrationContext, found: int) -> None:
    from alembic.operations import Operations  # noqa: PLC0415 (costs 0.2 s; see the module's docstring)

    with Operations.context(context) as operations:
        for step in _steps_after(found):
            step.upgrade()
        operations.execute(meta_table.delete().where(meta_table.c.key == _VERSION_KEY))
        operations.execute(meta_table.insert().values(key=_VERSION_KEY, value=str(SCHEMA_VERSION)))


def _steps_after(found: int) -> Iterator[Any]:
    for name in sorted(module.name for module in pkgutil.iter_modules(versions.__path__)):
        if found < int(name.partition("_")[0]) <= SCHEMA_VERSION:
            yield importlib.import_module(f"{versions.__name__}.{name}")
