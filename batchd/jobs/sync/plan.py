"""The job on its real table: which columns, which key, which staging tables; or what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Connection, Integer, Table, true

from batchd.db.catalogue import TableFacts, find_table
from batchd.db.catalogue_facts import ColumnFacts
from batchd.db.estimate import check_predicate
from batchd.db.run_staging import typed_staging
from batchd.db.staging import Staging
from batchd.errors import JobError
from batchd.jobs.sync.mapping import FieldMap, fields_of
from batchd.jobs.sync.params import SyncParams

STEP = "batchd_step"
_MOMENTS = ("timestamp", "date", "time", "text", "char", "int", "numeric")


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """`staged` gets the records, `todo` what is to be done; `scope` are the rows that this source answers for."""

    facts: TableFacts
    table: Table
    fields: FieldMap
    staged: Staging
    todo: Staging
    scope: ColumnElement[bool]
    missing_since: ColumnFacts | None
    synced_at: ColumnFacts | None
    first_seen_at: ColumnFacts | None
    on_missing: str
    touches_unchanged: bool

    @property
    def marks(self) -> tuple[ColumnFacts, ...]:
        """Return the columns of bookkeeping that are there."""
        return tuple(each for each in (self.missing_since, self.synced_at, self.first_seen_at) if each is not None)


def plan_sync(connection: Connection, params: SyncParams, name: str) -> SyncPlan:
    """Return the plan; `name` is that of the staging tables. Raises JobError with the first thing that is wrong."""
    facts = find_table(connection, params.table)
    problems = table_problems(facts, params)
    if problems:
        _, message = problems[0]
        raise JobError(message, retryable=False)
    columns = {text: facts.column_named(text) for text in (*params.fields, *params.key, *params.optional)}
    fields = FieldMap(
        fields_of(columns, params.fields, params.key, params.optional),
        is_json=params.sql is None and params.source_format != "csv",
    )
    table = facts.as_table()
    return SyncPlan(
        facts=facts,
        table=table,
        fields=fields,
        staged=typed_staging(name, fields.columns),
        todo=typed_staging(f"{name}_todo", fields.columns, Column(STEP, Integer, nullable=False)),
        scope=true() if params.where is None else check_predicate(connection, facts, table, params.where),
        missing_since=_named(facts, params.missing_since),
        synced_at=_named(facts, params.synced_at),
        first_seen_at=_named(facts, params.first_seen_at),
        on_missing=params.on_missing,
        touches_unchanged=params.touch_unchanged,
    )


def table_problems(facts: TableFacts, params: SyncParams) -> list[tuple[str, str]]:
    """Return everything that the table has against the params, each as (param, message)."""
    found: list[tuple[str, str]] = []
    known = {
        param: _known(facts, names, param, found)
        for param, names in (
            ("fields", list(params.fields)),
            ("key", params.key),
            ("optional", params.optional),
            *((name, _given(getattr(params, name))) for name in ("missing_since", "synced_at", "first_seen_at")),
        )
    }
    if found:
        return found
    mapped = [column.name for column in known["fields"]]
    found += _key_problems(facts, mapped, [column.name for column in known["key"]])
    for column in known["optional"]:
        if column.name not in mapped:
            found.append(("optional", f"column {column.name} is not among `fields`"))
        elif not column.nullable:
            found.append(("optional", f"column {column.name} may not be NULL, so its value cannot be missing"))
    for param in ("missing_since", "synced_at", "first_seen_at"):
        found += [(param, message) for column in known[param] if (message := _mark_problem(param, column, mapped))]
    for column in known["fields"]:
        if not column.is_writable:
            found.append(("fields", f"column {column.name} is generated: nobody can write it"))
    filled = {*mapped, *(column.name for param in ("synced_at", "first_seen_at") for column in known[param])}
    for column in facts.columns:
        if not (column.nullable or column.fills_itself or column.name in filled):
            found.append(
                ("fields", f"column {column.name} may not be NULL and has no default, but no field goes into it")
            )
    return found


def _key_problems(facts: TableFacts, mapped: Sequence[str], key: Sequence[str]) -> list[tuple[str, str]]:
    unmapped = [name for name in key if name not in mapped]
    if unmapped:
        return [("key", f"column {name} is not among `fields`") for name in unmapped]
    if any(index.unique and set(index.columns) <= set(key) for index in facts.indexes):
        return []
    listed = ", ".join(f'"{name}"' for name in key)
    unique = "CREATE UNIQUE INDEX" + (" CONCURRENTLY" if facts.dialect == "postgresql" else "")
    name = f"{facts.name}_{'_'.join(key)}_key"
    advice = f'make one: {unique} "{name}" ON {facts.written} ({listed})'
    return [("key", f"table {facts.written} has no unique key over {listed}; {advice}")]


def _mark_problem(param: str, column: ColumnFacts, mapped: Sequence[str]) -> str | None:
    if column.name in mapped:
        return f"column {column.name} is filled by `fields`"
    kind = column.type.lower()
    if param == "missing_since" and not column.nullable and "bool" not in kind:
        return f"column {column.name} may not be NULL, but is NULL in rows that are not missing"
    if not kind or any(word in kind for word in _MOMENTS) or (param == "missing_since" and "bool" in kind):
        return None
    return f"column {column.name} is {column.type}, which holds no moment"


def _known(facts: TableFacts, names: Sequence[str], param: str, found: list[tuple[str, str]]) -> list[ColumnFacts]:
    columns = []
    for name in names:
        try:
            column = facts.column_named(name)
        except JobError as error:
            found.append((param, f"{error.message}; {error.hint}" if error.hint else error.message))
            continue
        if column in columns:
            found.append((param, f"column {column.name} is named twice"))
        columns.append(column)
    return columns


def _given(name: str | None) -> list[str]:
    return [] if name is None else [name]


def _named(facts: TableFacts, name: str | None) -> ColumnFacts | None:
    return None if name is None else facts.column_named(name)
