"""What `check --connect` asks: whether the databases answer, and have what each job needs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.config.places import working_in
from batchd.config.problems import Problem
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database, driver_message, masked
from batchd.domain.job import JobDefinition
from batchd.errors import BatchdError
from batchd.mail.transport import transport_of


@dataclass(frozen=True, slots=True)
class Connected:
    """What trying one database came to; `url` without its password."""

    name: str
    url: str
    ok: bool
    message: str


def try_databases(config: Config) -> list[Connected]:
    """Return what became of trying the store, first, and every database of the config."""
    return [_connected(settings) for settings in (config.store, *config.databases.values())]


def try_mail(config: Config) -> Connected | None:
    """Return how the mail server greets us once connected, secured and logged in; None without a `[mail]`."""
    if config.mail is None:
        return None
    place = config.mail.place
    try:
        return Connected("mail", place, ok=True, message=transport_of(config.mail).greet())
    except BatchdError as error:
        said = error.message if error.hint is None else f"{error.message}; {error.hint}"
        return Connected("mail", place, ok=False, message=said)


def check_jobs(config: Config, tried: Sequence[Connected]) -> list[Problem]:
    """Return what the databases that answered have against the config's jobs; none when none was tried."""
    answered = {found.name for found in tried[1:] if found.ok}
    if not answered:
        return []
    with contextlib.ExitStack() as stack:
        databases = {
            name: stack.enter_context(contextlib.closing(Database(settings)))
            for name, settings in config.databases.items()
            if name in answered
        }
        stack.enter_context(working_in(config.folder))
        return [problem for job in config.jobs for problem in _complaints(config, job, databases)]


def _complaints(config: Config, job: JobDefinition, databases: Mapping[str, Database]) -> list[Problem]:
    kind = config.kinds[job.kind]
    if kind.check_connected is None:
        return []
    place = ("jobs", job.name)
    try:
        found = kind.check_connected(kind.params.model_validate(config.params[job.name]), databases)
    except BatchdError as error:
        said = error.message if error.hint is None else f"{error.message}; {error.hint}"
        return [config.problem(place, said)]
    except Exception as error:  # noqa: BLE001 (whatever a driver says about the tables is the answer)
        return [config.problem(place, driver_message(error))]
    return [config.problem((*place, *key.split(".")) if key else place, message) for key, message in found]


def _connected(settings: DatabaseSettings) -> Connected:
    with contextlib.closing(Database(settings)) as database:
        url = masked(settings.url)
        file = database.engine.url.database
        if database.dialect.name == "sqlite" and file and not Path(file).exists():
            is_store = settings.name == "store"
            message = "does not exist yet; the daemon makes it" if is_store else "the file does not exist"
            return Connected(settings.name, url, is_store, message)
        clock = SystemClock()
        began = clock.monotonic()
        try:
            with database.reading() as connection:
                connection.exec_driver_sql("SELECT 1")
        except BatchdError as error:
            return Connected(settings.name, url, ok=False, message=error.message)
        except Exception as error:  # noqa: BLE001 (a driver's refusal of any kind is the answer to the question asked)
            return Connected(settings.name, url, ok=False, message=driver_message(error))
        return Connected(settings.name, url, ok=True, message=f"answers in {(clock.monotonic() - began) * 1000:.0f} ms")
