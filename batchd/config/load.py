"""From a TOML file to one `Config`, or to the list of everything that is wrong with it."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchd.alerts.settings import AlertSettings
from batchd.config.alerts import AlertsReader
from batchd.config.borrowing import with_borrowed
from batchd.config.document import parse, read_text
from batchd.config.exports import read_exports
from batchd.config.faults import add_faults
from batchd.config.http import read_http
from batchd.config.jobs import INNER_NAMES, JobReader, ReadJob, secret_fields
from batchd.config.mail import read_mail
from batchd.config.places import working_in
from batchd.config.problems import ConfigInvalid, CredentialDenied, Problem, Problems
from batchd.config.sections import read_settings
from batchd.config.settings import (
    DatabaseSection,
    JobSettings,
    Settings,
    StoreSettings,
)
from batchd.config.substitution import Substitution
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import dialect_of, file_of, secrets_in
from batchd.domain.exporting import ExportSettings
from batchd.domain.job import CONFIG_REFERENCE, JobDefinition, JsonObject
from batchd.domain.surface import HttpSettings
from batchd.errors import BatchdError, ParamsInvalid
from batchd.jobs import catalog
from batchd.jobs.contract import Kind
from batchd.jobs.fault_words import faults_text
from batchd.mail.delivery import MailSettings

_SECTIONS = ("daemon", "store", "databases", "mail", "http", "exports", "log", "queues", "alerts", "defaults", "jobs")
SECRETS_REMEDY = (
    "lend it to a command as systemd does for the service: sudo systemd-run --quiet --pipe --wait --uid=batchd "
    "--property=LoadCredential=NAME:FILE batchd …"
)
"""What to do about a secret that only the service can read."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Config:
    """One checked config. `secrets` are the values that must never be shown; `params` hold them, definitions do not.

    `path` is the file as it was named, `folder` the whole path of where it is: what relative paths are relative to.
    `state` is the folder for what the daemon keeps on disk. `withheld` are secrets that could not be had, where the
    reader of the config allowed for that: `require_secrets` says whether they matter. A database whose URL is one of
    them is not in `databases`. `denied` are those of them whose files are there, and closed to this user.
    """

    path: Path
    folder: Path
    state: Path
    settings: Settings
    jobs: tuple[JobDefinition, ...]
    store: DatabaseSettings
    databases: Mapping[str, DatabaseSettings]
    secrets: frozenset[str]
    kinds: Mapping[str, Kind[Any]]
    params: Mapping[str, JsonObject]
    mail: MailSettings | None
    http: HttpSettings | None
    exports: ExportSettings | None
    import_path: tuple[Path, ...]
    defaults: Mapping[str, Any]
    alerts: AlertSettings
    places: Problems = field(repr=False)
    warnings: tuple[Problem, ...] = ()
    withheld: tuple[Problem, ...] = ()
    denied: tuple[Problem, ...] = ()

    def problem(self, path: tuple[str, ...], message: str) -> Problem:
        """Return a problem, found after the config was read, with the line on which `path` is written."""
        return self.places.of(path, message)

    def resolve_params(self, job: str | None, stored: JsonObject) -> JsonObject:
        """Return a run's stored params with the config's secrets put back; raises ParamsInvalid where there is none."""
        whole: JsonObject = _resolved(stored, self.params.get(job or ""), ())
        return whole

    def validate_params(self, job: str, overrides: JsonObject) -> None:
        """Check the job's params with some of them replaced; raises ParamsInvalid."""
        definition = next(each for each in self.jobs if each.name == job)
        kind = self.kinds[definition.kind]
        try:
            kind.params.model_validate({**self.params[job], **overrides})
        except ValidationError as error:
            said, known = faults_text(error, kind.params.model_fields), ", ".join(kind.params.model_fields)
            raise ParamsInvalid(f"job {job!r}: {said}", hint=f"its params are: {known}") from None

    def check_overrides(self, job: str, overrides: JsonObject) -> None:
        """Raise ParamsInvalid when a run of the job may not have these params instead, or one of them is a secret."""
        if not overrides:
            return
        self.validate_params(job, overrides)
        kind = self.kinds[next(each.kind for each in self.jobs if each.name == job)]
        for key in sorted(secret_fields(kind) & overrides.keys()):
            raise ParamsInvalid(f"{key} is a secret, and a run's params are stored", hint="set it in the config")

    def require_secrets(self, sections: Collection[str] | None = None) -> None:
        """Raise CredentialDenied when a secret of these sections, or of any (None), was withheld."""
        lacking = [each for each in self.withheld if sections is None or each.section.partition(".")[0] in sections]
        if lacking:
            raise CredentialDenied(lacking, hint=SECRETS_REMEDY)

    def require_jobs(self, *, allow_empty: bool) -> None:
        """Raise ConfigInvalid when there is no job at all, which is more often a mistake than a wish."""
        if not self.jobs and not allow_empty:
            message = "has no job at all; running it would remove every schedule. Give --allow-empty if you mean it"
            raise ConfigInvalid([Problem(str(self.path), None, "", None, message)])


def load_config(
    path: Path,
    environ: Mapping[str, str],
    kinds: Mapping[str, Kind[Any]] | None = None,
    *,
    may_lack_secrets: bool = False,
) -> Config:
    """Return the checked config; with `may_lack_secrets` also where files of secrets cannot be read here.

    Raises ConfigInvalid with every problem, NoPermission or `batchd.config.document.ConfigMissing`.
    """
    text = read_text(path)
    problems = Problems(path, text, may_lack_secrets=may_lack_secrets)
    document = parse(path, text)
    folder = path.resolve().parent
    outside = Substitution(folder, environ, problems, _is_plain_setting)
    problems.secrets = outside.secrets
    document = outside.replaced(document)
    for name in document.keys() - set(_SECTIONS):
        problems.add((name,), "unknown section", names=_SECTIONS)
    defaults = _table(document, "defaults", problems)
    jobs = _table(document, "jobs", problems)
    _check_defaults(defaults, problems)
    _check_names(document, problems)
    settings = read_settings(document, problems)
    state = _state_folder(settings, folder, environ)
    databases = {
        name: _database(("databases", name), name, section, folder, outside, problems)
        for name, section in settings.databases.items()
    }
    lacking = {each.section for each in problems.withheld}
    databases = {name: each for name, each in databases.items() if f"databases.{name}" not in lacking}
    store = _database(("store",), "store", settings.store, folder, outside, problems, default=state / "batchd.db")
    mail = read_mail(settings.mail, folder, outside, problems)
    http = read_http(settings.http, folder, outside, problems)
    reader = JobReader(settings, catalog.kinds() if kinds is None else kinds, outside, problems)
    with working_in(folder):  # a relative path in a job's params means what it means to the daemon
        read = [_job(reader, name, table, defaults, problems) for name, table in jobs.items()]
        complete = [job for job in read if job is not None]
        reader.check_starts(complete, jobs)
        complete = with_borrowed(complete, reader.kinds, outside, problems)
    said = {job.definition.name: job.alerts for job in complete if job.alerts is not None}
    alerting = AlertsReader(
        settings.alerts, settings.daemon.timezone, outside, problems, has_mail=settings.mail is not None
    )
    alerts = alerting.read(said, {"default", *settings.queues}, settings.queue_limits())
    if http is not None:
        alerts = replace(alerts, site=http.public_origin)
    whole = [(job.definition, job.params) for job in complete]
    exports = read_exports(settings, state, folder, whole, jobs, problems)
    problems.raise_if_any()
    complete = reader.with_followers(complete)
    return Config(
        path=path,
        folder=folder,
        state=state,
        settings=settings,
        jobs=tuple(job.definition for job in complete),
        store=store,
        databases=databases,
        secrets=frozenset(outside.secrets),
        kinds=catalog.kinds() if kinds is None else kinds,
        params={job.definition.name: job.params for job in complete},
        mail=mail,
        http=http,
        exports=exports,
        import_path=tuple(folder / Path(part).expanduser() for part in settings.daemon.import_path),
        defaults=defaults,
        alerts=alerts,
        places=problems,
        warnings=_exposed_secrets(path, outside, problems),
        withheld=tuple(problems.withheld),
        denied=tuple(problems.denied),
    )


def _table(document: Mapping[str, Any], name: str, problems: Problems) -> dict[str, Any]:
    table = document.get(name, {})
    if isinstance(table, dict):
        return table
    problems.add((name,), f"must be a table: write [{name}]")
    return {}


def _check_defaults(defaults: dict[str, Any], problems: Problems) -> None:
    if "alerts" in defaults:
        problems.add(("defaults", "alerts"), "what holds for all jobs stands in [alerts]")
        del defaults["alerts"]
    if "then" in defaults:
        problems.add(("defaults", "then"), "belongs to one job: all jobs would be followed by it, and it by itself")
        del defaults["then"]
    try:
        JobSettings.model_validate(defaults)
    except ValidationError as error:
        add_faults(problems, ("defaults",), error, JobSettings.model_fields, INNER_NAMES)
        defaults.clear()


def _check_names(document: Mapping[str, Any], problems: Problems) -> None:
    """Jobs, databases and queues are named in tables, logs, shells and URLs: plain names only."""
    alerts = document.get("alerts")
    channels = alerts.get("channels") if isinstance(alerts, dict) else None
    named = {(section,): document.get(section) for section in ("jobs", "databases", "queues")}
    for section, tables in (*named.items(), (("alerts", "channels"), channels)):
        for name in tables if isinstance(tables, dict) else ():
            if not _NAME.fullmatch(name):
                problems.add((*section, name), "a name has up to 100 letters, digits, dots, dashes and underscores")


def is_job_name(name: str) -> bool:
    """Return whether a job may be called so: names stand in tables, logs, shells and URLs."""
    return _NAME.fullmatch(name) is not None


def _is_plain_setting(path: tuple[str, ...]) -> bool:
    """Whether a value there is never a secret; masking "info" or "UTC" would only spoil the log."""
    if path[:1] == ("jobs",) and path[2:4] == ("then", "params"):
        return False
    if path[:1] == ("alerts",):
        return path[1:2] != ("channels",)
    if path[:1] in {("daemon",), ("log",), ("queues",), ("defaults",)}:
        return True
    if path[:1] == ("http",) and path[1:2] != ("cron_secret",):
        return True
    return path[:1] == ("jobs",) and (path[2:3] == ("kind",) or set(path[2:3]) <= set(JobSettings.model_fields))


def _state_folder(settings: Settings, folder: Path, environ: Mapping[str, str]) -> Path:
    if settings.daemon.state is not None:
        return folder / _expanded(settings.daemon.state)
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(given) if given else folder / "var"


def _database(
    place: tuple[str, ...],
    name: str,
    section: DatabaseSection | StoreSettings,
    folder: Path,
    outside: Substitution,
    problems: Problems,
    *,
    default: Path | None = None,
) -> DatabaseSettings:
    url = section.url
    if section.url_file is not None:
        if url is not None:
            problems.add((*place, "url_file"), "set either `url` or `url_file`, not both")
        url = outside.file_content(section.url_file, (*place, "url_file"))
    elif url is None and default is not None:
        url = f"sqlite:///{default}"
    elif url is None and not problems.has(place) and not problems.has((*place, "url")):
        problems.add(place, "has no `url` (or `url_file`)")
    where = (*place, "url" if section.url_file is None else "url_file")
    sound = url is not None and not problems.has(where)
    return DatabaseSettings(
        name=name,
        url=_checked_url(url, where, folder, outside, problems) if url is not None and sound else "sqlite://",
        pool_size=section.pool_size,
        connect_timeout=section.connect_timeout,
        statement_timeout=section.statement_timeout,
        lock_timeout=section.lock_timeout,
        must_exist=default is None,
        is_store=default is not None,
        replans=default is not None,
    )


def _expanded(file: str) -> Path:
    """Return the path with `~` replaced, or as it stands where there is no such home."""
    try:
        return Path(file).expanduser()
    except RuntimeError:
        return Path(file)


def _checked_url(url: str, place: tuple[str, ...], folder: Path, outside: Substitution, problems: Problems) -> str:
    """Return the URL, a SQLite file made absolute; its password becomes a secret."""
    if url.startswith("postgres://"):  # as hosting platforms hand it out
        url = f"postgresql{url.removeprefix('postgres')}"
    try:
        dialect = dialect_of(url)
    except BatchdError as error:
        problems.add(place, str(error))
        return url
    found = secrets_in(url)
    for secret in found:
        outside.keep_secret(secret)
    if found:
        outside.note_if_inline(place)
    file = file_of(url)
    if file is not None:
        return f"sqlite:///{folder / _expanded(file)}"
    if dialect.name == "sqlite":
        problems.add(
            place, "must name a file: sqlite:///folder/file.db; a database in memory is gone with its connection"
        )
    return url


def _job(reader: JobReader, name: str, table: Any, defaults: Mapping[str, Any], problems: Problems) -> ReadJob | None:
    if problems.has(("jobs", name)):
        return None
    return reader.read(name, table, defaults)


def _exposed_secrets(path: Path, outside: Substitution, problems: Problems) -> tuple[Problem, ...]:
    """Return a warning for each secret that is written in a config which every user of the machine may read."""
    try:
        is_public = bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return ()
    said = "is a secret in a file that every user may read; `chmod o-r` it, or use ${VAR} or a `_file` key"
    return tuple(problems.of(place, said) for place in sorted(outside.inline)) if is_public else ()


def _resolved(stored: Any, configured: Any, path: tuple[str, ...]) -> Any:
    if stored == CONFIG_REFERENCE:
        if configured is None:
            raise ParamsInvalid(
                f"param {'.'.join(path)!r} is a secret of the config, and this daemon's config has none there",
                hint="give the job its secret again, then `batchd retry`",
            )
        return configured
    if isinstance(stored, dict):
        inner = configured if isinstance(configured, dict) else {}
        return {key: _resolved(value, inner.get(key), (*path, key)) for key, value in stored.items()}
    if isinstance(stored, list):
        given = configured if isinstance(configured, list) else []
        return [
            _resolved(value, given[index] if index < len(given) else None, (*path, str(index)))
            for index, value in enumerate(stored)
        ]
    return stored
