"""Commands that ask the daemon for something: trigger, pause, resume, cancel.

Each writes to the store, so that each works with and without a running daemon.
"""

from __future__ import annotations

from datetime import timedelta

import click

from batchd.cli.follow import follow
from batchd.cli.output import emit_facts, emit_json, json_option, say
from batchd.cli.queues import known_queue, queue_option
from batchd.cli.result_text import print_result
from batchd.cli.run_text import exit_code_of, run_json, state_text
from batchd.cli.session import (
    STORE,
    complete_param,
    config_option,
    job_argument,
    known_job,
    open_config,
    open_store,
    open_whole_config,
)
from batchd.cli.text import span
from batchd.cli.types import Duration, Override, RunId
from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.domain.job import JsonValue
from batchd.domain.run import CreatedBy
from batchd.errors import ExitCode, ParamsInvalid, UsageError
from batchd.store import control, queries, queue_control

WAIT_HELP = "Wait until the run ends; exit with 10 failed, 11 timed out or cancelled, 12 skipped."
TIMEOUT_HELP = "With --wait: wait no longer than this (exit 11); the run goes on."


@click.command()
@config_option
@job_argument()
@click.option(
    "--param",
    "-p",
    "overrides",
    multiple=True,
    type=Override(),
    shell_complete=complete_param,
    help="KEY=VALUE: a parameter of this one run.",
)
@click.option("--wait", "-w", is_flag=True, help=WAIT_HELP)
@click.option("--timeout", type=Duration(), help=TIMEOUT_HELP)
@json_option
def trigger(
    config_file: str | None,
    job: str,
    *,
    overrides: tuple[tuple[str, JsonValue], ...],
    wait: bool,
    timeout: timedelta | None,
    as_json: bool,
) -> None:
    """Run a job now, beside its schedule. A running daemon starts it within a second.

    \b
      batchd trigger cleanup-logs --wait
      batchd trigger cleanup-logs --param dry_run=true --param older_than=7d
      batchd trigger nightly-report --json | jq .run_id

    A value is JSON where it is JSON (true, 5, [1, 2]), else text. A paused or disabled job runs too. Without a running
    daemon the run waits in the store for one.
    """
    config = open_whole_config(config_file, secrets=STORE)
    known_job(config, job)
    params = _validated(config, job, dict(overrides))
    with open_store(config) as store:
        run_id = control.trigger(store, job, params, created_by=CreatedBy.CLI)
        answer(store, run_id, f"run {run_id} of {job} is queued", wait=wait, timeout=timeout, as_json=as_json)


@click.command()
@config_option
@job_argument(required=False)
@queue_option
@json_option
def pause(config_file: str | None, job: str | None, queue: str | None, *, as_json: bool) -> None:
    """Stop a job's schedule, or a whole queue, until it is resumed. A run that has begun goes on.

    \b
      batchd pause cleanup-logs
      batchd pause --queue low

    `trigger` still works for a paused job. Runs of a paused queue wait; the pause holds for every daemon.
    """
    _set_paused(config_file, job, queue, paused=True, as_json=as_json)


@click.command()
@config_option
@job_argument(required=False)
@queue_option
@json_option
def resume(config_file: str | None, job: str | None, queue: str | None, *, as_json: bool) -> None:
    """Let a paused job's schedule, or a paused queue, go on.

    \b
      batchd resume cleanup-logs
      batchd resume --queue low

    What a job missed meanwhile is treated by its `catch_up` policy.
    """
    _set_paused(config_file, job, queue, paused=False, as_json=as_json)


@click.command()
@config_option
@click.argument("run_id", metavar="RUN", type=RunId())
@json_option
def cancel(config_file: str | None, run_id: int, *, as_json: bool) -> None:
    """Cancel a queued run at once, or ask the daemon to stop a running one.

    \b
      batchd cancel 42

    What a running run has committed stays committed.
    """
    with open_store(open_config(config_file, secrets=STORE)) as store:
        outcome = control.request_cancel(store, run_id)
    if as_json:
        emit_json({"run_id": run_id, "outcome": outcome})
    elif outcome is control.Cancelled.AT_ONCE:
        click.echo(f"run {run_id} is cancelled; it had not begun")
    else:
        click.echo(f"run {run_id} is asked to stop; `batchd show {run_id}` says when it has")


def _validated(config: Config, job: str, overrides: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        config.check_overrides(job, overrides)
    except ParamsInvalid as error:
        raise UsageError(error.message, hint=error.hint) from error
    return overrides


def _set_paused(config_file: str | None, job: str | None, queue: str | None, *, paused: bool, as_json: bool) -> None:
    if (job is None) == (queue is None):
        raise UsageError("name either a job or a queue", hint="`batchd pause JOB`, or `batchd pause --queue QUEUE`")
    config = open_whole_config(config_file, secrets=STORE)
    if job is None:
        assert queue is not None
        _set_queue_paused(config, queue, paused=paused, as_json=as_json)
        return
    known_job(config, job)
    with open_store(config) as store:
        changed = control.pause(store, job) if paused else control.resume(store, job)
    if as_json:
        emit_json({"job": job, "paused": paused, "changed": changed})
        return
    word = "paused" if paused else "on its schedule"
    click.echo(f"{job} is {word}" if changed else f"{job} was {word} already")


def _set_queue_paused(config: Config, queue: str, *, paused: bool, as_json: bool) -> None:
    with open_store(config) as store:
        if paused:
            known_queue(config, store, queue)
        changed = queue_control.pause(store, queue) if paused else queue_control.resume(store, queue)
    if as_json:
        emit_json({"queue": queue, "paused": paused, "changed": changed})
        return
    word = "paused" if paused else "open"
    click.echo(f"queue {queue} is {word}" if changed else f"queue {queue} was {word} already")


def answer(store: Database, run_id: int, said: str, *, wait: bool, timeout: timedelta | None, as_json: bool) -> None:
    """Say that the run is queued; with `wait` follow it to its end, and exit with what became of it."""
    alive = bool(queries.alive_workers(store))
    if not alive:
        say("no daemon is running: the run waits in the store until one starts (`batchd run`)", color="yellow")
    if not wait:
        if as_json:
            emit_json({"run_id": run_id, "daemon_alive": alive})
        else:
            click.echo(said)
        return
    if not as_json:
        say(said)
    run = follow(store, run_id, timeout=timeout, quiet=as_json)
    if as_json:
        emit_json({"run_id": run_id, "run": run_json(run)})
    else:
        emit_facts([("run", run.id), ("state", state_text(run)), ("took", span(run.duration)), ("error", run.error)])
        if run.result:
            print_result(run.result)
    if not run.is_final:
        say(f"still {state_text(run)}; it goes on, see `batchd show {run_id}`", color="yellow")
        click.get_current_context().exit(ExitCode.RUN_TIMED_OUT_OR_CANCELLED)
    click.get_current_context().exit(exit_code_of(run))
