"""`batchd alerts`: what is wrong now, what was, who was told, and whether the channels work."""

from __future__ import annotations

import contextlib
from difflib import get_close_matches

import click

from batchd.cli.output import emit_facts, emit_json, emit_table, heading, json_option, plain_text, say
from batchd.cli.person import person
from batchd.cli.session import STORE, complete_job, config_option, open_config, open_store
from batchd.cli.text import cleaned, moment
from batchd.cli.types import IncidentId
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.config.places import working_in
from batchd.db.engine import Database
from batchd.domain.alert import AlertRule
from batchd.domain.jsonable import jsonable
from batchd.errors import BatchdError, ExitCode, UsageError
from batchd.store import incidents, meta
from batchd.store.incidents import ChannelView, IncidentDetail, IncidentFilter, IncidentView
from batchd.store.meta import has_tables
from batchd.telemetry.masking import Masker

_MOST = 10_000
_NO_STORE = "00000000-0000-4000-8000-000000000000"


class AlertNotSent(BatchdError):
    """A channel did not take the test."""

    exit_code = ExitCode.STORE_UNREACHABLE


@click.group(invoke_without_command=True)
@config_option
@click.option("--all", "-a", "as_all", is_flag=True, help="Closed incidents too.")
@click.option("--job", "-j", metavar="JOB", shell_complete=complete_job, help="Only incidents of this job.")
@click.option(
    "--rule", "-r", type=click.Choice([rule.value for rule in AlertRule]), help="Only incidents of this rule."
)
@click.option("--limit", "-n", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most this many.")
@click.option("--before", "before_id", type=IncidentId(), metavar="INCIDENT", help="Only older ones: the next page.")
@json_option
@click.pass_context
def alerts(
    context: click.Context,
    config_file: str | None,
    *,
    as_all: bool,
    job: str | None,
    rule: str | None,
    limit: int,
    before_id: int | None,
    as_json: bool,
) -> None:
    """List what is wrong now, and how the channels do that tell of it.

    \b
      batchd alerts
      batchd alerts --all --job nightly-report
      batchd alerts show 7
      batchd alerts ack 7
      batchd alerts test ops

    Works without a daemon too: it reads the store.
    """
    if config_file is not None:
        context.find_root().obj = config_file
    if context.invoked_subcommand is not None:
        return
    wanted = IncidentFilter(job=job, rule=rule, state=None if as_all else "open", before_id=before_id, limit=limit)
    with open_store(open_config(config_file, secrets=STORE)) as store:
        listed = incidents.list_incidents(store, wanted)
        channels = incidents.channel_views(store)
    if as_json:
        emit_json({"incidents": listed, "channels": [channel_json(channel) for channel in channels]})
        return
    _print_incidents(listed, as_all=as_all)
    if len(listed) == limit:
        say(f"older ones: add --before {listed[-1].id}")
    if channels:
        heading("Channels")
        print_channels(channels)


@alerts.command()
@config_option
@click.argument("incident_id", metavar="INCIDENT", type=IncidentId())
@json_option
def show(config_file: str | None, incident_id: int, *, as_json: bool) -> None:
    """Show one incident, and what was told of it to whom.

    \b
      batchd alerts show 7
    """
    with open_store(open_config(config_file, secrets=STORE)) as store:
        detail = _found(store, incident_id)
    if as_json:
        emit_json({"incident": detail.incident, "told": detail.told})
        return
    one = detail.incident
    emit_facts(
        [
            ("incident", one.id),
            ("rule", one.rule),
            ("about", one.subject),
            ("state", one.state if one.closed_because is None else f"{one.state}: {one.closed_because}"),
            ("summary", one.summary),
            ("run", one.run_id),
            ("seen", f"{one.count} times, last {moment(one.last_at)}"),
            ("opened", moment(one.opened_at)),
            ("closed", moment(one.closed_at) if one.closed_at else None),
            (
                "acknowledged",
                f"{moment(one.acknowledged_at)} by {one.acknowledged_by}" if one.acknowledged_at else None,
            ),
            *((f"  {key}", plain_text(value)) for key, value in one.details.items()),
        ]
    )
    if detail.told:
        heading("Told")
        rows = [
            (
                each.channel,
                each.event,
                each.state,
                moment(each.created_at),
                moment(each.done_at),
                each.tries,
                each.error,
            )
            for each in detail.told
        ]
        emit_table(("channel", "what", "is", "since", "done", "tries", "error"), rows)


@alerts.command()
@config_option
@click.argument("incident_id", metavar="INCIDENT", type=IncidentId())
def ack(config_file: str | None, incident_id: int) -> None:
    """Say that somebody looks after an incident: it stays open, and there are no more reminders of it.

    \b
      batchd alerts ack 7
    """
    with open_store(open_config(config_file, secrets=STORE)) as store:
        if not incidents.acknowledge(store, incident_id, by=person()):
            one = _found(store, incident_id).incident
            say(f"incident {one.id} is {'acknowledged already' if one.is_open else 'closed'}")
            return
    click.echo(f"incident {incident_id} is acknowledged")


@alerts.command()
@config_option
@click.argument("incident_id", metavar="INCIDENT", type=IncidentId())
def close(config_file: str | None, incident_id: int) -> None:
    """Close an incident by hand, telling nobody; most close by themselves when things are well again.

    \b
      batchd alerts close 7
    """
    with open_store(open_config(config_file, secrets=STORE)) as store:
        if not incidents.close(store, incident_id, by=person()):
            say(f"incident {_found(store, incident_id).incident.id} is closed already")
            return
    click.echo(f"incident {incident_id} is closed")


@alerts.command()
@config_option
@click.argument("channel")
def test(config_file: str | None, channel: str) -> None:
    """Send a test through a channel, from here and now, and say what came of it.

    \b
      batchd alerts test ops
      batchd alerts test ping:nightly-backup      calls its /log, which does not count as a success

    Needs no daemon. Rate limits and quiet hours do not hold for a test. Exits with 69 when it did not get through.
    """
    config = open_config(config_file)
    click.echo(f"{cleaned(channel)}: sent; {cleaned(_tested(config, channel))}")


def _tested(config: Config, name: str) -> str:
    """Return what the channel's other side said to a test; raises UsageError, or AlertNotSent."""
    # Imported here: listing incidents needs none of it.
    from batchd.alerts.alerting import build  # noqa: PLC0415
    from batchd.alerts.channel import Handover, Surroundings, Undelivered  # noqa: PLC0415
    from batchd.alerts.delivery import trial_message  # noqa: PLC0415

    plans = {**config.alerts.channels, **{plan.name: plan for plan in config.alerts.pings.values()}}
    if name not in plans:
        near = get_close_matches(name, plans, n=1)
        known = f"there are: {', '.join(plans)}" if plans else "write one: [alerts.channels.NAME]"
        raise UsageError(f"there is no channel {name!r}", hint=f"did you mean {near[0]!r}?" if near else known)
    clock = SystemClock()
    around = Surroundings(config.mail, clock, Masker(config.secrets).text)
    with working_in(config.folder):
        try:
            message = trial_message(clock, _store_id(config), config.alerts.site)
            return around.mask(build(plans[name], around).send(message, Handover()))
        except Undelivered as error:
            raise AlertNotSent(f"channel {name!r}: {around.mask(error.message)}", hint=error.hint) from error


def _store_id(config: Config) -> str:
    with contextlib.suppress(BatchdError), contextlib.closing(Database(config.store)) as store:
        if has_tables(store):
            return meta.store_id(store)
    return _NO_STORE


def channel_json(channel: ChannelView) -> dict[str, object]:
    """Return the channel for programs."""
    columns: dict[str, object] = jsonable(channel)
    return {**columns, "served": channel.is_served}


def complaints(channels: tuple[ChannelView, ...]) -> list[str]:
    """Return what is wrong with the channels themselves, for `batchd status`."""
    found = []
    for each in channels:
        if each.failures and each.is_served:
            found.append(f"alert channel {each.name!r} has failed {each.failures} times with {each.error}")
        if each.waiting and not each.is_served:
            found.append(f"no daemon serves alert channel {each.name!r}, for which {each.waiting} alerts wait")
        if each.dropped:
            found.append(f"alert channel {each.name!r} did not get {each.dropped} alerts within the last day")
    return found


def print_channels(channels: tuple[ChannelView, ...]) -> None:
    """Print the table of channels; pings only where they need a look, for there may be one for each job."""
    rows = [
        (
            each.name,
            each.type,
            "failing" if each.failures else "well" if each.is_served else "not served",
            each.waiting,
            moment(each.sent_at),
            each.failures,
            each.error,
        )
        for each in channels
        if each.type != "ping" or each.failures or each.waiting
    ]
    emit_table(("channel", "type", "is", "waiting", "last sent", "failures", "error"), rows)


def _print_incidents(listed: tuple[IncidentView, ...], *, as_all: bool) -> None:
    if not listed:
        click.echo("no incident" if as_all else "nothing is wrong: no incident is open")
        return
    rows = [
        (
            each.id,
            each.rule,
            each.subject,
            each.closed_because or ("acknowledged" if each.acknowledged_at else "open"),
            moment(each.opened_at),
            each.count,
            each.run_id,
            _short(each.summary),
        )
        for each in listed
    ]
    emit_table(("no.", "rule", "about", "is", "since", "seen", "run", "summary"), rows)


def _short(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= 100 else one[:99] + "…"  # noqa: PLR2004 (a table's cell)


def _found(store: Database, incident_id: int) -> IncidentDetail:
    detail = incidents.find_incident(store, incident_id)
    if detail is None:
        raise UsageError(f"there is no incident {incident_id}", hint="`batchd alerts --all` lists the newest ones")
    return detail
