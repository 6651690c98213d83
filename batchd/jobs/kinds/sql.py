"""sql: execute statements, in one transaction or each in its own, and none twice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from batchd.db.engine import Database, driver_message
from batchd.db.statements import NotSql, Statement, statements_in
from batchd.domain.job import JsonObject
from batchd.errors import BatchdError, JobError
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.looks import Look, LookedAt, locks_of
from batchd.jobs.sql.script import Mode, Script, ScriptRun, bound, place

_TRANSACTION_WORDS = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "START", "END", "ABORT"})
_EXPLAINED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "VALUES", "WITH", "MERGE", "REPLACE", "TABLE"})
_PLAIN_DELETE = re.compile(r"DELETE\s+FROM\s+(.*)", re.IGNORECASE | re.DOTALL)
_OWN_NAMES = ("run_id", "job", "scheduled_for")

Value = str | bool | int | float | None


class SqlParams(Params):
    """Which statements, with which values, in how many transactions."""

    database: str = Field(description="Name of the [databases.NAME] to execute them on.")
    statements: str | list[str] | None = Field(
        default=None,
        description="SQL: one text with statements and semicolons, or a list. Either this or `file`.",
        examples=["DELETE FROM carts WHERE updated_at < now() - interval '30 days'"],
    )
    file: Path | None = Field(default=None, description="A file with SQL, read anew by each run.")
    params: dict[str, Value | list[Value]] = Field(
        default_factory=dict,
        description="Values of `:name` in the statements, bound and never pasted in. `:run_id`, `:job` and "
        "`:scheduled_for` (the fire time) are there by themselves.",
    )
    transaction: Mode = Field(
        default="one",
        description="`one` for all statements: all or nothing. `each`: one for each statement; a later attempt goes on "
        "behind the last that was committed. `none`: for VACUUM or CREATE INDEX CONCURRENTLY, which refuse one.",
    )
    max_rows: int = Field(default=20, ge=0, le=1000, description="Rows of the last answer that the run's result keeps.")

    @field_validator("statements")
    @classmethod
    def _is_not_blank(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and not any(part.strip() for part in ([value] if isinstance(value, str) else value)):
            raise ValueError("is empty")
        return value

    @model_validator(mode="after")
    def _has_one_source(self) -> SqlParams:
        if (self.statements is None) == (self.file is None):
            raise ValueError("set exactly one of `statements` and `file`")
        return self

    def sql(self) -> str:
        """Return the script; raises JobError for a file that cannot be read."""
        if self.statements is not None:
            # A line end before the semicolon: a part may end with a comment.
            return self.statements if isinstance(self.statements, str) else "\n;\n".join(self.statements)
        assert self.file is not None
        try:
            return self.file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise JobError(f"cannot read {self.file}: {error.strerror}", retryable=False) from error
        except UnicodeDecodeError as error:
            raise JobError(f"{self.file} is not UTF-8 text", retryable=False) from error


def run(params: SqlParams, context: JobContext) -> JsonObject:
    """Execute the statements; return how many rows they changed, and the last answer."""
    database = context.database(params.database)
    moment = context.scheduled_for
    own: dict[str, Any] = {"run_id": context.run_id, "job": context.job, "scheduled_for": moment}
    if moment is not None and database.dialect.name == "sqlite":
        own["scheduled_for"] = moment.strftime("%Y-%m-%d %H:%M:%S")  # as its own CURRENT_TIMESTAMP writes it
    script = Script(_statements(params, database), {**own, **params.params}, params.max_rows)
    return ScriptRun(context, database, script).run(params.transaction)


def _statements(params: SqlParams, database: Database) -> list[Statement]:
    """Return the statements; raises JobError for what cannot be one of ours."""
    try:
        found = statements_in(params.sql(), database.dialect.name)
    except NotSql as error:
        raise JobError(f"{params.file or 'statements'}, {error}", retryable=False) from error
    if not found:
        raise JobError(f"{params.file or 'statements'} holds no statement", retryable=False)
    for index, statement in enumerate(found):
        if statement.first_word in _TRANSACTION_WORDS:
            raise JobError(
                f"{place(index, statement)} is about transactions, which `transaction` decides",
                hint='leave it out; see `transaction = "each"`',
                retryable=False,
            )
        unknown = sorted(statement.names() - {*params.params, *_OWN_NAMES})
        if unknown:
            raise JobError(f"{place(index, statement)} needs a value for :{unknown[0]} in `params`", retryable=False)
    return found


def _check_code(params: SqlParams) -> Sequence[tuple[str, str]]:
    """See that the file is there."""
    try:
        params.sql()
    except JobError as error:
        return [("file", error.message)]
    return []


def _check_connected(params: SqlParams, databases: Mapping[str, Database]) -> Sequence[tuple[str, str]]:
    """Have the database explain each statement up to the first that may make what the others need."""
    database = databases.get(params.database)
    if database is None:
        return []
    key = "statements" if params.file is None else "file"
    binds = {"run_id": 0, "job": "", "scheduled_for": None, **params.params}
    problems = []
    for index, statement in enumerate(_statements(params, database)):
        if statement.first_word not in _EXPLAINED:
            break
        try:
            with database.reading() as connection:
                connection.execute(bound(statement, database.dialect.explain(statement.text), binds)).close()
        except BatchdError as error:
            problems.append((key, f"{place(index, statement)}: {error.message}"))
        except Exception as error:  # noqa: BLE001 (whatever the driver says of the statement is the answer)
            problems.append((key, f"{place(index, statement)}: {driver_message(error)}"))
    return problems


def _look(params: SqlParams, databases: Mapping[str, Database], now: datetime) -> Look:
    database = databases[params.database]
    moment: Any = now.strftime("%Y-%m-%d %H:%M:%S") if database.dialect.name == "sqlite" else now
    binds = {"run_id": 0, "job": "", "scheduled_for": moment, **params.params}
    looked: list[LookedAt] = []
    for statement in _statements(params, database):
        is_explained = statement.first_word in _EXPLAINED
        counting = _counting(statement.text) if statement.first_word == "DELETE" else None
        looked.append(
            LookedAt(
                f"executes statement {len(looked) + 1}",
                params.database,
                statement.text,
                bound(statement, database.dialect.explain(statement.text), binds) if is_explained else None,
                None if counting is None else _bound_count(counting, database, binds),
                locks_of(database.dialect.name, statement.text),
            )
        )
    return Look(tuple(looked), (("transaction", params.transaction),))


def _counting(sql: str) -> str | None:
    """Return the query that counts what a plain DELETE would delete; None for one with USING or RETURNING."""
    match = _PLAIN_DELETE.fullmatch(sql.strip())
    if match is None or re.search(r"\b(USING|RETURNING|LIMIT)\b", sql, re.IGNORECASE):
        return None
    return f"SELECT count(*) FROM {match[1]}"  # noqa: S608 (the config's own statement)


def _bound_count(sql: str, database: Database, binds: Mapping[str, Any]) -> Any:
    counting = statements_in(sql, database.dialect.name)[0]
    return bound(counting, counting.text, binds)


KIND = Kind(
    name="sql",
    summary="Executes SQL statements or a file, in one transaction or each in its own, none of them twice.",
    params=SqlParams,
    run=run,
    example='''\
[jobs.expire-carts]
kind = "sql"
schedule = "every 1h"
database = "app"
statements = """
DELETE FROM cart_items WHERE cart_id IN (SELECT id FROM carts WHERE expires_at < :scheduled_for);
DELETE FROM carts WHERE expires_at < :scheduled_for AND state = :state;
"""
params = { state = "open" }
# file = "sql/nightly.sql"     # instead of `statements`
# transaction = "each"         # one for each statement; "none" for VACUUM
''',
    databases=lambda params: [params.database],
    check_connected=_check_connected,
    look=_look,
    check_code=_check_code,
)
