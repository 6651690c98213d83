"""Commands about the config alone: check, schema, kinds, next. None needs a database, but for `check --connect`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from batchd.cli import unit_limits
from batchd.cli.connect import Connected, check_jobs, try_databases, try_mail
from batchd.cli.output import emit_json, emit_table, heading, json_option, say
from batchd.cli.session import complete_kind, config_option, job_argument, known_job, open_whole_config
from batchd.cli.text import cleaned, counted
from batchd.cli.types import IsoMoment
from batchd.clock import SystemClock
from batchd.config.code import code_problems
from batchd.config.load import Config
from batchd.config.problems import ConfigInvalid, CredentialDenied, Problem
from batchd.config.schema import json_schema
from batchd.domain.job import JobDefinition
from batchd.domain.jsonable import jsonable
from batchd.domain.preview import FirePreview, fires_of
from batchd.domain.schedule import parse_schedule
from batchd.errors import ExitCode, UsageError
from batchd.jobs.catalog import kinds as known_kinds
from batchd.jobs.contract import Kind
from batchd.jobs.params import WrittenSchema

_MOST_FIRES = 10_000
_CONNECTED = ("store", "databases", "mail")


@click.command()
@config_option
@click.option("--connect", is_flag=True, help="Also try the store, the databases, every job's tables, the mail.")
@json_option
def check(config_file: str | None, *, connect: bool, as_json: bool) -> None:
    """Report every error of the config at once, each with file, line, key and the nearest valid name.

    \b
      batchd check --config config.toml
      batchd check --connect
      batchd check --json | jq -r '.problems[].message'

    Needs no database. Functions of your own that jobs call are imported, to see that they are there and can be called
    so. With --connect it asks the databases too: do they answer, are the jobs' tables and columns there, may this user
    do what the jobs do? And the mail server: does it let us in? Nothing is changed, nothing is sent. Of a systemd unit
    that runs this config it says when it would kill a stop which `shutdown_grace` still allows. Secrets that only the
    service can read are named; --connect needs those of the store, the databases and the mail. Exits with 78 when the
    config is invalid, with 77 when --connect lacks a secret, with 69 when a database or the mail server is not reached.
    """
    try:
        config = open_whole_config(config_file, secrets=_CONNECTED if connect else ())
        if config.denied:
            raise CredentialDenied(config.denied)
    except ConfigInvalid as error:
        if as_json:
            emit_json({"ok": False, "problems": error.problems, "warnings": [], "databases": [], "jobs": []})
        else:
            click.echo(cleaned(str(error), keep="\n"))
            if error.hint:
                say(f"hint: {error.hint}", color="cyan")
        click.get_current_context().exit(error.exit_code)
    tried = try_databases(config) if connect else []
    mail = try_mail(config) if connect else None
    reached = all(database.ok for database in tried) and (mail is None or mail.ok)
    problems = [*code_problems(config), *check_jobs(config, tried)]
    lacking = [f"{problem}: what it opens is not checked" for problem in config.withheld]
    on_unit = [*lacking, *unit_limits.complaints(config)]
    if as_json:
        jobs = [job.name for job in config.jobs]
        said = {"ok": reached and not problems, "problems": problems, "warnings": [*config.warnings, *on_unit]}
        emit_json({**said, "databases": tried, "mail": mail, "jobs": jobs})
    else:
        _print_checked(config, [*tried, *([mail] if mail else [])], problems, [*map(str, config.warnings), *on_unit])
    if not reached:
        click.get_current_context().exit(ExitCode.STORE_UNREACHABLE)
    if problems:
        click.get_current_context().exit(ExitCode.CONFIG_INVALID)


@click.command()
def schema() -> None:
    """Print the JSON Schema of the config, with which editors complete keys and mark errors.

    \b
      batchd schema > config.schema.json
      then, as the first line of config.toml:   #:schema ./config.schema.json
    """
    emit_json(json_schema())


@click.command()
@click.argument("kind", required=False, shell_complete=complete_kind)
@json_option
def kinds(kind: str | None, *, as_json: bool) -> None:
    """Explain the kinds of jobs; with KIND its parameters and a complete example in TOML.

    \b
      batchd kinds
      batchd kinds cleanup
      batchd kinds cleanup --json | jq .kinds[0].params
    """
    found = known_kinds()
    if kind is not None and kind not in found:
        from difflib import get_close_matches  # noqa: PLC0415 (only a typo needs it)

        near = get_close_matches(kind, found, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(found))}"
        raise UsageError(f"there is no kind {kind!r}", hint=hint)
    shown = [found[name] for name in sorted(found) if kind in {None, name}]
    if as_json:
        emit_json({"kinds": [_kind_json(each) for each in shown]})
    elif kind is None:
        emit_table(("kind", "does"), [(each.name, each.summary) for each in shown])
        say("`batchd kinds KIND` explains one")
    else:
        _print_kind(shown[0])


@click.command(name="next")
@config_option
@job_argument(required=False)
@click.option("--count", "-n", type=click.IntRange(1, _MOST_FIRES), default=10, show_default=True, help="How many.")
@click.option("--from", "start", type=IsoMoment(), help="After this moment (local time of the job unless it says).")
@json_option
def next_fires(config_file: str | None, job: str | None, *, count: int, start: datetime | None, as_json: bool) -> None:
    """Print the coming fire times of one job, or of all, in local time and in UTC; marks changes of the clock.

    \b
      batchd next
      batchd next cleanup-logs --count 20
      batchd next cleanup-logs --from 2026-10-24        across the end of summer time

    Without JOB the next fire of every job is among them. Nominal times: `jitter` moves a run's start by a little.
    """
    config = open_whole_config(config_file, secrets=())
    if job is not None:
        known_job(config, job)
    chosen = [each for each in config.jobs if job in {None, each.name}]
    fires = _merged({each.name: fires_of(each, start or SystemClock().now(), count) for each in chosen}, count)
    if as_json:
        emit_json(
            {"fires": [{"job": name, "utc": fire.utc, "local": fire.local, "note": fire.note} for name, fire in fires]}
        )
        return
    rows = [
        (name, f"{fire.local:%a %Y-%m-%d %H:%M:%S %z}", f"{fire.utc:%Y-%m-%d %H:%M:%S}", fire.note)
        for name, fire in fires
    ]
    emit_table(("job", "local time", "UTC", "note"), [[cell or "" for cell in row] for row in rows])
    _explain_silence(chosen, {name for name, _ in fires})


def _print_checked(
    config: Config, tried: Sequence[Connected], problems: Sequence[Problem], warnings: Sequence[str]
) -> None:
    for problem in problems:
        click.echo(cleaned(problem))
    if not problems:
        held = f"{counted(len(config.jobs), 'job')}, {counted(len(config.settings.databases), 'database')}"
        click.echo(f"{config.path}: right ({held})")
    for database in tried:
        click.echo(f"{database.name}: {cleaned(database.message)} ({database.url})")
    for warning in warnings:
        say(f"warning: {warning}", color="yellow")
    if not config.jobs:
        say("the config has no job: `batchd run` refuses it without --allow-empty", color="yellow")


def _merged(fires: Mapping[str, Sequence[FirePreview]], count: int) -> list[tuple[str, FirePreview]]:
    """Return the first `count` fires of all jobs in order, and the next one of each job that has none among them."""
    every = sorted(
        ((name, fire) for name, coming in fires.items() for fire in coming), key=lambda named: (named[1].utc, named[0])
    )
    shown = every[:count]
    named = {name for name, _ in shown}
    rest: dict[str, FirePreview] = {}
    for name, fire in every[count:]:
        if name not in named:
            rest.setdefault(name, fire)
    return [*shown, *rest.items()]


def _explain_silence(chosen: list[JobDefinition], firing: set[str]) -> None:
    for job in chosen:
        if not job.enabled:
            say(f"{job.name} is disabled")
        elif job.schedule is None:
            say(f"{job.name} has no schedule: it runs when it is triggered")
        elif parse_schedule(job.schedule, job.timezone).is_reboot:
            say(f"{job.name} runs when the daemon starts")
        elif job.name not in firing:
            say(f"{job.name} has no fire time after that")


def _kind_json(kind: Kind[Any]) -> dict[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "params": kind.params.model_json_schema(schema_generator=WrittenSchema),
        "defaults": jsonable(kind.defaults),
        "example": kind.example,
    }


def _print_kind(kind: Kind[Any]) -> None:
    click.echo(f"{kind.name}: {kind.summary}")
    described = kind.params.model_json_schema(schema_generator=WrittenSchema)
    models = described.get("$defs", {})
    required = set(described.get("required", ()))
    rows = []
    for name, field in described.get("properties", {}).items():
        default = "required" if name in required else _default_text(field.get("default"))
        rows.append((name, _type_text(field, models), default, field.get("description", "")))
    heading("Parameters")
    emit_table(("key", "type", "default", "meaning"), rows)
    if kind.defaults:
        heading("Defaults of its jobs")
        for key, value in kind.defaults.items():
            click.echo(f"{key} = {_default_text(value)}")
    heading("Example")
    click.echo(kind.example.strip())


def _default_text(value: object) -> str | None:
    """Return the value as one writes it in TOML; None for none."""
    if isinstance(value, dict):
        pairs = [f"{key} = {_default_text(inner)}" for key, inner in value.items() if inner is not None]
        return "{ " + ", ".join(pairs) + " }" if pairs else None
    return None if value is None else json.dumps(jsonable(value))


def _type_text(field: dict[str, Any], models: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type_text(each, models) for each in field["anyOf"] if each.get("type") != "null")
    if "enum" in field:
        return " or ".join(f'"{word}"' for word in field["enum"])
    if "$ref" in field:
        model = models[str(field["$ref"]).rpartition("/")[2]]
        return "{ " + ", ".join(model["properties"]) + " }" if "properties" in model else _type_text(model, models)
    kind = field.get("x-batchd-type", field.get("type", "any"))
    if kind == "array" and "items" in field:
        return f"list of {_type_text(field['items'], models)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
