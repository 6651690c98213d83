"""The comparison of the staging table with the target, and the list of what is to be done that comes of it.

The list holds the new values itself, so that the write needs the staging table no more, and its length is that of the
change and not of the table. PostgreSQL compares everything in one statement, by hashing; a snapshot disturbs nobody.
SQLite lets only one write at a time, so there the tables are compared in windows, each a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    select,
    true,
)

from batchd.db.bulk import KeyWalk
from batchd.db.engine import Database
from batchd.db.run_staging import make_staging
from batchd.db.staging import POSITION
from batchd.domain.job import JsonObject, JsonValue
from batchd.jobs.contract import JobContext
from batchd.jobs.sync.compare import differs, differs_in, is_marked, key_columns, same_key, value_columns
from batchd.jobs.sync.plan import STEP, SyncPlan
from batchd.jobs.sync.state import Step, SyncState

_WINDOW_ROWS = 10_000
_EXAMPLES = 5
_LONGEST_EXAMPLE = 200


class Diff:
    """For one attempt's thread."""

    def __init__(self, context: JobContext, database: Database, plan: SyncPlan) -> None:
        self._context = context
        self._database = database
        self._plan = plan
        self._staged = plan.staged.table
        self._todo = plan.todo.table
        self._is_postgresql = database.dialect.name == "postgresql"

    def settle(self, state: SyncState) -> SyncState:
        """Make the staging table ready: indexed, known to the planner, of several records of a key only the last.

        Returns the state with the number of duplicates; examples of their keys go to the log.
        """
        with self._context.writing(self._database) as connection:
            preparer = connection.dialect.identifier_preparer
            name = preparer.format_table(self._staged)
            if self._is_postgresql:
                connection.exec_driver_sql(f"ANALYZE {name}")
            else:
                keys = ", ".join(preparer.format_column(self._staged.c[key]) for key in self._plan.fields.keys)
                index = preparer.quote(f"{self._staged.name}_key")
                connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {index} ON {name} ({keys})")
            doubled = self._doubled_keys(connection)
            if not doubled:
                return state
            gone = connection.execute(delete(self._staged).where(self._is_outdated())).rowcount
            after = replace(state, duplicates=state.duplicates + gone, staged=state.staged - gone)
            self._context.save_checkpoint(connection, self._database, after.as_json())
        self._context.log.warning("sync.duplicates", duplicates=after.duplicates, keys=doubled)
        return after

    def list_records(self) -> None:
        """Make the list of what is to do anew, with the rows to be added, changed or touched."""
        with self._context.writing(self._database) as connection:
            make_staging(connection, self._plan.todo)
            index = connection.dialect.identifier_preparer
            columns = f"{index.quote(STEP)}, {index.quote(POSITION)}"
            name = index.quote(f"{self._todo.name}_order")
            connection.exec_driver_sql(f"CREATE INDEX {name} ON {index.format_table(self._todo)} ({columns})")
        for window in self._windows_of_records():
            with self._context.writing(self._database) as connection:
                self._list_records(connection, window)

    def list_missing(self) -> int:
        """Add the rows that no record names; return how many they are."""
        count = 0
        for window in self._windows_of_rows():
            self._context.raise_if_stopping()
            with self._context.writing(self._database) as connection:
                number = func.row_number().over() + count
                chosen = select(literal(int(Step.REMOVE)), number, *key_columns(self._plan, self._plan.table)).where(
                    window, self.is_missing()
                )
                names = [STEP, POSITION, *self._plan.fields.keys]
                statement = insert(self._todo).from_select(names, chosen)
                count += connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount
        return count

    def is_missing(self) -> ColumnElement[bool]:
        """Return whether a row of ours is not marked yet and no record names it."""
        named = exists().where(same_key(self._plan, self._staged))
        return and_(self._plan.scope, not_(is_marked(self._plan)), not_(named))

    def present_rows(self) -> int:
        """Return how many rows of ours there are that are not marked as missing."""
        with self._context.reading(self._database) as connection:
            counted = select(func.count()).select_from(self._plan.table)
            return connection.execute(counted.where(self._plan.scope, not_(is_marked(self._plan)))).scalar_one()

    def planned(self) -> JsonObject:
        """Return how much there is to do of each step, and let the planner know."""
        with self._context.writing(self._database) as connection:
            if self._is_postgresql:
                table = connection.dialect.identifier_preparer.format_table(self._todo)
                connection.exec_driver_sql(f"ANALYZE {table}")
            step = self._todo.c[STEP]
            rows = connection.execute(select(step, func.count()).group_by(step).order_by(step))
            return {Step(number).name.lower(): count for number, count in rows}

    def changed_columns(self) -> JsonObject:
        """Return in how many rows each column differs, for those in which it does."""
        columns = value_columns(self._plan)
        if not columns:
            return {}
        counts = [
            func.coalesce(func.sum(case((differs_in(self._plan, column, self._todo), 1), else_=0)), 0)
            for column in columns
        ]
        with self._context.reading(self._database) as connection:
            found = connection.execute(
                select(*counts).where(same_key(self._plan, self._todo), self._todo.c[STEP] == int(Step.CHANGE))
            ).one()
        return {column.name: int(count) for column, count in zip(columns, found, strict=True) if count}

    def examples(self) -> JsonObject:
        """Return some rows of each step, with what would become of them."""
        with self._context.reading(self._database) as connection:
            return {
                "added": self._added_examples(connection),
                "changed": self._changed_examples(connection),
                "removed": self._removed_examples(connection),
            }

    def _doubled_keys(self, connection: Connection) -> list[str]:
        """Return some keys that several records have."""
        keys = key_columns(self._plan, self._staged)
        found = connection.execute(
            select(*(cast(key, Text) for key in keys))
            .where(self._staged.c[POSITION] > 0)
            .group_by(*keys)
            .having(func.count() > 1)
            .limit(_EXAMPLES)
        )
        return [", ".join(map(str, row)) for row in found]

    def _is_outdated(self) -> ColumnElement[bool]:
        later = self._staged.alias("later")
        is_later = and_(*(later.c[name] == self._staged.c[name] for name in self._plan.fields.keys))
        position = self._staged.c[POSITION]
        return and_(position > 0, exists().where(is_later, later.c[POSITION] > position))

    def _list_records(self, connection: Connection, window: ColumnElement[bool]) -> None:
        plan = self._plan
        target_key = plan.table.c[plan.fields.keys[0]]
        cases: list[tuple[ColumnElement[bool], Any]] = [
            (target_key.is_(None), int(Step.ADD)),
            (differs(plan, self._staged), int(Step.CHANGE)),
        ]
        columns = [self._staged.c[column.name] for column in plan.fields.columns]
        step = case(*cases, else_=int(Step.TOUCH))
        joined = self._staged.outerjoin(plan.table, same_key(plan, self._staged))
        chosen = select(step, self._staged.c[POSITION], *columns).select_from(joined)
        chosen = chosen.where(self._staged.c[POSITION] > 0, window)
        if not plan.touches_unchanged:
            chosen = chosen.where(target_key.is_(None) | differs(plan, self._staged))
        names = [STEP, POSITION, *(column.name for column in plan.fields.columns)]
        connection.execute(insert(self._todo).from_select(names, chosen))

    def _windows_of_records(self) -> Iterator[ColumnElement[bool]]:
        if self._is_postgresql:
            yield true()
            return
        position = self._staged.c[POSITION]
        with self._context.reading(self._database) as connection:
            last = connection.execute(select(func.max(position))).scalar_one() or 0
        for start in range(0, last, _WINDOW_ROWS):
            self._context.raise_if_stopping()
            yield position.between(start + 1, start + _WINDOW_ROWS)

    def _windows_of_rows(self) -> Iterator[ColumnElement[bool]]:
        if self._is_postgresql or not self._plan.facts.key:
            yield true()
            return
        walk = KeyWalk(self._plan.facts, self._plan.table)
        with self._context.reading(self._database) as connection:
            place = walk.start(connection)
        while True:
            with self._context.reading(self._database) as connection:
                window = walk.next_window(connection, place, _WINDOW_ROWS)
            if window is None:
                return
            yield window.condition
            place = window.after

    def _added_examples(self, connection: Connection) -> list[JsonValue]:
        names = [column.name for column in self._plan.fields.columns]
        columns = [cast(self._todo.c[name], Text) for name in names]
        found = self._first(connection, columns, Step.ADD)
        return [{name: _short(value) for name, value in zip(names, row, strict=True)} for row in found]

    def _removed_examples(self, connection: Connection) -> list[JsonValue]:
        names = self._plan.fields.keys
        found = self._first(connection, [cast(self._todo.c[name], Text) for name in names], Step.REMOVE)
        return [{name: _short(value) for name, value in zip(names, row, strict=True)} for row in found]

    def _changed_examples(self, connection: Connection) -> list[JsonValue]:
        plan, names = self._plan, [column.name for column in value_columns(self._plan)]
        keys = [cast(self._todo.c[name], Text) for name in plan.fields.keys]
        pairs = [
            part
            for column in value_columns(plan)
            for part in (
                cast(plan.table.c[column.name], Text),
                cast(self._todo.c[column.name], Text),
                differs_in(plan, column, self._todo),
            )
        ]
        examples: list[JsonValue] = []
        for row in self._first(connection, [*keys, *pairs], Step.CHANGE, same_key(plan, self._todo)):
            example: JsonObject = {name: _short(value) for name, value in zip(plan.fields.keys, row, strict=False)}
            for place, name in enumerate(names):
                before, now, is_different = row[len(keys) + 3 * place :][:3]
                if is_different:
                    example[name] = {"from": _short(before), "to": _short(now)}
            examples.append(example)
        return examples

    def _first(
        self, connection: Connection, columns: Sequence[Any], step: Step, further: ColumnElement[bool] | None = None
    ) -> Sequence[Any]:
        condition = self._todo.c[STEP] == int(step)
        chosen = select(*columns).where(condition if further is None else and_(condition, further))
        return connection.execute(chosen.order_by(self._todo.c[POSITION]).limit(_EXAMPLES)).all()


def _short(value: object) -> JsonValue:
    shown = None if value is None else str(value)
    return shown if shown is None or len(shown) <= _LONGEST_EXAMPLE else shown[: _LONGEST_EXAMPLE - 1] + "…"
