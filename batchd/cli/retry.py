"""`retry` and `discard`: one run that ended badly, or all of them of a job, a queue, a day."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from batchd.cli.control import TIMEOUT_HELP, WAIT_HELP, answer
from batchd.cli.output import emit_json, json_option
from batchd.cli.session import STORE, complete_job, config_option, open_config, open_store
from batchd.cli.types import Duration, RunId, Since
from batchd.db.engine import Database
from batchd.domain.run import DISCARDABLE, RETRYABLE_BY_HAND, CreatedBy, RunState
from batchd.errors import UsageError
from batchd.store import bulk, control
from batchd.store.bulk import Done, Selection

F = TypeVar("F", bound=Callable[..., Any])


def _selecting(states: Iterable[RunState]) -> Callable[[F], F]:
    """Add the options that select runs, and `--yes`."""
    options = (
        click.option(
            "--state",
            "-s",
            "states",
            multiple=True,
            type=click.Choice(sorted(state.value for state in states)),
            help="All runs in this state; may be given several times.",
        ),
        click.option("--job", "-j", metavar="JOB", shell_complete=complete_job, help="With --state: only of this job."),
        click.option("--queue", metavar="QUEUE", help="With --state: only of this queue."),
        click.option("--parent", type=RunId(), help="With --state: only what this run queued (a fan_out, a batch)."),
        click.option("--since", type=Since(), help='With --state: only what ended since: "1d", "2026-11-24T03:15".'),
        click.option("--yes", "-y", is_flag=True, help="With --state: do not ask."),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@config_option
@click.argument("run_id", metavar="RUN", type=RunId(), required=False)
@_selecting(RETRYABLE_BY_HAND)
@click.option("--wait", "-w", is_flag=True, help=WAIT_HELP)
@click.option("--timeout", type=Duration(), help=TIMEOUT_HELP)
@json_option
def retry(
    config_file: str | None,
    *,
    run_id: int | None,
    states: tuple[str, ...],
    job: str | None,
    queue: str | None,
    parent: int | None,
    since: datetime | None,
    yes: bool,
    wait: bool,
    timeout: timedelta | None,
    as_json: bool,
) -> None:
    """Run a failed, cancelled, missed or quarantined run again, from its last checkpoint, with fresh attempts.

    \b
      batchd retry 42 --wait
      batchd retry --state failed --job send-mail --since 1d

    With --state all such runs: how many is said and asked first, and either all of them are queued or none.
    """
    selection = _selection(run_id, states, job=job, queue=queue, parent_id=parent, since=since)
    with open_store(open_config(config_file, secrets=STORE)) as store:
        if selection is None:
            assert run_id is not None
            control.retry(store, run_id, created_by=CreatedBy.CLI)
            answer(store, run_id, f"run {run_id} is queued again", wait=wait, timeout=timeout, as_json=as_json)
            return
        if wait or timeout is not None:
            raise UsageError("--wait and --timeout are for one run")
        if _is_wanted(store, selection, "queue {} again?", yes=yes):
            done = bulk.retry_all(store, selection, created_by=CreatedBy.CLI)
            _tell(done, "queued again", "an unfinished run does the same work, or the job is gone", as_json=as_json)


@click.command()
@config_option
@click.argument("run_id", metavar="RUN", type=RunId(), required=False)
@_selecting(DISCARDABLE)
@json_option
def discard(
    config_file: str | None,
    *,
    run_id: int | None,
    states: tuple[str, ...],
    job: str | None,
    queue: str | None,
    parent: int | None,
    since: datetime | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Put failed, missed, quarantined or waiting runs away: they are cancelled, for the reason `discarded`.

    \b
      batchd discard 42
      batchd discard --state failed --job send-mail --since 1d
      batchd discard --state queued --queue low
      batchd discard --state queued --parent 17      what a fan_out has queued and nobody has begun

    With --state all such runs: how many is said and asked first, and either all of them are put away or none.
    """
    selection = _selection(run_id, states, job=job, queue=queue, parent_id=parent, since=since)
    with open_store(open_config(config_file, secrets=STORE)) as store:
        if selection is None:
            assert run_id is not None
            bulk.discard_one(store, run_id)
            _tell(Done(1, 0), "put away", "", as_json=as_json)
        elif _is_wanted(store, selection, "put {} away for good?", yes=yes):
            _tell(bulk.discard_all(store, selection), "put away", "they are running or done now", as_json=as_json)


def _selection(run_id: int | None, states: tuple[str, ...], **filters: Any) -> Selection | None:
    """Return what the options select, or None for the one run; raises UsageError for neither or both."""
    has_filter = bool(states) or any(value is not None for value in filters.values())
    if run_id is not None and not has_filter:
        return None
    if run_id is not None or not states:
        raise UsageError(
            "name either one run or a --state", hint="for example --state failed --job send-mail --since 1d"
        )
    return Selection(frozenset(RunState(state) for state in states), **filters)


def _is_wanted(store: Database, selection: Selection, question: str, *, yes: bool) -> bool:
    """Return whether to go on: `--yes`, or the answer of a person who was told the count."""
    if yes:
        return True
    found = bulk.count(store, selection)
    if not found:
        return True  # nothing to ask; the answer says 0
    if not sys.stdin.isatty():
        raise UsageError(f"{found} runs are selected; nobody is there to ask", hint="say --yes to do it")
    return click.confirm(question.format(f"{found} runs" if found > 1 else "1 run"), err=True)


def _tell(done: Done, word: str, why: str, *, as_json: bool) -> None:
    if as_json:
        emit_json({"changed": done.changed, "left": done.left})
        return
    click.echo(f"{done.changed} {'run is' if done.changed == 1 else 'runs are'} {word}")
    if done.left:
        click.echo(f"{done.left} left alone: {why}")
