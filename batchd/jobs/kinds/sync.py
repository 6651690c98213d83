"""sync: an HTTP API, a file or a query into a table; only what differs is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import func, select

from batchd.db.catalogue import find_table
from batchd.db.engine import Database
from batchd.db.estimate import check_predicate
from batchd.db.explained import looking, plain_sql, written_out
from batchd.db.rights import missing_rights, missing_rights_to_make
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind
from batchd.jobs.looks import Look, index_advice, locks_of, look_at_sql
from batchd.jobs.sync.params import SyncParams
from batchd.jobs.sync.plan import table_problems
from batchd.jobs.sync.sync import Sync

_OWN_TABLES = ("batchd_checkpoints", "batchd_rejects", "batchd_watermarks")


def run(params: SyncParams, context: JobContext) -> JsonObject:
    """Sync what the params describe; return how many records were fetched, added, changed, removed and rejected."""
    return Sync(context, params).run()


def _databases(params: SyncParams) -> Sequence[str]:
    return [params.database, *([] if params.source_database is None else [params.source_database])]


def _check_connected(params: SyncParams, databases: Mapping[str, Database]) -> Sequence[tuple[str, str]]:
    """Return what the table has against the params: columns, key, rights, and the condition."""
    database = databases.get(params.database)
    if database is None:
        return []
    with database.reading() as connection:
        try:
            facts = find_table(connection, params.table)
        except JobError as error:
            return [("table", f"{error.message}; {error.hint}" if error.hint else error.message)]
        found = table_problems(facts, params)
        if found:
            return found
        filled = [facts.column_named(name).name for name in params.fields]
        marks = {
            name: facts.column_named(column).name
            for name in ("synced_at", "first_seen_at", "missing_since")
            if (column := getattr(params, name)) is not None
        }
        needed = {
            "SELECT": [*filled, *marks.values()],
            "INSERT": [*filled, *(marks[name] for name in ("synced_at", "first_seen_at") if name in marks)],
            "UPDATE": [*filled, *(marks[name] for name in ("synced_at", "missing_since") if name in marks)],
            **({"DELETE": []} if params.on_missing == "delete" else {}),
        }
        lacking = missing_rights(connection, facts, needed)
        # A staging table is made for each run, so that CREATE is needed even where batchd's own tables are there.
        lacking += missing_rights_to_make(connection, *_OWN_TABLES, "batchd_staging")
        found += [("table", f"this user lacks {right}") for right in dict.fromkeys(lacking)]
        if params.where is not None:
            try:
                check_predicate(connection, facts, facts.as_table(), params.where)
            except JobError as error:
                found.append(("where", error.message))
    return found


def _look(params: SyncParams, databases: Mapping[str, Database], now: datetime) -> Look:  # noqa: ARG001
    database = databases[params.database]
    with looking(database, timedelta(seconds=5)) as connection:
        facts = find_table(connection, params.table)
        counting = written_out(connection, select(func.count()).select_from(facts.as_table()))
        columns = [facts.column_named(name).name for name in params.key]
        reading = written_out(connection, select(*(facts.as_table().c[name] for name in columns)))
    looked = look_at_sql(
        database, "compares what it fetched with the rows of the table; writes only differences", reading
    )
    is_keyed = any(set(index.columns) == set(columns) for index in facts.indexes if index.unique)
    advice = () if is_keyed else (index_advice(facts, tuple(columns), unique=True),)
    written = locks_of(database.dialect.name, "INSERT")
    found = (("from", params.url or str(params.file or "a query")), ("missing rows", params.on_missing))
    return Look((replace(looked, count=plain_sql(counting), locks=f"while it writes: {written}"),), found, advice)


KIND = Kind(
    name="sync",
    summary="Brings a table up to an HTTP API, a file or a query; writes only what was added, changed or removed.",
    params=SyncParams,
    run=run,
    example="""\
[jobs.sync-users]
kind = "sync"
database = "app"
table = "users"
key = ["id"]
fields = { id = "id", email = "contact.email", name = "name", active = "active" }
url = "https://api.example.org/v1/users"
records = "data"
paging = { by = "page", size = 500 }
concurrency = 4
on_missing = "mark"
missing_since = "missing_since"
# token = "${API_TOKEN}"
# updated_since = { param = "updated_since", field = "updated_at", full_every = "1d" }
# max_missing = "10%"
""",
    databases=_databases,
    defaults={"schedule": "every 1h"},
    check_connected=_check_connected,
    look=_look,
)
