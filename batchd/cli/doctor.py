"""`batchd doctor`: what usually goes wrong, each with a remedy."""

from __future__ import annotations

import sys

import click

from batchd.cli.output import emit_json, json_option, styled
from batchd.cli.session import STORE, config_option, open_config
from batchd.cli.text import cleaned, counted
from batchd.clock import SystemClock
from batchd.errors import ExitCode
from batchd.outlook.examination import Finding, Health, examine

_COLORS = {Health.OK: "green", Health.WARNING: "yellow", Health.BAD: "red"}


@click.command()
@config_option
@click.option("--quiet", "-q", is_flag=True, help="Say only what is not well.")
@json_option
def doctor(config_file: str | None, *, quiet: bool, as_json: bool) -> None:
    """Look for what usually goes wrong, each finding with a remedy; exits with 13 when something is.

    \b
      batchd doctor
      batchd doctor --quiet || page-somebody
      batchd doctor --json | jq '.findings[] | select(.health != "ok")'

    Clocks, time zone data, permissions, disks, poolers, versions, settings, missing indexes of batchd's tables and of
    the jobs', dead rows, the store's schema, stuck runs, backlog, failures, unread events. Changes nothing, and needs
    no daemon.
    """
    found = examine(open_config(config_file, secrets=STORE), SystemClock())
    ailing = [finding for finding in found if finding.health is not Health.OK]
    if as_json:
        emit_json({"ok": not ailing, "findings": found})
    else:
        for finding in ailing if quiet else found:
            _print(finding)
        if not quiet:
            click.echo()
            click.echo(f"{counted(len(found), 'finding')}, {len(ailing)} not well" if ailing else "all is well")
    if ailing:
        click.get_current_context().exit(ExitCode.DEGRADED)


def _print(finding: Finding) -> None:
    word = f"{finding.health.value:8}"
    word = click.style(word, fg=_COLORS[finding.health]) if styled(sys.stdout) else word
    click.echo(f"{word}{finding.topic:12}{cleaned(finding.message)}")
    if finding.remedy is not None:
        click.echo(f"{'':20}{cleaned(finding.remedy)}")
