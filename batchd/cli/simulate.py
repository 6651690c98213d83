"""`batchd simulate`: a stretch of time with the real planner on a simulated clock."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click

from batchd.cli.output import emit_facts, emit_json, emit_table, heading, json_option, say
from batchd.cli.session import config_option, known_job, open_store, open_whole_config
from batchd.cli.text import counted, span
from batchd.cli.types import IsoMoment
from batchd.config.load import Config
from batchd.errors import BatchdError, UsageError
from batchd.outlook.invariants import Expected, broken_rules
from batchd.outlook.simulation import Down, Scenario, simulate
from batchd.outlook.summary import JobSummary, Summary, summarized
from batchd.outlook.workload import DrawnWorkload, Lengths, parse_lengths
from batchd.service.room_settings import engine_settings
from batchd.store.durations import JobHistory, histories

_CLOCK = r"(\d{1,2}):(\d{2})"
_DOWN = re.compile(rf"(?:(\d{{4}}-\d{{2}}-\d{{2}})[T ])?{_CLOCK}-{_CLOCK}")
_DAY = timedelta(days=1)
_LONGEST = timedelta(days=366)
_MOST_REMARKS = 20


@click.command(name="simulate")
@config_option
@click.option("--from", "begin", type=IsoMoment(), required=True, help="From this moment (local time of the daemon).")
@click.option("--to", "end", type=IsoMoment(), required=True, help="Until this moment.")
@click.option(
    "--down",
    "downs",
    multiple=True,
    metavar="HH:MM-HH:MM",
    help="No daemon runs then, every day; with a date before it (2026-10-25T02:00-05:00) on that day.",
)
@click.option("--kill", is_flag=True, help="--down begins with a kill -9 instead of an orderly stop.")
@click.option(
    "--duration",
    "durations",
    multiple=True,
    metavar="[JOB=]TIME",
    help='How long runs take: "30s", or "10s..5m" to draw from. Else those of the store\'s history, else 10s.',
)
@click.option(
    "--failures",
    "failures",
    multiple=True,
    metavar="[JOB=]PERCENT",
    help='Which share of the attempts fails: "5%". Else that of the history, else none.',
)
@click.option("--daemons", type=click.IntRange(1, 20), default=1, show_default=True, help="How many share the store.")
@click.option("--seed", type=int, default=1, show_default=True, help="What is drawn; the same seed, the same result.")
@click.option("--no-history", is_flag=True, help="Do not look into the store for durations.")
@json_option
def simulate_command(
    config_file: str | None,
    *,
    begin: datetime,
    end: datetime,
    downs: tuple[str, ...],
    kill: bool,
    durations: tuple[str, ...],
    failures: tuple[str, ...],
    daemons: int,
    seed: int,
    no_history: bool,
    as_json: bool,
) -> None:
    """Live through a stretch of time: the real planner, queues, limits and retries on a simulated clock.

    \b
      batchd simulate --from 2026-10-20 --to 2026-11-10
      batchd simulate --from 2026-10-20 --to 2026-11-10 --down 02:00-05:00
      batchd simulate --from 2026-10-20 --to 2026-10-27 --duration 30s..10m --duration nightly=2h --failures 5%

    Reports fires, misses, catch-ups, overlaps, retries and how long runs wait for a place. No job is executed and
    nothing is written: the ledger of the simulation lives in memory. The store is only asked how long runs took.
    """
    config = open_whole_config(config_file, secrets=())
    config.require_jobs(allow_empty=False)
    zone = ZoneInfo(config.settings.daemon.timezone)
    first, last = _moment(begin, zone), _moment(end, zone)
    if not first < last <= first + _LONGEST:
        raise UsageError("--to must come after --from, and at most a year after it")
    known = {} if no_history else _known(config)
    scenario = Scenario(
        jobs=config.jobs,
        begin=first,
        end=last,
        settings=engine_settings(config),
        workload=_workload(config, known, durations, failures, seed),
        down=_downs(downs, first, last, zone, by_kill=kill),
        daemons=daemons,
        seed=seed,
    )
    ledger = simulate(scenario, _progress)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    broken = broken_rules(
        ledger, Expected(config.jobs, first - timedelta(microseconds=1), rules=scenario.settings.rules)
    )
    if broken:
        raise RuntimeError(f"the simulated ledger breaks a rule, please report it: {broken[0]}")
    found = summarized(ledger, config.jobs)
    if as_json:
        emit_json({"from": first, "to": last, "seed": seed, "down": scenario.down, **_as_object(found)})
    else:
        _print(found, scenario, config)


def _as_object(found: Summary) -> dict[str, object]:
    return {
        "runs": found.runs,
        "most_at_once": found.most_at_once,
        "busiest_at": found.busiest_at,
        "jobs": found.jobs,
        "queues": found.queues,
        "remarks": found.remarks,
    }


def _moment(given: datetime, zone: ZoneInfo) -> datetime:
    return (given.replace(tzinfo=zone) if given.tzinfo is None else given).astimezone(UTC)


def _known(config: Config) -> dict[str, JobHistory]:
    """Return the histories that the store has; none when it was never made or does not answer."""
    try:
        with open_store(config) as store:
            return histories(store, [job.name for job in config.jobs])
    except BatchdError:
        return {}


def _workload(
    config: Config, known: dict[str, JobHistory], durations: tuple[str, ...], failures: tuple[str, ...], seed: int
) -> DrawnWorkload:
    lengths = {job: Lengths(seen=history.lengths) for job, history in known.items()}
    failing = {job: history.failing for job, history in known.items()}
    usual, usually = Lengths(), 0.0
    for given in durations:
        job, text = _split(config, given)
        try:
            drawn = parse_lengths(text)
        except ValueError as error:
            raise UsageError(f"--duration {given}: {error}") from error
        if job is None:
            usual, lengths = drawn, {}
        else:
            lengths[job] = drawn
    for given in failures:
        job, text = _split(config, given)
        share = _share(given, text)
        if job is None:
            usually, failing = share, {}
        else:
            failing[job] = share
    return DrawnWorkload(seed, lengths, failing, usual, usually)


def _split(config: Config, given: str) -> tuple[str | None, str]:
    job, equals, text = given.rpartition("=")
    return (known_job(config, job), text) if equals else (None, given)


def _share(given: str, text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise UsageError(f"--failures {given}: write a percentage from 0% to 100%")
    return share


def _downs(given: tuple[str, ...], first: datetime, last: datetime, zone: ZoneInfo, *, by_kill: bool) -> list[Down]:
    found = []
    for text in given:
        match = _DOWN.fullmatch(text.strip())
        if match is None:
            raise UsageError(f'--down {text}: write "02:00-05:00", or "2026-10-25T02:00-05:00" for one day')
        date, *clock = match.groups()
        hours = [int(part) for part in clock]
        if hours[0] > 23 or hours[2] > 23 or hours[1] > 59 or hours[3] > 59:  # noqa: PLR2004
            raise UsageError(f"--down {text}: that is no time of day")
        day = first.astimezone(zone).date() - _DAY if date is None else datetime.fromisoformat(date).date()
        while True:
            begin = datetime(day.year, day.month, day.day, hours[0], hours[1], tzinfo=zone)
            end = datetime(day.year, day.month, day.day, hours[2], hours[3], tzinfo=zone)
            end = end if end > begin else end + _DAY
            if begin >= last:
                break
            if end > first:
                found.append(Down(max(begin.astimezone(UTC), first), end.astimezone(UTC), by_kill))
            if date is not None:
                break
            day += _DAY
    return sorted(found, key=lambda down: down.begin)


def _progress(now: datetime) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{now:%Y-%m-%d %H:%M} …", nl=False, err=True)


def _print(found: Summary, scenario: Scenario, config: Config) -> None:
    emit_table(
        ("job", "fires", "ok", "failed", "missed", "overlap", "catch-up", "retries", "wait", "95 %", "longest"),
        [_row(job) for job in found.jobs],
    )
    heading("Queues")
    emit_table(
        ("queue", "starts", "most at once", "longest wait", "of"),
        [
            (each.queue, each.started, each.most_at_once, span(each.longest_wait), each.longest_wait_job)
            for each in found.queues
        ],
    )
    heading("In all")
    slots = config.settings.daemon.workers * scenario.daemons
    at = f"{found.busiest_at:%Y-%m-%d %H:%M}Z" if found.busiest_at else "-"
    emit_facts([("runs", found.runs), ("most at once", f"{found.most_at_once} of {slots} threads, first at {at}")])
    if found.remarks:
        heading("What to look at")
        rows = [(f"{each.at:%Y-%m-%d %H:%M}Z", each.job, each.what, each.detail) for each in found.remarks]
        emit_table(("fire", "job", "what", "detail"), rows[:_MOST_REMARKS])
        if len(rows) > _MOST_REMARKS:
            say(f"and {counted(len(rows) - _MOST_REMARKS, 'other')}; --json has them all")


def _row(job: JobSummary) -> tuple[object, ...]:
    counts = (job.fires, job.succeeded, job.failed, job.missed, job.overlaps, job.catch_ups, job.retries)
    return (job.job, *counts, span(job.typical_wait), span(job.tail_wait), span(job.longest_wait))
