"""Asks a report's queries: read-only, each within its time and rows, all of one database in one snapshot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from batchd.db.engine import Database, driver_message
from batchd.errors import DatabaseUnavailable, JobError, StatementCancelled
from batchd.jobs.looks import LookedAt, locks_of
from batchd.jobs.period import NAMED, Period
from batchd.jobs.reports.content import Answer
from batchd.jobs.reports.source import ReportSource

_WRITING = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:INSERT|UPDATE|DELETE|MERGE|CREATE|ALTER|DROP|TRUNCATE)\b",
    re.IGNORECASE | re.DOTALL,
)
"""How a statement begins that can be planned and that a read-only transaction refuses."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query; `database` is a name in the config."""

    name: str
    database: str
    sql: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long each query may take, how many rows it may bring, and the period that `:since` and `:until` mean."""

    timeout: timedelta
    max_rows: int
    since: datetime
    until: datetime


def ask(context: ReportSource, questions: Sequence[Question], bounds: Bounds) -> dict[str, Answer]:
    """Return the answers by name, in the questions' order.

    Raises JobError with the query's name for one that the database refuses or that takes too long.
    """
    answers: dict[str, Answer] = {}
    for name in dict.fromkeys(question.database for question in questions):
        database = context.database(name)
        with context.reading(database) as connection, database.dialect.read_only(connection):
            for question in questions:
                if question.database != name:
                    continue
                context.raise_if_stopping()
                answers[question.name] = _answer(connection, database, question, bounds, context.job)
    return {question.name: answers[question.name] for question in questions}


def complaint_of(database: Database, question: Question, bounds: Bounds) -> str | None:
    """Return what the database has against a query, or None; the query is planned, not executed."""
    if _WRITING.match(question.sql):
        return "writes; a report only reads"
    try:
        with database.reading() as connection, database.dialect.read_only(connection):
            statement = _statement(database.dialect.explain(_without_end(question.sql)), database, bounds)
            with database.dialect.time_limit(connection, bounds.timeout):
                connection.execute(statement).close()
    except SQLAlchemyError as error:
        return f"database {question.database!r} refuses it: {driver_message(error)}"
    return None


def look_at_question(database: Database, question: Question, bounds: Bounds) -> LookedAt:
    """Return the query as a run for that period would ask it."""
    sql = _without_end(question.sql)
    return LookedAt(
        f"asks for {question.name}",
        question.database,
        sql,
        _statement(database.dialect.explain(sql), database, bounds),
        _statement(f"SELECT count(*) FROM (\n{sql}\n) AS batchd_rows", database, bounds),  # noqa: S608 (the config's own query)
        locks_of(database.dialect.name, sql),
    )


def _answer(connection: Connection, database: Database, question: Question, bounds: Bounds, job: str) -> Answer:
    where = f"job {job!r}, query {question.name!r} on database {question.database!r}"
    statement = _statement(_without_end(question.sql), database, bounds)
    try:
        with database.translating(), database.dialect.time_limit(connection, bounds.timeout):
            # A server-side cursor: what is beyond the limit never leaves the server.
            result = connection.execute(statement, execution_options={"stream_results": True})
            if not result.returns_rows:
                raise JobError(f"{where} returns no rows; write a SELECT", retryable=False)
            columns = tuple(result.keys())
            rows = result.fetchmany(bounds.max_rows + 1)
            result.close()
    except StatementCancelled as error:
        raise JobError(
            f"{where} took longer than {bounds.timeout.total_seconds():g} s",
            hint="raise `query_timeout`, or give the query an index",
        ) from error
    except DatabaseUnavailable as error:
        # The word for a standby or a file that may not be written, and for what we have asked of either.
        if "read-only" in error.message or "readonly" in error.message:
            raise JobError(f"{where} writes; a report only reads", retryable=False) from error
        raise
    except SQLAlchemyError as error:
        raise JobError(f"{where}: {driver_message(error)}", retryable=False) from error
    kept = tuple(tuple(row) for row in rows[: bounds.max_rows])
    return Answer(question.name, columns, kept, is_cut=len(rows) > bounds.max_rows)


def _statement(sql: str, database: Database, bounds: Bounds) -> TextClause:
    """Return the statement with `:since` and `:until` bound; every other colon is the query's own."""
    escaped = NAMED.sub(lambda match: match[0] if match[1] else r"\:", sql)
    moments = Period(bounds.since, bounds.until).values(database.dialect.name)
    used = {match[1] for match in NAMED.finditer(sql) if match[1]}
    return text(escaped).bindparams(**{name: at for name, at in moments.items() if name in used})


def _without_end(sql: str) -> str:
    return sql.strip().rstrip(";").rstrip()
