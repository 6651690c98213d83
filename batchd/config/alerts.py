"""`[alerts]` and the `alerts` of jobs: from the sections to the settings that the room of alerts knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from batchd.alerts.catalog import channel_types
from batchd.alerts.channel import ChannelType
from batchd.alerts.settings import PING, AlertSettings, ChannelPlan
from batchd.config.alert_settings import AlertsSection, ChannelSection, JobAlertsSection
from batchd.config.faults import add_fault, add_faults
from batchd.config.problems import Problems
from batchd.config.substitution import STAND_IN, Substitution
from batchd.domain.alert import RECOVERED, AlertPolicy, AlertRule, QuietHours, parse_quiet_hours
from batchd.domain.queue import QueueLimits
from batchd.domain.schedule import ScheduleError, zone_named

_FILE = "_file"
_PING = "ping"
_OF_ALL = frozenset({AlertRule.DAEMON_LOST, AlertRule.QUEUE_LATENCY})
"""What is about no job: only `[alerts]` can ask for it."""

Path_ = tuple[str, ...]


class AlertsReader:
    """Reads channels first, then what jobs say, noting every problem."""

    def __init__(
        self, section: AlertsSection, timezone: str, outside: Substitution, problems: Problems, *, has_mail: bool
    ) -> None:
        self._section = section
        self._timezone = timezone
        self._outside = outside
        self._problems = problems
        self._has_mail = has_mail

    def read(self, jobs: Mapping[str, JobAlertsSection], queues: Collection[str], limits: QueueLimits) -> AlertSettings:
        """Return the settings; what is wrong in them becomes problems."""
        section = self._section
        channels = {name: plan for name, table in section.channels.items() if (plan := self._channel(name, table))}
        self._check_names(("alerts", "to"), section.to)
        for queue in section.queues:
            if queue not in queues:
                place = ("alerts", "queues", queue)
                self._problems.add_named(place, f"there is no [queues.{queue}]", queue, queues)
        policy = self._policy(section)
        return AlertSettings(
            policy=policy,
            jobs={name: self._job_policy(name, said, policy) for name, said in jobs.items()},
            channels=channels,
            pings={name: ping for name, said in jobs.items() if (ping := self._ping(name, said)) is not None},
            queue_latency=section.queue_latency,
            queues=section.queues,
            daemon_silence=section.daemon_silence,
            group_wait=section.group_wait,
            remind_every=section.remind_every or None,
            check_every=section.check_every,
            keep_trying=section.keep_trying,
            keep_for=section.keep_for,
            timezone=self._timezone,
            queue_limits=limits,
        )

    def _policy(self, section: AlertsSection) -> AlertPolicy:
        return AlertPolicy(
            on=_rules(section.on),
            tells_recovery=RECOVERED in section.on,
            to=tuple(section.channels) if section.to is None else tuple(dict.fromkeys(section.to)),
            grace=section.grace,
            max_duration=section.max_duration,
            p99_factor=section.p99_factor or None,
            p99_least=section.p99_least,
        )

    def _job_policy(self, job: str, said: JobAlertsSection, usual: AlertPolicy) -> AlertPolicy:
        path = ("jobs", job, "alerts")
        self._check_names((*path, "to"), said.to)
        for word in said.on or ():
            if word in _OF_ALL:
                self._problems.add((*path, "on"), f"{word!r} is about no job; write it in [alerts]")
        return AlertPolicy(
            on=usual.on if said.on is None else _rules(said.on),
            tells_recovery=usual.tells_recovery if said.on is None else RECOVERED in said.on,
            to=usual.to if said.to is None else tuple(dict.fromkeys(said.to)),
            grace=said.grace or usual.grace,
            max_duration=said.max_duration or usual.max_duration,
            p99_factor=usual.p99_factor if said.p99_factor is None else said.p99_factor or None,
            p99_least=said.p99_least or usual.p99_least,
        )

    def _check_names(self, path: Path_, names: Sequence[str] | None) -> None:
        known = self._section.channels
        for name in names or ():
            if name not in known:
                there = ", ".join(known) or "none yet"
                self._problems.add_named(path, f"there is no [alerts.channels.{name}]; there are: {there}", name, known)

    def _channel(self, name: str, table: Mapping[str, Any]) -> ChannelPlan | None:
        path = ("alerts", "channels", name)
        kind = self._type_of(path, table)
        if kind is None:
            return None
        shared = {key: value for key, value in table.items() if key in ChannelSection.model_fields}
        own = {key: value for key, value in table.items() if key not in ChannelSection.model_fields}
        section = self._validated(path, ChannelSection, shared, ChannelSection.model_fields)
        settings = self._own(path, kind, own)
        if section is None or settings is None:
            return None
        return ChannelPlan(name, kind.name, settings, section.rate, self._quiet_hours(path, section))

    def _type_of(self, path: Path_, table: Mapping[str, Any]) -> ChannelType[Any] | None:
        types = {name: each for name, each in channel_types().items() if not each.is_per_job}
        known = ", ".join(types)
        name = table.get("type")
        if name is None:
            self._problems.add(path, f"has no `type`; there are: {known}")
            return None
        if not isinstance(name, str) or name not in types:
            message = f"there is no type {name!r}; there are: {known}"
            if name == _PING:
                message = 'a ping belongs to a job: write `alerts = { ping = "https://…" }` there'
            self._problems.add_named((*path, "type"), message, str(name), types)
            return None
        return types[name]

    def _own(self, path: Path_, kind: ChannelType[Any], own: Mapping[str, Any]) -> Any:
        """Return the settings of the channel's type, with the content of its secrets' files; None with problems."""
        resolved = dict(own)
        secrets = secret_fields(kind)
        for key in secrets:
            file = resolved.pop(key + _FILE, None)
            if file is None:
                continue
            if key in resolved:
                self._problems.add((*path, key + _FILE), f"set either `{key}` or `{key}{_FILE}`, not both")
            elif not isinstance(file, str):
                self._problems.add((*path, key + _FILE), "must be the name of a file")
            else:
                resolved[key] = self._outside.file_content(file, (*path, key + _FILE)) or STAND_IN
                self._outside.tainted.add((*path, key))
        for key in secrets & resolved.keys():
            self._outside.keep_secret(str(resolved[key]))
            self._outside.note_if_inline((*path, key))
        names = {*kind.settings.model_fields, *ChannelSection.model_fields, *(key + _FILE for key in secrets)}
        settings = self._validated(path, kind.settings, resolved, names)
        if settings is not None:
            checked = kind.check(settings, self._has_mail)
            self._problems.add_consequences(((*path, key) if key else path, message) for key, message in checked)
        return settings

    def _validated(self, path: Path_, model: Any, table: Mapping[str, Any], names: Collection[str]) -> Any:
        try:
            return model.model_validate(table)
        except ValidationError as error:
            add_faults(self._problems, path, error, names)
            return None

    def _quiet_hours(self, path: Path_, section: ChannelSection) -> QuietHours | None:
        if section.quiet_hours is None:
            if section.timezone is not None:
                self._problems.add((*path, "timezone"), "is of no use without `quiet_hours`")
            return None
        try:
            zone_named(section.timezone or self._timezone)
        except ScheduleError as error:
            self._problems.add((*path, "timezone"), str(error))
            return None
        try:
            return parse_quiet_hours(section.quiet_hours, section.timezone or self._timezone)
        except ValueError as error:
            self._problems.add((*path, "quiet_hours"), str(error))
            return None

    def _ping(self, job: str, said: JobAlertsSection) -> ChannelPlan | None:
        path, place = ("jobs", job, "alerts"), ("jobs", job, "alerts", _PING)
        given = said.ping
        if said.ping_file is not None:
            if given is not None:
                self._problems.add((*path, _PING + _FILE), "set either `ping` or `ping_file`, not both")
            given = self._outside.file_content(said.ping_file, (*path, _PING + _FILE))
        if given is None:
            return None
        urls = {"url": given} if isinstance(given, str) else given
        for url in urls.values():
            self._outside.keep_secret(url)
        if said.ping_file is None:
            self._outside.note_if_inline(place)
        kind = channel_types()[_PING]
        try:
            settings = kind.settings.model_validate(urls)
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                add_fault(self._problems, (*place, *map(str, fault["loc"])), fault, kind.settings.model_fields)
            return None
        checked = kind.check(settings, self._has_mail)
        self._problems.add_consequences(
            ((*place, key) if key and key != "url" else place, message) for key, message in checked
        )
        return ChannelPlan(f"{PING}{job}", kind.name, settings)


def secret_fields(kind: ChannelType[Any]) -> frozenset[str]:
    """Return the names of the settings that are secrets: each may also be given as `NAME_file`."""
    fields = kind.settings.model_fields
    return frozenset(name for name, field in fields.items() if "SecretStr" in repr(field.annotation))


def _rules(words: Sequence[str]) -> frozenset[AlertRule]:
    return frozenset(AlertRule(word) for word in words if word != RECOVERED)
