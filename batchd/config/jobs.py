"""`[jobs.NAME]` and `[defaults]`: settings that every job has, the kind's own params, and their secrets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from batchd.config.alert_settings import JobAlertsSection
from batchd.config.faults import add_faults
from batchd.config.problems import Problems
from batchd.config.settings import JobSettings, RetrySettings, Settings, ThenSettings, checked_zone
from batchd.config.substitution import STAND_IN, Substitution
from batchd.domain.follow import first_cycle
from batchd.domain.job import CONFIG_REFERENCE, JobDefinition, JsonObject, JsonValue
from batchd.domain.queue import names_in
from batchd.domain.schedule import ScheduleError, parse_schedule
from batchd.jobs.contract import Kind, Start

_SHARED = frozenset(JobSettings.model_fields)
_FILE = "_file"
_DATABASE_KEYS = frozenset({"database", "databases"})

INNER_NAMES = {"retry": RetrySettings.model_fields, "alerts": JobAlertsSection.model_fields}
"""The keys that there are in the tables of a job's settings."""


@dataclass(frozen=True, slots=True)
class ReadJob:
    """A job as the config says it: its definition (without secrets), its params (with them), what it says of alerts."""

    definition: JobDefinition
    params: JsonObject
    alerts: JobAlertsSection | None = None


class JobReader:
    """Reads jobs one by one, noting every problem instead of stopping at the first."""

    def __init__(
        self, settings: Settings, kinds: Mapping[str, Kind[Any]], outside: Substitution, problems: Problems
    ) -> None:
        self._settings = settings
        self.kinds = kinds
        self._outside = outside
        self._problems = problems

    def read(self, name: str, table: Any, defaults: Mapping[str, Any]) -> ReadJob | None:
        """Return the job, or None when it has problems."""
        path = ("jobs", name)
        before = len(self._problems.found)
        if not isinstance(table, dict):
            self._problems.add(path, f"must be a table: write [jobs.{name}]")
            return None
        kind = self._kind_of(path, table)
        shared = {key: value for key, value in table.items() if key in _SHARED}
        own = {key: value for key, value in table.items() if key not in _SHARED and key != "kind"}
        settings = self._shared(path, kind, {**(kind.defaults if kind else {}), **defaults, **shared})
        if kind is None:
            return None
        if settings is not None and settings.limit_key is not None:
            self._check_limit_key(path, kind, settings.limit_key)
        params = self._params(path, kind, own)
        if settings is None or params is None or len(self._problems.found) > before:
            return None
        definition = JobDefinition(
            name=name,
            kind=kind.name,
            schedule=settings.schedule,
            timezone=settings.timezone or self._settings.daemon.timezone,
            queue=settings.queue,
            priority=settings.priority,
            enabled=settings.enabled,
            catch_up=settings.catch_up_policy(),
            overlap=settings.overlap,
            start_deadline=settings.start_deadline,
            jitter=settings.jitter,
            timeout=settings.timeout,
            retry=settings.retry.policy(),
            params=self._redacted(path, kind, params),
            mutex=settings.mutex,
            limit_key=settings.limit_key,
            keep=settings.kept_seconds(),
            then=None if settings.then is None else _then_run(settings.then),
        )
        return ReadJob(definition, params, settings.alerts)

    def check_starts(self, read: Sequence[ReadJob], named: Collection[str]) -> None:
        """Note what is wrong with the runs that the jobs queue: no such job, kind or queue, or params it does not take.

        `named` are the names of all jobs, of those with problems too.
        """
        whole = {job.definition.name: job for job in read}
        for name, job in whole.items():
            kind = self.kinds[job.definition.kind]
            for start in kind.starts(kind.params.model_validate(job.params)) if kind.starts else ():
                self._check_start(("jobs", name, *start.key), start, name, whole, named)
            if job.definition.then is not None:
                self._check_start(("jobs", name, "then"), _start_of(job.definition.then), name, whole, named)
        followers = {name: str(job.definition.then["job"]) for name, job in whole.items() if job.definition.then}
        circle = first_cycle(followers)
        if len(circle) > 1:
            said = f"comes round to itself ({' → '.join((*circle, circle[0]))}) and would never come to an end"
            self._problems.add(("jobs", circle[0], "then"), said)

    def with_followers(self, read: Sequence[ReadJob]) -> list[ReadJob]:
        """Return the jobs, those with a `then` without params with what of their result goes to the job that follows.

        A parameter that the other job sets itself is its own: a result never replaces it.
        """
        whole = {job.definition.name: job for job in read}
        return [self._with_follower(job, whole) for job in read]

    def _with_follower(self, job: ReadJob, whole: Mapping[str, ReadJob]) -> ReadJob:
        then = job.definition.then
        other = whole.get(str(then["job"])) if then is not None else None
        if then is None or other is None or "params" in then:
            return job
        fields = self.kinds[other.definition.kind].params.model_fields
        take: list[JsonValue] = [*sorted(set(fields) - set(other.params))]
        return replace(job, definition=replace(job.definition, then={**then, "take": take}))

    def _check_start(
        self,
        path: tuple[str, ...],
        start: Start,
        name: str,
        whole: Mapping[str, ReadJob],
        named: Collection[str],
    ) -> None:
        for tainted in sorted(self._outside.tainted):
            if tainted[: len(path)] == path:
                message = "comes from outside and would be stored with each run; give it to the job that runs"
                self._problems.add(tainted, message)
        queues = {"default", *self._settings.queues}
        if start.queue is not None and start.queue not in queues:
            self._problems.add_named((*path, "queue"), f"there is no [queues.{start.queue}]", start.queue, queues)
        if start.job is not None and start.job not in named:
            self._problems.add_named((*path, "job"), f"there is no [jobs.{start.job}]", start.job, named)
        elif start.job == name:
            self._problems.add((*path, "job"), "is the job itself, which would never come to an end")
        elif start.kind is not None and start.kind not in self.kinds:
            known = ", ".join(sorted(self.kinds))
            message = f"there is no kind {start.kind!r}; there are: {known}"
            self._problems.add_named((*path, "kind"), message, start.kind, self.kinds)
        elif start.job is None or start.job in whole:
            self._check_kind(path, start, self.kinds[start.kind or whole[str(start.job)].definition.kind])

    def _check_kind(self, path: tuple[str, ...], start: Start, kind: Kind[Any]) -> None:
        if kind.runs_elsewhere:
            self._problems.add(path, f"kind {kind.name!r} runs elsewhere; batchd cannot queue a run of it")
            return
        fields = kind.params.model_fields
        for param in sorted(start.params - fields.keys()):
            self._problems.add((*path, "params", param), f"is no parameter of kind {kind.name!r}", names=fields)
        needed = {key for key, field in fields.items() if field.is_required()} if start.job is None else set()
        for param in sorted(needed - start.params):
            self._problems.add((*path, "params"), f"kind {kind.name!r} needs {param}")

    def _kind_of(self, path: tuple[str, ...], table: Mapping[str, Any]) -> Kind[Any] | None:
        name = table.get("kind")
        known = ", ".join(sorted(self.kinds))
        if name is None:
            self._problems.add(path, f"has no `kind`; there are: {known}")
            return None
        kind = self.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            self._problems.add_named(
                (*path, "kind"), f"there is no kind {name!r}; there are: {known}", str(name), self.kinds
            )
        return kind

    def _shared(self, path: tuple[str, ...], kind: Kind[Any] | None, merged: Mapping[str, Any]) -> JobSettings | None:
        settings: JobSettings | None = None
        try:
            settings = JobSettings.model_validate(merged)
        except ValidationError as error:
            add_faults(self._problems, path, error, _SHARED, INNER_NAMES)
        # One wrong setting hides none of the others: a schedule is read in UTC where its time zone is none.
        self._check_schedule(path, kind, merged.get("schedule"), merged.get("timezone"))
        self._check_queue(path, merged.get("queue", "default"))
        return settings

    def _check_schedule(self, path: tuple[str, ...], kind: Kind[Any] | None, schedule: object, zone: object) -> None:
        place = (*path, "schedule")
        if not isinstance(schedule, str):
            return
        try:
            known = checked_zone(zone) if isinstance(zone, str) else self._settings.daemon.timezone
        except ValueError:
            known = "UTC"
        try:
            parse_schedule(schedule, known)
        except ScheduleError as error:
            self._problems.add(place, str(error))
        if kind is not None and kind.runs_elsewhere:
            message = f"kind {kind.name!r} is not started by batchd; say with `expected` when it should run"
            self._problems.add(place, message)

    def _check_queue(self, path: tuple[str, ...], queue: object) -> None:
        queues = {"default", *self._settings.queues}
        if isinstance(queue, str) and queue not in queues:
            message = f"there is no [queues.{queue}]; there are: {', '.join(sorted(queues))}"
            self._problems.add_named((*path, "queue"), message, queue, queues)

    def _check_limit_key(self, path: tuple[str, ...], kind: Kind[Any], limit_key: str) -> None:
        fields = kind.params.model_fields
        for name in sorted(names_in(limit_key)):
            if name in secret_fields(kind):
                self._problems.add((*path, "limit_key"), f"names {name}, a secret, which must not be stored")
            elif name not in fields and kind.params.model_config.get("extra") != "allow":
                message = f"names {name}, which is no parameter of kind {kind.name!r}"
                if "arguments" in fields:
                    message += f"; an argument of its function is {{arguments.{name}}}"
                self._problems.add_named((*path, "limit_key"), message, name, fields)

    def _params(self, path: tuple[str, ...], kind: Kind[Any], own: Mapping[str, Any]) -> JsonObject | None:
        resolved = self._with_files(path, kind, own)
        try:
            params = kind.params.model_validate(resolved)
        except ValidationError as error:
            add_faults(self._problems, path, error, {*kind.params.model_fields, *_SHARED})
            self._check_databases(path, own, _written_databases(kind, own))
            return None
        self._check_databases(path, own, kind.databases(params))
        if kind.needs_mail is not None and kind.needs_mail(params) and self._settings.mail is None:
            self._problems.add(
                path, "sends mail, and there is no [mail]; write one with `host` (or `folder`) and `from`"
            )
        checked = kind.check(params) if kind.check else ()
        self._problems.add_consequences(((*path, *key.split(".")), message) for key, message in checked)
        return resolved

    def _check_databases(self, path: tuple[str, ...], own: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            if name != "*" and name not in self._settings.databases:
                known = ", ".join(sorted(self._settings.databases)) or "none yet"
                message = f"there is no [databases.{name}]; there are: {known}"
                place = (*path, *_place_of_database(own, name))
                self._problems.add_named(place, message, name, self._settings.databases)

    def _with_files(self, path: tuple[str, ...], kind: Kind[Any], own: Mapping[str, Any]) -> JsonObject:
        """Return the params with each `NAME_file` of a secret replaced by NAME and the file's content."""
        resolved = dict(own)
        for key in secret_fields(kind):
            named = resolved.pop(key + _FILE, None)
            if named is None:
                continue
            if key in resolved:
                self._problems.add((*path, key + _FILE), f"set either `{key}` or `{key}{_FILE}`, not both")
            elif not isinstance(named, str):
                self._problems.add((*path, key + _FILE), "must be the name of a file")
            else:
                resolved[key] = self._outside.file_content(named, (*path, key + _FILE)) or STAND_IN
                self._outside.tainted.add((*path, key))
        return resolved

    def _redacted(self, path: tuple[str, ...], kind: Kind[Any], params: JsonObject) -> JsonObject:
        """Return the params as they are stored: a reference to the config in place of every secret."""
        secret = secret_fields(kind)
        for key in secret & params.keys():
            self._outside.keep_secret(str(params[key]))
            self._outside.note_if_inline((*path, key))
        return {
            key: dict(CONFIG_REFERENCE) if key in secret else self._without_tainted(value, (*path, key))
            for key, value in params.items()
        }

    def _without_tainted(self, value: Any, path: tuple[str, ...]) -> Any:
        if path in self._outside.tainted:
            return dict(CONFIG_REFERENCE)
        if isinstance(value, dict):
            return {key: self._without_tainted(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._without_tainted(inner, (*path, str(index))) for index, inner in enumerate(value)]
        return value


def _then_run(then: ThenSettings) -> JsonObject:
    """Return what a schedule's row says of the run that follows."""
    said: JsonObject = {"job": then.job}
    if then.params is not None:
        said["params"] = dict(then.params)
    if then.delay:
        said["delay_seconds"] = then.delay.total_seconds()
    return said


def _start_of(then: Mapping[str, JsonValue]) -> Start:
    params = then.get("params")
    return Start((), str(then["job"]), None, None, frozenset(params) if isinstance(params, dict) else frozenset())


def _written_databases(kind: Kind[Any], own: Mapping[str, Any]) -> Iterator[str]:
    """Yield the databases that params name which are wrong elsewhere, and so cannot be asked."""
    for key in _DATABASE_KEYS & kind.params.model_fields.keys():
        value = own.get(key)
        yield from (name for name in (value if isinstance(value, list) else [value]) if name and isinstance(name, str))


def _place_of_database(own: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the keys under which the params name the database, such as `databases` or `queries.day.database`."""
    for key, value in own.items():
        if "database" in key and (value == name or (isinstance(value, list) and name in value)):
            return (key,)
        if isinstance(value, dict) and (inner := _place_of_database(value, name)):
            return (key, *inner)
    return ()


def secret_fields(kind: Kind[Any]) -> set[str]:
    """Return the names of the kind's params that are secrets: each may also be given as `NAME_file`."""
    return {name for name, field in kind.params.model_fields.items() if "SecretStr" in repr(field.annotation)}
