"""`batchd plan`: all coming fires, where they crowd, and what the clock's changes do to them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from batchd.cli.output import emit_json, emit_table, heading, json_option, say
from batchd.cli.session import config_option, open_store, open_whole_config
from batchd.cli.text import counted, span
from batchd.cli.types import IsoMoment
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.errors import BatchdError, CannotCreate
from batchd.outlook.forecast import Forecast, JobForecast, forecast
from batchd.outlook.forecast_page import forecast_page
from batchd.outlook.workload import USUAL
from batchd.store.durations import histories

_MOST_LINES = 60
_OFTEN = 12
_SHADES = " ·:*#"


@click.command()
@config_option
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="How many days ahead.")
@click.option("--from", "start", type=IsoMoment(), help="After this moment (local time of the daemon), not from now.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan as one HTML file.")
@json_option
def plan(config_file: str | None, *, days: int, start: datetime | None, html: Path | None, as_json: bool) -> None:
    """Show all coming fires as a timeline: busiest minutes, collisions, what changes of the clock do.

    \b
      batchd plan --days 7
      batchd plan --from 2026-10-24 --days 2           across the end of summer time
      batchd plan --days 31 --html plan.html

    A collision is counted where runs usually meet, by how long they took so far (else 10 s): on one table, in a queue
    with fewer places, or for one mutex. Needs no database; with a store its history says how long runs take.
    """
    config = open_whole_config(config_file, secrets=())
    zone = ZoneInfo(config.settings.daemon.timezone)
    begin = SystemClock().now() if start is None else start
    begin = (begin.replace(tzinfo=zone) if begin.tzinfo is None else begin).astimezone(UTC)
    places = {
        name: min(each for each in (queue.concurrency, queue.max_running) if each is not None)
        for name, queue in config.settings.queues.items()
        if queue.concurrency is not None or queue.max_running is not None
    }
    found = forecast(config.jobs, begin, begin + timedelta(days=days), _usual_lengths(config), USUAL, places)
    if html is not None:
        try:
            html.write_text(forecast_page(found, f"batchd: the next {counted(days, 'day')}"), encoding="utf-8")
        except OSError as error:
            raise CannotCreate(f"cannot write {html}: {error.strerror}") from error
        say(f"written: {html}")
    if as_json:
        emit_json(found)
    elif html is None:
        _print(found, zone)


def _usual_lengths(config: Config) -> dict[str, timedelta]:
    try:
        with open_store(config) as store:
            known = histories(store, [job.name for job in config.jobs])
    except BatchdError:
        return {}
    return {job: typical for job, history in known.items() if (typical := history.typical()) is not None}


def _print(found: Forecast, zone: ZoneInfo) -> None:
    heading(f"Fires by hour of the day ({zone.key})")
    hours = "".join(f"{hour:<3}" for hour in range(24))
    emit_table(("job", hours, "fires", "takes"), [_hours(job, zone) for job in found.jobs if job.count])
    silent = [job.job for job in found.jobs if not job.count]
    if silent:
        say(f"do not fire: {', '.join(silent)}")
    heading("Timeline")
    rare = sorted(
        (fire, job.job)
        for job in found.jobs
        if job.count <= _OFTEN * (found.end - found.begin).days
        for fire in job.fires
    )
    rows = [(f"{fire.astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}", job) for fire, job in rare]
    emit_table(("local time", "job"), rows[:_MOST_LINES])
    if len(rows) > _MOST_LINES:
        say(f"and {counted(len(rows) - _MOST_LINES, 'other')}; --json and --html have them all")
    often = [
        (job.job, job.schedule, f"{job.count} fires")
        for job in found.jobs
        if job.count > _OFTEN * (found.end - found.begin).days
    ]
    if often:
        heading("All the time")
        emit_table(("job", "schedule", "in all"), often)
    _print_crowds(found, zone)


def _print_crowds(found: Forecast, zone: ZoneInfo) -> None:
    if found.busiest:
        heading("Busiest minutes")
        rows = [
            (f"{each.minute.astimezone(zone):%a %Y-%m-%d %H:%M}", len(each.jobs), ", ".join(each.jobs))
            for each in found.busiest
        ]
        emit_table(("local time", "jobs", "which"), rows)
    if found.collisions:
        heading("Collisions")
        met = [(f"{each.on} {each.name}", ", ".join(each.jobs), each.times, each.advice) for each in found.collisions]
        emit_table(("on", "jobs", "times", "what to do"), met)
    if found.clock_notes:
        heading("Changes of the clock near a fire")
        notes = [
            (f"{each.at.astimezone(zone):%Y-%m-%d %H:%M}", each.timezone, each.change, each.job, each.effect)
            for each in found.clock_notes
        ]
        emit_table(("local time", "zone", "change", "job", "effect"), notes)


def _hours(job: JobForecast, zone: ZoneInfo) -> tuple[object, ...]:
    """Return the job's line: for each hour of the day how often it fires, as a shade."""
    by_hour = Counter(fire.astimezone(zone).hour for fire in job.fires)
    most = max(by_hour.values(), default=1)
    shades = [_SHADES[-(-by_hour[hour] * (len(_SHADES) - 1) // most)] for hour in range(24)]
    return job.job, "".join(f"{shade:<3}" for shade in shades), job.count, span(job.lasts)
