"""Timers: each trigger of one becomes a job that runs what its service runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from batchd.domain.quantities import format_duration
from batchd.moving.commands import shell_settings
from batchd.moving.cron_fields import Timing, Untranslatable, apply_timing
from batchd.moving.found import Findings, FoundJob, Options, Source, paragraphs
from batchd.moving.systemd.calendar import calendar_timing, time_span
from batchd.moving.systemd.services import service_settings
from batchd.moving.systemd.units import Entry, Unit, read_units
from batchd.moving.words import in_words

SYSTEM = "systemd"

_REMARKS = paragraphs("""
In spring a time inside the gap is left out by systemd; batchd fires right after the gap. In autumn systemd runs
only the first of two equal times, so `*:0/30` rests for an hour; batchd goes on every 30 minutes.

`Persistent=true` became `catch_up = "once"`, else missed times are lost (`"skip"`) as with systemd.

RandomizedDelaySec became `jitter`, which is always the same for one fire time (FixedRandomDelay is nearly that);
AccuracySec has no match: batchd starts on the second.

batchd counts `every 15m` from a fixed moment, so that a restart changes nothing; systemd counts from the last
start.

A command does not get the sandbox of its service (ProtectSystem, MemoryMax, Nice, …); such lines are kept as
comments. `command = ["systemctl", "start", "NAME.service"]` runs it in its own, if the daemon may.

`user` needs a daemon that is root.
""")
_SPANS = ("OnUnitActiveSec", "OnUnitInactiveSec", "OnBootSec", "OnStartupSec", "OnActiveSec")
_REPEATING = ("OnUnitActiveSec", "OnUnitInactiveSec")
_READ = frozenset(
    {*_SPANS, "OnCalendar", "Persistent", "RandomizedDelaySec", "FixedRandomDelay", "AccuracySec", "Unit"}
)
_LEFT_OUT = frozenset({("Unit", "Description"), ("Unit", "Documentation")})
_SHORTEST = timedelta(seconds=1)


@dataclass(slots=True)
class _Trigger:
    entries: list[Entry]
    timing: Timing | None
    problem: str = ""


def read_systemd(sources: Iterable[Source], options: Options, findings: Findings) -> None:
    """Add the jobs of the timers, with what their services run; drop-ins belong to the unit that their folder names."""
    units = read_units(sources)
    findings.remark(SYSTEM, *_REMARKS)
    used: set[str] = set()
    for unit in units.values():
        if unit.name.endswith(".timer"):
            service = _add_timer(unit, units, options, findings)
            used |= {unit.name, service, f"{service.partition('@')[0]}@.service"}
    for unit in units.values():
        _keep_odd(unit, findings)
        if unit.name not in used:
            for entry in unit.entries:
                said = f"CHECK: no timer among the files starts {unit.name}"
                findings.keep(entry.place, f"{entry.key}={entry.value}", f"[{entry.section}] of {unit.name}", said)


def _add_timer(timer: Unit, units: dict[str, Unit], options: Options, findings: Findings) -> str:
    """Add the timer's jobs; return the name of its service."""
    service_name = timer.last("Timer", "Unit") or f"{timer.stem}.service"
    service = units.get(service_name) or _of_template(service_name, units)
    triggers = _triggers(timer, options)
    if not triggers:
        findings.keep(timer.place, timer.name, "a timer that never fires", "CHECK: it has no trigger that batchd knows")
    rest: list[Entry] = []
    jobs = []
    for trigger in triggers:
        job = _job(timer, trigger)
        if service is None:
            job.settings |= {"command": f"systemctl start {shlex.quote(service_name)}", "shell": True}
            job.checks.append(
                f"{service_name} is not among the files; so systemd starts it, and the daemon must be allowed to"
            )
        else:
            rest = service_settings(service, job, options)
        if trigger.timing is None:
            job.checks.append(f"{trigger.problem}; without a schedule it runs only when triggered")
        else:
            apply_timing(job, trigger.timing)
        _set_rest(timer, job)
        job.meaning = _meaning(trigger, job, service_name)
        jobs.append(job)
    if len(jobs) > 1:
        for job in jobs:
            job.settings["mutex"] = timer.stem
            job.changes.append(
                f"{timer.name} has {len(jobs)} triggers, so there are as many jobs; `mutex` lets one run at a time"
            )
    for job in jobs:
        findings.add(job)
    own = [entry for entry in timer.entries if not _is_understood(entry)]
    for entry in [*own, *rest]:
        meaning = f"[{entry.section}] of {timer.name if entry in own else service_name}"
        findings.keep(entry.place, f"{entry.key}={entry.value}", meaning, "has no match in batchd")
    return service.name if service is not None else service_name


def _of_template(name: str, units: dict[str, Unit]) -> Unit | None:
    """Return the instance of a template that was given."""
    prefix, at, _ = name.partition("@")
    template = units.get(f"{prefix}@.service") if at else None
    return None if template is None else Unit(name, template.place, template.entries, [])


def _triggers(timer: Unit, options: Options) -> list[_Trigger]:
    found = []
    for entry in timer.all("Timer", "OnCalendar"):
        try:
            found.append(_Trigger([entry], calendar_timing(entry.value, options.timezone)))
        except Untranslatable as error:
            found.append(_Trigger([entry], None, str(error)))
    repeating = [entry for key in _REPEATING for entry in timer.all("Timer", key)]
    once = [entry for key in _SPANS if key not in _REPEATING for entry in timer.all("Timer", key)]
    if repeating:
        found += [_repeating(entry, once) for entry in repeating]
    elif once:
        said = ", ".join(f"{entry.key}={entry.value}" for entry in once)
        changed = f"{said} is so long after a start; batchd fires at the start of its daemon, at once"
        found.append(_Trigger(once, Timing("@reboot", None, [changed])))
    return found


def _repeating(entry: Entry, once: list[Entry]) -> _Trigger:
    entries = [*once, entry]
    try:
        span = time_span(entry.value)
    except Untranslatable as error:
        return _Trigger(entries, None, str(error))
    if span is None or span < _SHORTEST:
        return _Trigger(entries, None, f"{entry.key}={entry.value} is no interval that batchd has")
    timing = Timing(f"every {format_duration(span)}")
    if entry.key == "OnUnitInactiveSec":
        timing.changes.append("OnUnitInactiveSec counts from the end of the last run; batchd from fire to fire")
    if once:
        said = ", ".join(f"{each.key}={each.value}" for each in once)
        timing.changes.append(f"the first run ({said}) comes at the next full interval instead")
    return _Trigger(entries, timing)


def _job(timer: Unit, trigger: _Trigger) -> FoundJob:
    settings = shell_settings("")
    del settings["command"], settings["shell"]
    first = trigger.entries[-1]
    original = "\n".join(f"{entry.key}={entry.value}" for entry in trigger.entries)
    job = FoundJob(first.place, timer.stem, f"{timer.name}\n{original}", "", settings)
    description = timer.last("Unit", "Description")
    if description:
        job.above.append(description)
    if timer.stem.endswith("@"):
        job.checks.append(f"{timer.name} is a template; %i stands for nothing here")
    return job


def _set_rest(timer: Unit, job: FoundJob) -> None:
    persistent = (timer.last("Timer", "Persistent") or "no").lower()
    job.settings["catch_up"] = "once" if persistent in {"true", "yes", "on", "1"} else "skip"
    delay = timer.last("Timer", "RandomizedDelaySec")
    if delay:
        try:
            span = time_span(delay)
        except Untranslatable as error:
            job.checks.append(f"RandomizedDelaySec: {error}")
        else:
            if span:
                job.settings["jitter"] = format_duration(span)


def _meaning(trigger: _Trigger, job: FoundJob, service: str) -> str:
    said = ", ".join(f"{entry.key}={entry.value}" for entry in trigger.entries)
    when = in_words(job.settings.get("schedule"), job.settings.get("timezone"))
    return f"{said}: {when}; starts {service}"


def _is_understood(entry: Entry) -> bool:
    return (
        (entry.section == "Timer" and entry.key in _READ)
        or (entry.section, entry.key) in _LEFT_OUT
        or entry.section == "Install"
        or not entry.value
    )


def _keep_odd(unit: Unit, findings: Findings) -> None:
    for entry in unit.odd_lines:
        text = f"{entry.key}={entry.value}" if entry.value else entry.key
        findings.keep(entry.place, text, f"a line of {unit.name}", "CHECK: not understood")
