"""What a statement reads, as the database itself tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from batchd.db.engine import Database

_READS = re.compile(r"(FROM|JOIN) batchd_runs\b")


@contextmanager
def changes(store: Database) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that the block executes to change runs, or to add attempts of them."""
    with _noted(
        store, lambda statement: statement.startswith(("UPDATE batchd_runs", "INSERT INTO batchd_attempts"))
    ) as seen:
        yield seen


@contextmanager
def statements(store: Database) -> Iterator[list[tuple[str, Any]]]:
    """Collect the SELECT statements on runs that the block executes."""

    def is_read(statement: str) -> bool:
        is_write = "UPDATE batchd_runs" in statement or statement.startswith("INSERT INTO")
        return _READS.search(statement) is not None and not is_write

    with _noted(store, is_read) as seen:
        yield seen


@contextmanager
def _noted(store: Database, is_wanted: Callable[[str], bool]) -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if is_wanted(statement):
            seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(store.engine, "before_cursor_execute", note)


def rows_read(store: Database, statement: str, parameters: Any, *, in_order: bool = True) -> int:
    """How many rows of `batchd_runs` the statement reads, filtered ones included (PostgreSQL).

    `in_order`: with the settings of those who claim runs (`follow_order`), else with none.
    """
    return _rows_of(_steps_on_runs(store, statement, parameters, in_order=in_order))


def _rows_of(nodes: Iterable[dict[str, Any]]) -> int:
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]) for node in nodes
    )


def whole_scans(store: Database, statement: str, parameters: Any) -> list[str]:
    """The steps of the statement that go over all of `batchd_runs`, whatever they read of it (PostgreSQL)."""
    steps = _steps_on_runs(store, statement, parameters, in_order=False)
    return [node["Node Type"] for node in steps if "Seq Scan" in node["Node Type"]]


def runs_found_by(store: Database, statement: str, parameters: Any) -> set[str]:
    """Return the indexes through which a statement that changes something would find its runs; executes nothing.

    A step that goes over all runs stands there as what the database calls it.
    """
    with store.writing() as connection:
        if store.dialect.name == "sqlite":
            steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            return {step.partition(" batchd_runs USING ")[2] or step for step in steps if "batchd_runs" in step}
        store.dialect.follow_order(connection)
        told = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        plan = (told if isinstance(told, list) else json.loads(told))[0]["Plan"]
        # The table's own step above a bitmap of its index's rows has no index itself.
        reads = [
            node for node in _nodes(plan) if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Heap Scan"
        ]
        on_runs = [node for node in reads if "batchd_runs" in (node.get("Relation Name") or node.get("Index Name", ""))]
        return {node.get("Index Name", node["Node Type"]) for node in on_runs}


def _steps_on_runs(store: Database, statement: str, parameters: Any, *, in_order: bool) -> list[dict[str, Any]]:
    with store.writing() as connection:
        if in_order:
            store.dialect.follow_order(connection)
        told = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    plan = (told if isinstance(told, list) else json.loads(told))[0]["Plan"]
    return [
        node
        for node in _nodes(plan)
        if node.get("Relation Name") == "batchd_runs"
        or (node["Node Type"] == "Bitmap Index Scan" and node["Index Name"].startswith("batchd_runs"))
    ]


def plan_of(store: Database, statement: str, parameters: Any) -> list[str]:
    """The steps of the statement's plan (SQLite)."""
    with store.reading() as connection:
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


def runs_read_by(store: Database, words: str, given: Sequence[Any]) -> int:
    """How many rows of `batchd_runs` a statement reads that begins so, by the plan that `Database.by_itself` keeps."""
    return _rows_of(_kept_steps_on_runs(store, "ANALYZE, ", words, given))


def indexes_used_by(store: Database, words: str, given: Sequence[Any]) -> set[str]:
    """The indexes of `batchd_runs` by which it goes, by that plan."""
    steps = _kept_steps_on_runs(store, "", words, given)
    return {node["Index Name"] for node in steps if "Index Name" in node}


def _kept_steps_on_runs(store: Database, options: str, words: str, given: Sequence[Any]) -> list[dict[str, Any]]:
    found = store.by_itself("SELECT name FROM pg_prepared_statements WHERE strpos(statement, %(w)s) = 1", {"w": words})
    assert found
    arguments = ", ".join(f"'{value}'" for value in given)
    told = store.by_itself(f'EXPLAIN ({options}FORMAT JSON) EXECUTE "{found[0]}" ({arguments})', {})
    assert told
    return [node for node in _nodes(told[0][0]["Plan"]) if node.get("Relation Name") == "batchd_runs"]
