"""`batchd explain JOB`: what would happen now."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import click

from batchd.cli.output import emit_facts, emit_json, heading, json_option, say
from batchd.cli.session import config_option, job_argument, known_job, open_store, open_whole_config
from batchd.cli.text import cleaned, moment, span
from batchd.cli.types import Duration
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.config.places import working_in
from batchd.db.engine import Database
from batchd.errors import BatchdError, ExitCode
from batchd.outlook.explaining import JobReport, StatementReport, explain_job
from batchd.store.durations import JobHistory, history_of


@click.command()
@config_option
@job_argument()
@click.option(
    "--limit", type=Duration(), default="10s", show_default=True, help="Longest time for counting; then it is not told."
)
@json_option
def explain(config_file: str | None, job: str, *, limit: timedelta, as_json: bool) -> None:
    """Say what the job would do if it ran now: SQL and its plan, index, rows, time, locks.

    \b
      batchd explain cleanup-logs
      batchd explain cleanup-logs --json | jq .advice

    Changes nothing: each statement is planned and not executed, each count is asked for in a transaction in which the
    server refuses every write. Time is estimated from the job's history in the store.
    """
    config = open_whole_config(config_file)
    known_job(config, job)
    definition = next(each for each in config.jobs if each.name == job)
    with contextlib.ExitStack() as stack:
        stack.enter_context(working_in(config.folder))
        databases = {
            name: stack.enter_context(contextlib.closing(Database(settings)))
            for name, settings in config.databases.items()
        }
        found = explain_job(config, definition, databases, _history(config, job), SystemClock().now(), limit)
    if as_json:
        emit_json(found)
    else:
        _print(found)
    if found.problem is not None:
        click.get_current_context().exit(ExitCode.DEGRADED)


def _history(config: Config, job: str) -> JobHistory | None:
    try:
        with open_store(config) as store:
            return history_of(store, job)
    except BatchdError:
        return None


def _print(found: JobReport) -> None:
    emit_facts(
        [
            ("job", f"{found.job} ({found.kind}, queue {found.queue})"),
            ("does", found.summary),
            ("next fire", None if found.next_fire is None else moment(found.next_fire)),
            *found.facts,
            (
                "runs so far",
                f"{found.runs_seen}, {found.failing:.0%} of the attempts failed" if found.runs_seen else "none",
            ),
            (
                "usually takes",
                None if found.usually is None else f"{span(found.usually)}, at most {span(found.at_most)}",
            ),
            (
                "would take now",
                None if found.expected is None else f"about {span(found.expected)}, by the rows counted",
            ),
        ]
    )
    for number, statement in enumerate(found.statements, 1):
        heading(f"Statement {number} on {statement.database}: it {statement.what}")
        _print_statement(statement)
    if found.advice:
        heading("To do")
        for line in found.advice:
            click.echo(cleaned(line))
    if found.problem is not None:
        say(f"it would fail: {found.problem}", color="red")


def _print_statement(statement: StatementReport) -> None:
    click.echo(cleaned(statement.sql, keep="\n"))
    plan = statement.plan
    if plan is not None and plan.plan:
        click.echo()
        for line in plan.plan:
            click.echo(f"  {cleaned(line)}")
    click.echo()
    index = None
    if plan is not None and plan.error is None:
        index = ", ".join(plan.indexes) or "none"
        if plan.scanned:
            index += f" (reads all of {', '.join(plan.scanned)})"
    emit_facts(
        [
            ("index", index),
            ("rows now", statement.rows),
            ("rows, by the plan", None if plan is None else plan.rows),
            ("locks", statement.locks or None),
            ("refused", None if plan is None else plan.error),
        ]
    )
