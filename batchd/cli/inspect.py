"""Commands that only look: jobs, runs, show, status."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from batchd.cli import alerts
from batchd.cli.complaints import age_seconds, complaints_of
from batchd.cli.output import emit_facts, emit_json, emit_table, heading, json_option, say
from batchd.cli.rejects import print_rejects, rejects_of
from batchd.cli.result_text import print_result
from batchd.cli.run_text import (
    children_text,
    duration_text,
    fire_text,
    parent_text,
    progress_text,
    run_json,
    state_text,
)
from batchd.cli.session import STORE, complete_job, config_option, known_job, open_config, open_store, open_whole_config
from batchd.cli.text import cleaned, distance, moment, span
from batchd.cli.types import Duration, RunId, Since
from batchd.clock import SystemClock
from batchd.domain.jsonable import jsonable
from batchd.domain.run import EXTERNAL_KIND, RunState
from batchd.errors import ExitCode
from batchd.store import incidents, queries
from batchd.store.control import RunUnknown
from batchd.store.queries import JobView, RunDetail, RunFilter, StoreStatus
from batchd.store.rejects import RejectView

_MOST_RUNS = 10_000


@click.command()
@config_option
@json_option
def jobs(config_file: str | None, *, as_json: bool) -> None:
    """List the jobs: when each runs next and what became of its last run.

    \b
      batchd jobs
      batchd jobs --json | jq -r '.jobs[] | select(.last_run.state == "failed").name'
    """
    config = open_config(config_file, secrets=STORE)
    with open_store(config) as store:
        listed = queries.jobs(store)
        daemons = queries.alive_workers(store)
    if as_json:
        emit_json({"jobs": [_job_json(job) for job in listed]})
        return
    now = SystemClock().now()
    rows = []
    for job in listed:
        run = job.last_run
        last = (run.state, distance(run.finished_at or run.started_at or run.created_at, now)) if run else ("-", "-")
        took = duration_text(run, now) if run else "-"
        rows.append((job.name, job.kind, job.schedule or "-", _next_text(job, now), *last, took))
    emit_table(("job", "kind", "schedule", "next run", "last", "when", "took"), rows, color_column="last")
    new = [job.name for job in config.jobs if job.name not in {known.name for known in listed}]
    if new:
        say(f"not yet known to the store (start or restart the daemon): {', '.join(new)}", color="yellow")
    if not daemons:
        say("no daemon is running: nothing will start by itself", color="yellow")


@click.command()
@config_option
@click.option("--job", "-j", metavar="JOB", shell_complete=complete_job, help="Only runs of this job.")
@click.option("--parent", type=int, metavar="RUN", help="Only runs that this run has queued.")
@click.option(
    "--tag", "-t", "tags", multiple=True, metavar="TAG", help="Only runs with this tag; with each, if several."
)
@click.option(
    "--state",
    "-s",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in RunState]),
    help="Only runs in this state; may be given several times.",
)
@click.option(
    "--since", type=Since(), help='Only unfinished runs and those that ended since: "1d", "2026-11-24T03:15".'
)
@click.option(
    "--limit", "-n", type=click.IntRange(1, _MOST_RUNS), default=20, show_default=True, help="At most this many."
)
@click.option("--before", "before_id", type=RunId(), metavar="RUN", help="Only runs before this one: the next page.")
@json_option
def runs(
    config_file: str | None,
    *,
    job: str | None,
    parent: int | None,
    tags: tuple[str, ...],
    states: tuple[str, ...],
    since: datetime | None,
    limit: int,
    before_id: int | None,
    as_json: bool,
) -> None:
    """List runs, newest first.

    \b
      batchd runs --since 1d --state failed --state quarantined
      batchd runs --job cleanup-logs -n 5
      batchd runs --parent 42 --state failed
      batchd runs --tag import --since 1d
      batchd runs --json | jq '.runs[].duration_seconds'
    """
    config = open_config(config_file, secrets=STORE)
    with open_store(config) as store:
        wanted = RunFilter(
            job=job,
            parent=parent,
            tags=frozenset(tags),
            states=frozenset(states),
            since=since,
            before_id=before_id,
            limit=limit,
        )
        listed = queries.list_runs(store, wanted)
    if job is not None and parent is None and not listed:
        known_job(open_whole_config(config_file, secrets=STORE), job)
    if as_json:
        emit_json({"runs": [run_json(run) for run in listed]})
        return
    now = SystemClock().now()
    with_tags = any(run.tags for run in listed)
    rows = [
        (
            run.id,
            run.schedule_id or run.kind,
            run.state,
            run.reason,
            fire_text(run),
            moment(run.started_at),
            duration_text(run, now),
            f"{run.attempt}/{run.max_attempts}",
            *([", ".join(run.tags or ())] if with_tags else []),
        )
        for run in listed
    ]
    headers = ("run", "job", "state", "reason", "fire", "started", "took", "tries", *(["tags"] if with_tags else []))
    emit_table(headers, rows, color_column="state")
    if len(listed) == limit:
        say(f"older ones: add --before {listed[-1].id}")


@click.command()
@config_option
@click.argument("run_id", metavar="RUN", type=RunId())
@click.option(
    "--lines", "-l", type=click.IntRange(0, _MOST_RUNS), default=50, show_default=True, help="Last log lines."
)
@click.option(
    "--rejects",
    "-r",
    "most_rejects",
    type=click.IntRange(0, _MOST_RUNS),
    default=20,
    show_default=True,
    help="First records that the run could not take, with the reasons.",
)
@json_option
def show(config_file: str | None, run_id: int, *, lines: int, most_rejects: int, as_json: bool) -> None:
    """Show one run: attempts, progress, result, error, rejected records and its last log lines.

    \b
      batchd show 42
      batchd show 42 --lines 500
      batchd show 42 --json | jq .run.result
    """
    config = open_config(config_file, secrets=STORE)
    with open_store(config) as store:
        detail = queries.run_detail(store, run_id, lines=lines)
        if detail is None:
            hint = "`batchd runs` lists the newest ones; old ones are pruned"
            raise RunUnknown(f"there is no run {run_id}", hint=hint)
        rejected = rejects_of(config, store, detail.run, most_rejects)
    if as_json:
        shown = {
            "children": detail.children,
            "attempts": detail.attempts,
            "rejects": rejected,
            "log_lines": detail.log_lines,
        }
        emit_json({"run": run_json(detail.run), **shown})
        return
    _print_run(detail, rejected)


@click.command()
@config_option
@click.option("--check", "as_check", is_flag=True, help="Exit with 13 when degraded, for probes.")
@click.option(
    "--max-lag",
    type=Duration(),
    default="60s",
    show_default=True,
    help="How late a fire or a run may be before it counts.",
)
@json_option
def status(config_file: str | None, *, as_check: bool, max_lag: timedelta, as_json: bool) -> None:
    """Say which daemons are alive, how late things are, what waits, and what became of the last 24 hours' runs.

    \b
      batchd status
      batchd status --check --max-lag 5m || page-somebody

    Works without a daemon too: it reads the store. Degraded means: no daemon alive, one that refused its changed
    config, a fire or a claimable run later than --max-lag, a job whose schedule cannot be planned, a listener or a
    channel of alerts that fails or that no daemon has. A run that waits since its queue is paused or full, or its job
    runs already, is not late. What is wrong with jobs is told by `batchd alerts`.
    """
    config = open_config(config_file, secrets=STORE)
    with open_store(config) as store:
        found = queries.store_status(store, config.settings.queue_limits())
        channels, open_count = incidents.channel_views(store), incidents.count_open(store)
    complaints = [*complaints_of(found, max_lag), *alerts.complaints(channels)]
    if as_json:
        emit_json(
            {
                "ok": not complaints,
                "degraded": complaints,
                "now": found.now,
                "daemons": [{**jsonable(worker), "alive": worker.is_alive} for worker in found.workers],
                "fire_lag_seconds": age_seconds(found.oldest_due, found.now),
                "run_lag_seconds": age_seconds(found.oldest_ready, found.now),
                "queues": found.queues,
                "listeners": found.listeners,
                "last_24h": found.last_day,
                "open_incidents": open_count,
                "alert_channels": [alerts.channel_json(channel) for channel in channels],
            }
        )
    else:
        _print_status(found)
        if channels:
            heading("Alerts")
            alerts.print_channels(channels)
        if open_count:
            say(f"{open_count} open incidents: see `batchd alerts`", color="yellow")
        for complaint in complaints:
            say(f"degraded: {complaint}", color="yellow")
    if complaints and as_check:
        click.get_current_context().exit(ExitCode.DEGRADED)


def _job_json(job: JobView) -> dict[str, object]:
    columns: dict[str, object] = jsonable(job)
    return {**columns, "last_run": None if job.last_run is None else run_json(job.last_run)}


def _next_text(job: JobView, now: datetime) -> str:
    if job.error:
        return f"never: {job.error}"
    if job.kind == EXTERNAL_KIND:
        return "elsewhere"
    if not job.enabled:
        return "disabled"
    if job.paused_at is not None:
        return f"paused {distance(job.paused_at, now)}"
    if job.next_run_at is None:
        return "when triggered" if job.schedule is None else "-"
    return f"{moment(job.next_run_at)} ({distance(job.next_run_at, now)})"


def _print_run(detail: RunDetail, rejected: tuple[RejectView, ...]) -> None:
    run = detail.run
    now = SystemClock().now()
    emit_facts(
        [
            ("run", run.id),
            ("job", run.schedule_id),
            ("kind", run.kind),
            ("state", state_text(run)),
            ("fire", fire_text(run)),
            ("queued", moment(run.created_at)),
            ("available", moment(run.available_at) if run.state == RunState.QUEUED.value else None),
            ("started", moment(run.started_at) if run.started_at else None),
            ("finished", moment(run.finished_at) if run.finished_at else None),
            ("took", duration_text(run, now) if run.started_at else None),
            ("attempts", f"{run.attempt} used of {run.max_attempts}"),
            ("worker", run.worker),
            ("progress", progress_text(run)),
            ("queued by", parent_text(run)),
            ("unique key", run.unique_key),
            ("tags", ", ".join(run.tags) if run.tags else None),
            ("metadata", run.metadata),
            ("children", children_text(detail.children)),
            ("params", run.params),
            ("error", run.error),
        ]
    )
    if run.result:
        print_result(run.result)
    if detail.attempts:
        heading("Attempts")
        rows = [
            (
                tried.number,
                tried.outcome or "running",
                moment(tried.started_at),
                moment(tried.finished_at),
                tried.worker,
            )
            for tried in detail.attempts
        ]
        emit_table(("no.", "outcome", "started", "finished", "worker"), rows)
    failed = [tried for tried in detail.attempts if tried.error_message]
    if failed:
        last = failed[-1]
        heading(f"Error of attempt {last.number}: {cleaned(last.error_type)}")
        click.echo(cleaned(last.error_traceback or last.error_message, keep="\n").rstrip())
    print_rejects(run, rejected)
    if detail.log_lines:
        heading("Log")
        for line in detail.log_lines:
            click.echo(f"{moment(line.at)}  {cleaned(line.level):<7}  {cleaned(line.message)}")


def _print_status(found: StoreStatus) -> None:
    if found.workers:
        rows = [
            (
                worker.id,
                "alive" if worker.is_alive else ("stopped" if worker.state == "stopped" else "dead"),
                worker.state,
                f"{worker.heartbeat_age_seconds:.0f}s ago",
                moment(worker.started_at),
                worker.host,
                worker.pid,
                worker.slots,
                worker.version,
            )
            for worker in found.workers
        ]
        headers = ("daemon", "is", "said", "heartbeat", "started", "host", "pid", "slots", "version")
        emit_table(headers, rows)
    else:
        click.echo("no daemon has ever run on this store")
    heading("Lag")
    emit_facts(
        [
            (
                "oldest fire that no planner has served",
                span(timedelta(seconds=age_seconds(found.oldest_due, found.now))),
            ),
            ("oldest run that could be claimed", span(timedelta(seconds=age_seconds(found.oldest_ready, found.now)))),
        ]
    )
    if found.queues:
        heading("Queues")
        depths = [
            (depth.queue, depth.ready, depth.later, depth.parked, depth.running, moment(depth.paused_at))
            for depth in found.queues
        ]
        emit_table(("queue", "ready", "later", "parked", "running", "paused since"), depths)
    if found.listeners:
        heading("Listeners")
        known = [
            (each.name, each.events, f"{each.behind:,}", each.failures, f"{each.lost:,}", each.error or "-")
            for each in found.listeners
        ]
        emit_table(("listener", "events", "behind", "failures", "lost", "error"), known)
    heading("Last 24 hours")
    click.echo(", ".join(f"{count} {state}" for state, count in sorted(found.last_day.items())) or "no run finished")
