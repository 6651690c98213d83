"""`batchd reload`: have the running daemon take over its changed config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from batchd.cli.output import emit_json, emit_table, json_option, say
from batchd.cli.session import config_option
from batchd.cli.text import cleaned, counted, distance, moment
from batchd.cli.types import Duration
from batchd.clock import SystemClock
from batchd.config.places import config_path
from batchd.service.answer import JobAnswer, ReloadAnswer
from batchd.service.control_client import ask_reload


@click.command()
@config_option
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="How long to wait for what came of it."
)
@json_option
def reload(config_file: str | None, *, timeout: timedelta, as_json: bool) -> None:
    """Have the running daemon read its config again, and say what is different from now on.

    \b
      batchd reload --config /etc/batchd/config.toml
      systemctl reload batchd                          the same
      batchd reload --json | jq '.daemons[].added'

    The config is checked whole. A good one is taken over at once, and no running job is touched; what takes effect
    only at the next start is named. A bad one changes nothing: every error is told, the daemon goes on with the
    config that it has, and `batchd status` says so until one is good. Asks every daemon of this machine that runs the
    config, over its control socket; for that, be root, the daemon's user, or of its group. Exit codes: 0 taken over, 1
    no daemon answers, 69 the store does not answer, 77 not allowed, 78 config invalid.
    """
    context = click.get_current_context()
    path = config_path(config_file or context.find_root().obj, os.environ)
    answers = ask_reload(path, os.environ, timeout)
    if as_json:
        emit_json({"ok": all(answer.ok for answer in answers), "daemons": answers})
    else:
        for answer in answers:
            _print_answer(answer, several=len(answers) > 1)
    context.exit(max((answer.exit_code for answer in answers), default=0))


def _print_answer(answer: ReloadAnswer, *, several: bool) -> None:
    if several:
        click.echo(f"daemon {answer.daemon}:")
    if not answer.ok:
        say(
            f"refused, and nothing has changed: {(answer.problems and 'the config has errors') or answer.message}",
            color="red",
        )
        for problem in answer.problems:
            click.echo(cleaned(problem))
        if answer.hint:
            say(f"hint: {answer.hint}", color="cyan")
        return
    counts = [f"{len(part)} {what}" for what, part in _parts(answer)]
    click.echo(f"{cleaned(answer.message)}: {', '.join(counts)}, {counted(answer.unchanged, 'job')} as before")
    now = SystemClock().now()
    rows = [("added", job.name, "", _next(job, now)) for job in answer.added]
    rows += [("changed", job.name, ", ".join(job.keys), _next(job, now)) for job in answer.changed]
    rows += [("removed", name, "", "-") for name in answer.removed]
    rows += [("taken over", key, "", "-") for key in answer.settings]
    rows += [("at the next start", key, "", "-") for key in answer.restart]
    if rows:
        emit_table(("what", "name", "keys", "next run"), rows)
    for warning in answer.warnings:
        say(f"warning: {warning}", color="yellow")


def _parts(answer: ReloadAnswer) -> Sequence[tuple[str, Sequence[object]]]:
    return (("added", answer.added), ("changed", answer.changed), ("removed", answer.removed))


def _next(job: JobAnswer, now: datetime) -> str:
    if job.next_run_at is None:
        return "-"
    at = datetime.fromisoformat(job.next_run_at)
    return f"{moment(at)} ({distance(at, now)})"
