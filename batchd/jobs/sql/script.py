"""One attempt at a script: statement by statement, never one twice that is committed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from batchd.clock import SystemClock
from batchd.db.dialect import Failure
from batchd.db.engine import Database, driver_message
from batchd.db.statements import Statement
from batchd.domain.job import JsonObject
from batchd.errors import JobError, LockTimeout, StatementCancelled
from batchd.jobs.contract import JobContext
from batchd.jobs.sql.answers import Answer, answer_of, can_stream, title

_MOST_LISTED = 50

Mode = Literal["one", "each", "none"]


@dataclass(frozen=True, slots=True)
class Script:
    """The statements, the values of their parameters, and how many rows of an answer to keep."""

    statements: Sequence[Statement]
    binds: Mapping[str, Any]
    max_rows: int

    def fingerprint(self, count: int) -> str:
        """Return what tells the first statements from others."""
        joined = "\x00".join(statement.text for statement in self.statements[:count])
        return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


class ScriptRun:
    """For the attempt's thread. What is done is saved in the transaction that does it, as far as there is one."""

    def __init__(self, context: JobContext, database: Database, script: Script) -> None:
        self._context = context
        self._database = database
        self._script = script
        self._clock = SystemClock()
        self._at: int | None = None
        self._done = 0
        self._affected = 0
        self._listed: list[JsonObject] = []
        self._last: JsonObject | None = None

    def run(self, mode: Mode) -> JsonObject:
        """Execute what is not done yet and return the run's result; raises JobError."""
        self._go_on_from(self._context.checkpoint(self._database))
        try:
            if self._done < len(self._script.statements):
                {"one": self._as_one, "each": self._each, "none": self._without}[mode]()
        except (SQLAlchemyError, LockTimeout, StatementCancelled) as error:
            raise self._complaint(error) from error
        return self._result()

    def _go_on_from(self, state: JsonObject | None) -> None:
        if state is None:
            return
        done: Any = state["done"]
        if state["fingerprint"] != self._script.fingerprint(done):
            raise JobError(
                f"the first {done} statements, which are committed, have changed since",
                hint="trigger a new run if the whole script shall run again",
                retryable=False,
            )
        saved: Any = state
        self._done, self._affected = done, saved["rows_affected"]
        self._listed, self._last = saved["each"], saved["last"]
        self._context.log.info("sql.resumed", statements=done)

    def _as_one(self) -> None:
        with self._context.writing(self._database) as connection:
            for statement in self._script.statements:
                self._do(connection, statement, streams=True)
            self._save(connection)
            self._at = None

    def _each(self) -> None:
        for statement in self._script.statements[self._done :]:
            with self._context.writing(self._database) as connection:
                self._do(connection, statement, streams=True)
                self._save(connection)

    def _without(self) -> None:
        for statement in self._script.statements[self._done :]:
            with (
                self._context.reading(self._database) as connection,
                self._database.dialect.without_transaction(connection),
            ):
                self._do(connection, statement, streams=False)
            with self._context.writing(self._database) as connection:
                self._save(connection)

    def _do(self, connection: Connection, statement: Statement, *, streams: bool) -> None:
        self._context.raise_if_stopping()
        self._at = self._done
        began = self._clock.monotonic()
        options = {"stream_results": True} if streams and can_stream(statement) else {}
        result = connection.execute(bound(statement, statement.text, self._script.binds), execution_options=options)
        answer = answer_of(result, statement, most=self._script.max_rows)
        if answer.changed is not None:
            changed = self._database.dialect.rows_changed(connection, answer.changed)
            answer = replace(answer, changed=changed)
        self._note(statement, answer, self._clock.monotonic() - began)
        self._done += 1
        self._context.progress(self._done, len(self._script.statements), title(statement))

    def _note(self, statement: Statement, answer: Answer, seconds: float) -> None:
        self._affected += answer.changed or 0
        if answer.returned is not None:
            self._last = answer.as_json()
        if len(self._listed) < _MOST_LISTED:
            rows = answer.returned if answer.changed is None else answer.changed
            self._listed.append({"statement": title(statement), "rows": rows, "seconds": round(seconds, 3)})

    def _save(self, connection: Connection) -> None:
        self._context.save_checkpoint(
            connection,
            self._database,
            {
                "done": self._done,
                "fingerprint": self._script.fingerprint(self._done),
                "rows_affected": self._affected,
                "each": list(self._listed),
                "last": self._last,
            },
        )

    def _result(self) -> JsonObject:
        return {
            "statements": self._done,
            "rows_affected": self._affected,
            "each": list(self._listed),
            "last": self._last,
        }

    def _complaint(self, error: Exception) -> JobError:
        said = driver_message(error)
        # A table that is missing stays missing; a lock, a key or a value may be another one the next time.
        is_lasting = isinstance(error, SQLAlchemyError) and self._database.failure(error) is Failure.OTHER
        return JobError(f"{self._place()}: {said}", retryable=not is_lasting)

    def _place(self) -> str:
        if self._at is None:
            return "at the commit"
        return place(self._at, self._script.statements[self._at])


def bound(statement: Statement, sql: str, binds: Mapping[str, Any]) -> Any:
    """Return `sql`, the statement itself or one around it, with the values of its parameters."""
    names = statement.names() & binds.keys()
    prefix, _, _ = sql.partition(statement.text)
    return text(prefix + statement.for_binding(names)).bindparams(**{name: binds[name] for name in names})


def place(index: int, statement: Statement) -> str:
    """Return where a statement stands, for messages."""
    return f"statement {index + 1} (line {statement.line}, {title(statement)!r})"
