"""`batchd enqueue`: queue a run of a job or a kind, or one for each line on stdin."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import IO, Any, TypeAlias

import click
from pydantic import ValidationError

from batchd.cli.output import emit_json, json_option, say
from batchd.cli.session import STORE, complete_job, complete_param, config_option, open_store, open_whole_config
from batchd.cli.types import Duration, IsoMoment, Override
from batchd.config.jobs import secret_fields
from batchd.config.load import Config
from batchd.db.engine import Database
from batchd.domain.job import Backoff, JsonValue
from batchd.domain.run import CreatedBy
from batchd.domain.run_request import LARGEST_PRIORITY, MOST_ATTEMPTS, RunRequest
from batchd.errors import EnqueueRefused, ParamsInvalid, UsageError
from batchd.jobs.contract import Kind
from batchd.jobs.fault_words import faults_text
from batchd.store import queries
from batchd.store.requests import enqueue_requests
from batchd.store.unique_runs import Enqueued, OnConflict

STDIN = "-"

_MOST_COMPLAINTS = 20
_AT_ONCE = 5_000
_IN_MEMORY_BYTES = 8_000_000
Check: TypeAlias = Callable[[RunRequest], RunRequest]
"""Returns the request when all is well with it; raises UsageError."""

_FIELDS = frozenset(field.name for field in dataclasses.fields(RunRequest) if field.init)


@click.command()
@config_option
@click.argument("job", metavar="JOB_OR_KIND", shell_complete=complete_job)
@click.option(
    "--param",
    "-p",
    "params",
    multiple=True,
    type=Override(),
    shell_complete=complete_param,
    help="KEY=VALUE: a parameter.",
)
@click.option("--queue", "-q", metavar="QUEUE", help="Queue instead of the job's.")
@click.option("--priority", type=click.IntRange(-LARGEST_PRIORITY, LARGEST_PRIORITY), help="Higher starts first.")
@click.option("--at", type=IsoMoment(), help='Not before this moment: "2027-01-01T09:00"; local time if bare.')
@click.option("--delay", type=Duration(), help='Not before so much time has passed: "5m".')
@click.option("--max-attempts", type=click.IntRange(1, MOST_ATTEMPTS), help="Attempts in all; 1 means no retry.")
@click.option(
    "--backoff", type=click.Choice([word.value for word in Backoff]), help="How the wait between attempts grows."
)
@click.option("--retry-delay", type=Duration(), help="Wait before the second attempt.")
@click.option("--max-retry-delay", type=Duration(), help="Longest wait between attempts.")
@click.option("--jitter", type=click.FloatRange(0, 1), help="Share of the wait that is added or taken away.")
@click.option("--timeout", type=Duration(), help="Longest attempt.")
@click.option("--unique-key", metavar="KEY", help="Queue nothing while an unfinished run has this key.")
@click.option("--unique-period", type=Duration(), help="Nor within this time after one was queued that succeeded.")
@click.option(
    "--on-conflict",
    type=click.Choice([word.value for word in OnConflict]),
    help="With --unique-key: keep the run that waits (default), or replace its params, time and settings.",
)
@click.option("--tag", "-t", "tags", multiple=True, metavar="TAG", help="A tag; may be given several times.")
@click.option("--meta", "-m", "metadata", multiple=True, type=Override(), help="KEY=VALUE kept with the run.")
@json_option
def enqueue(config_file: str | None, job: str, *, as_json: bool, **given: Any) -> None:
    """Queue a run of a job of the config, or of a kind; with `-` one for each line of JSON on stdin.

    \b
      batchd enqueue send-email --param to=ada@example.com --queue critical
      batchd enqueue sync-user --param 'arguments={"user_id": 5}' --delay 5m --unique-key sync-user:5
      batchd enqueue - --tag import < runs.ndjson

    A line is {"name": "send-email", "params": {"to": "ada@example.com"}}, with the options by their names, such as
    "unique_key"; a line's own options win over those of the command. All lines are queued or none; complaints name the
    lines. A name is a job's or, where there is no such job, a kind's.
    """
    config = open_whole_config(config_file, secrets=STORE)
    options = _options(given)
    with open_store(config) as store:
        check = functools.partial(_checked, config, frozenset(queries.job_names(store)))
        if job == STDIN:
            _enqueue_lines(check, store, options, as_json=as_json)
            return
        request = check(RunRequest(job, **options))
        with store.writing() as connection:
            (enqueued,) = enqueue_requests(connection, store, [request], created_by=CreatedBy.CLI)
        _answer(store, job, enqueued, as_json=as_json)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as `RunRequest` takes them."""
    options = {key: value for key, value in given.items() if value not in (None, ())}
    for key in ("params", "metadata"):
        if key in options:
            options[key] = dict(options[key])
    if isinstance(at := options.get("at"), datetime):
        options["at"] = at.astimezone()
    return options


def _answer(store: Database, name: str, enqueued: Enqueued, *, as_json: bool) -> None:
    alive = bool(queries.alive_workers(store))
    if not alive:
        say("no daemon is running: the run waits in the store until one starts (`batchd run`)", color="yellow")
    if as_json:
        emit_json({"run_id": enqueued.id, "outcome": enqueued.outcome, "daemon_alive": alive})
    elif enqueued.is_new:
        click.echo(f"run {enqueued.id} of {name} is queued")
    else:
        click.echo(f"run {enqueued.id} has this unique key and was {enqueued.outcome.value}")


def _enqueue_lines(check: Check, store: Database, options: dict[str, Any], *, as_json: bool) -> None:
    """Check every line first, so that no transaction is open while the lines come in; then queue them all at once."""
    counts: dict[str, int] = {}
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as kept:
        _check_lines(check, sys.stdin.buffer, kept, options)
        kept.seek(0)
        requests = (_request(line, options) for line in iter(kept.readline, b""))
        with store.writing() as connection:
            while some := list(islice(requests, _AT_ONCE)):
                before = sum(counts.values())
                for enqueued in enqueue_requests(connection, store, some, created_by=CreatedBy.CLI, before=before):
                    counts[enqueued.outcome.value] = counts.get(enqueued.outcome.value, 0) + 1
    if as_json:
        emit_json(counts)
    else:
        click.echo(", ".join(f"{count:,} {word}" for word, count in counts.items()) or "there was no line")


def _check_lines(check: Check, lines: Iterable[bytes], kept: IO[bytes], options: dict[str, Any]) -> None:
    complaints = []
    for number, line in _numbered(lines):
        try:
            check(_request(line, options))
        except (UsageError, ParamsInvalid) as error:
            complaints.append(f"line {number}: {error.message}")
            if len(complaints) == _MOST_COMPLAINTS:
                complaints.append("… (there may be more)")
                break
        if not complaints:
            kept.write(line.strip() + b"\n")
    if complaints:
        raise EnqueueRefused("nothing was queued:\n  " + "\n  ".join(complaints))


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _request(line: bytes, options: dict[str, Any]) -> RunRequest:
    try:
        read = json.loads(line)
    except json.JSONDecodeError as error:
        raise EnqueueRefused(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise EnqueueRefused(f"not JSON: {error}") from None
    if not isinstance(read, dict):
        raise EnqueueRefused('not an object such as {"name": "send-email", "params": {"to": "ada@example.com"}}')
    unknown = [key for key in read if key not in _FIELDS]
    if unknown:
        near = get_close_matches(unknown[0], _FIELDS, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(_FIELDS))}"
        raise EnqueueRefused(f"there is no option {unknown[0]!r}{advice}")
    if "name" not in read:
        raise EnqueueRefused("has no name: a job or a kind")
    for key in ("params", "metadata"):
        if isinstance(read.get(key), dict):
            read[key] = {**options.get(key, {}), **read[key]}
    return RunRequest(**{**options, **read})


def _checked(config: Config, stored_jobs: Collection[str], request: RunRequest) -> RunRequest:
    """Return the request, whose name, queue and params the config knows, and whose job the store; raises UsageError."""
    jobs = {job.name: job for job in config.jobs}
    job = jobs.get(request.name)
    kind = config.kinds.get(job.kind if job else request.name)
    if kind is None and request.name in stored_jobs:
        return request  # of a module that a daemon was told to import; the store checks what it knows of its kind
    if kind is None:
        near = get_close_matches(request.name, [*jobs, *stored_jobs, *config.kinds], n=1)
        advice = f"did you mean {near[0]!r}?" if near else "`batchd jobs` and `batchd kinds` list them"
        raise EnqueueRefused(f"there is no job and no kind {request.name!r}", hint=advice)
    queues = {"default", *config.settings.queues}
    if request.queue is not None and request.queue not in queues:
        raise EnqueueRefused(f"there is no [queues.{request.queue}]; there are: {', '.join(sorted(queues))}")
    secret = sorted(secret_fields(kind) & request.params.keys())
    if secret:
        raise EnqueueRefused(f"{secret[0]} is a secret, and a run's params are stored", hint="set it in the config")
    params: dict[str, JsonValue] = dict(request.params)
    if job is not None:
        if job.name not in stored_jobs:
            hint = "a job of the config reaches the store when the daemon starts: run `batchd run` (or restart it) once"
            raise EnqueueRefused(f"the store knows no job {job.name!r} yet", hint=hint)
        try:
            config.validate_params(job.name, params)
        except ParamsInvalid as error:
            raise EnqueueRefused(error.message, hint=error.hint) from None
        return request
    _check_params(config, kind, params)
    return request


def _check_params(config: Config, kind: Kind[Any], params: dict[str, JsonValue]) -> None:
    """Check what a kind is given without a job, as config checks a job."""
    hint = f"its params are: {', '.join(kind.params.model_fields)}"
    try:
        understood = kind.params.model_validate(params)
    except ValidationError as error:
        told = faults_text(error, kind.params.model_fields)
        raise EnqueueRefused(f"kind {kind.name!r}: {told}", hint=hint) from None
    faults = [f"{key}: {said}" for key, said in (kind.check(understood) if kind.check else ())]
    faults += [
        f"there is no [databases.{name}]"
        for name in kind.databases(understood)
        if name != "*" and name not in config.databases
    ]
    if kind.needs_mail is not None and kind.needs_mail(understood) and config.mail is None:
        faults.append("sends mail, and there is no [mail]")
    if faults:
        raise EnqueueRefused(f"kind {kind.name!r}: {'; '.join(faults)}", hint=hint)
