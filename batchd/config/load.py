"""From a TOML file to one `Config`, or to the list of everything that is wrong with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchd.config.jobs import JobReader, ReadJob, add_faults
from batchd.config.problems import ConfigInvalid, Problem, Problems
from batchd.config.settings import DatabaseSection, JobSettings, Settings, StoreSettings
from batchd.config.substitution import Substitution
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import dialect_of, file_of, secrets_in
from batchd.domain.job import CONFIG_REFERENCE, JobDefinition, JsonObject
from batchd.errors import BatchdError, ExitCode, NoPermission, ParamsInvalid
from batchd.jobs import catalog
from batchd.jobs.contract import Kind

_TOML_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)")
_SECTIONS = ("daemon", "store", "databases", "log", "queues", "defaults", "jobs")
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class ConfigMissing(BatchdError):
    """There is no config file where one was expected."""

    exit_code = ExitCode.CONFIG_INVALID


@dataclass(frozen=True, slots=True)
class Config:
    """One checked config. `secrets` are the values that must never be shown; `params` hold them, definitions do not."""

    path: Path
    settings: Settings
    jobs: tuple[JobDefinition, ...]
    store: DatabaseSettings
    databases: Mapping[str, DatabaseSettings]
    secrets: frozenset[str]
    kinds: Mapping[str, Kind[Any]]
    params: Mapping[str, JsonObject]
    import_path: tuple[Path, ...]
    places: Problems = field(repr=False)

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
            faults = error.errors(include_input=False, include_url=False)
            said = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'params'}: {fault['msg']}" for fault in faults)
            known = ", ".join(kind.params.model_fields)
            raise ParamsInvalid(f"job {job!r}: {said}", hint=f"its params are: {known}") from None

    def require_jobs(self, *, allow_empty: bool) -> None:
        """Raise ConfigInvalid when there is no job at all, which is more often a mistake than a wish."""
        if not self.jobs and not allow_empty:
            message = "has no job at all; running it would remove every schedule. Give --allow-empty if you mean it"
            raise ConfigInvalid([Problem(str(self.path), None, "", None, message)])


def load_config(path: Path, environ: Mapping[str, str], kinds: Mapping[str, Kind[Any]] | None = None) -> Config:
    """Return the checked config; raises ConfigInvalid with every problem, NoPermission or ConfigMissing."""
    text = _read(path)
    problems = Problems(path, text)
    document = _parsed(path, text)
    folder = path.resolve().parent
    outside = Substitution(folder, environ, problems)
    document = outside.replaced(_plain(document))
    for name in document.keys() - set(_SECTIONS):
        problems.add((name,), "unknown section", names=_SECTIONS)
    defaults = _table(document, "defaults", problems)
    jobs = _table(document, "jobs", problems)
    _check_defaults(defaults, problems)
    settings = _settings(document, problems)
    state = _state_folder(settings, folder, environ)
    databases = {
        name: _database(("databases", name), name, section, folder, outside, problems)
        for name, section in settings.databases.items()
    }
    store = _database(("store",), "store", settings.store, folder, outside, problems, default=state / "batchd.db")
    reader = JobReader(settings, catalog.kinds() if kinds is None else kinds, outside, problems)
    read = [_job(reader, name, table, defaults, problems) for name, table in jobs.items()]
    complete = [job for job in read if job is not None]
    reader.check_starts(complete, jobs)
    problems.raise_if_any()
    return Config(
        path=path,
        settings=settings,
        jobs=tuple(job.definition for job in complete),
        store=store,
        databases=databases,
        secrets=frozenset(outside.secrets),
        kinds=catalog.kinds() if kinds is None else kinds,
        params={job.definition.name: job.params for job in complete},
        import_path=tuple(folder / Path(part).expanduser() for part in settings.daemon.import_path),
        places=problems,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigMissing(
            f"there is no config {path}", hint="copy config.example.toml, or name one with --config"
        ) from None
    except PermissionError:
        raise NoPermission(f"{path} may not be read by this user", hint="check its owner and mode") from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid([Problem(str(path), None, "", None, f"is not UTF-8 text: {error.reason}")]) from error
    except (OSError, ValueError) as error:
        raise ConfigMissing(f"cannot read {path}: {error}", hint="name a TOML file with --config") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        said = str(error)
        place = _TOML_PLACE.search(said)
        line = int(place[1]) if place else None
        message = f"is not TOML: {said}"
        if "declare" in said or "overwrite" in said:
            written = text.splitlines()[line - 1].strip() if line and line <= len(text.splitlines()) else ""
            message = f"{written} is written twice; two jobs need two names ({said})"
        raise ConfigInvalid([Problem(str(path), line, "", None, message)]) from error


def _plain(value: Any) -> Any:
    """Return TOML's values as JSON's: dates and times as ISO text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date | time) else value


def _table(document: Mapping[str, Any], name: str, problems: Problems) -> dict[str, Any]:
    table = document.get(name, {})
    if isinstance(table, dict):
        return table
    problems.add((name,), f"must be a table: write [{name}]")
    return {}


def _check_defaults(defaults: dict[str, Any], problems: Problems) -> None:
    try:
        JobSettings.model_validate(defaults)
    except ValidationError as error:
        add_faults(problems, ("defaults",), error, JobSettings.model_fields)
        defaults.clear()


def _settings(document: Mapping[str, Any], problems: Problems) -> Settings:
    """Return the sections; what is wrong in them becomes problems, and defaults stand in for it."""
    sections = {key: value for key, value in document.items() if key in Settings.model_fields}
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            place = tuple(str(part) for part in fault["loc"])
            known = _names_at(place)
            if fault["type"] == "extra_forbidden":
                problems.add(place, "unknown key", names=known)
            else:
                problems.add(place, fault["msg"].removeprefix("Value error, "))
        databases = sections.get("databases")
        stand_ins = dict.fromkeys(databases, DatabaseSection()) if isinstance(databases, dict) else {}
        return Settings(databases=stand_ins)


def _names_at(place: tuple[str, ...]) -> list[str]:
    model: Any = {"daemon": "daemon", "store": "store", "log": "log"}.get(place[0])
    if model:
        annotation: Any = Settings.model_fields[model].annotation
        return list(annotation.model_fields)
    return ["concurrency"] if place[0] == "queues" else list(DatabaseSection.model_fields)


def _state_folder(settings: Settings, folder: Path, environ: Mapping[str, str]) -> Path:
    if settings.daemon.state is not None:
        return folder / Path(settings.daemon.state).expanduser()
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
    elif url is None:
        if default is None:
            problems.add(place, "has no `url` (or `url_file`)")
        url = f"sqlite:///{default}"
    return DatabaseSettings(
        name=name,
        url=_checked_url(url or "sqlite://", (*place, "url"), folder, outside, problems),
        pool_size=section.pool_size,
        connect_timeout=section.connect_timeout,
        statement_timeout=section.statement_timeout,
        lock_timeout=section.lock_timeout,
    )


def _checked_url(url: str, place: tuple[str, ...], folder: Path, outside: Substitution, problems: Problems) -> str:
    """Return the URL, a SQLite file made absolute; its password becomes a secret."""
    try:
        dialect = dialect_of(url)
    except BatchdError as error:
        problems.add(place, str(error))
        return url
    for secret in secrets_in(url):
        outside.keep_secret(secret)
    file = file_of(url)
    if file is not None:
        return f"sqlite:///{folder / Path(file).expanduser()}"
    if dialect.name == "sqlite":
        problems.add(
            place, "must name a file: sqlite:///folder/file.db; a database in memory is gone with its connection"
        )
    return url


def _job(reader: JobReader, name: str, table: Any, defaults: Mapping[str, Any], problems: Problems) -> ReadJob | None:
    if not _JOB_NAME.fullmatch(name):
        problems.add(("jobs", name), "a job's name has up to 100 letters, digits, dots, dashes and underscores")
        return None
    return reader.read(name, table, defaults)


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
