"""`batchd doctor`: looks at what usually goes wrong; each finding says what to do about it. Changes nothing."""

from __future__ import annotations

import contextlib
import enum
import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

from batchd.clock import Clock
from batchd.config.load import SECRETS_REMEDY, Config
from batchd.config.places import working_in
from batchd.db.ailments import DeadRows, Server, clock_of, file_of_sqlite, server_of
from batchd.db.engine import Database, driver_message, file_of
from batchd.errors import BatchdError
from batchd.outlook.explaining import explain_job
from batchd.store.ailments import StoreAilments, missing_parts, store_ailments
from batchd.store.meta import has_tables
from batchd.store.migrate import check_version
from batchd.store.queries import alive_workers

_CLOCK_WARN = timedelta(seconds=2)
_CLOCK_BAD = timedelta(seconds=10)
_DISK_WARN, _DISK_BAD = 1 << 30, 100 << 20
_OLDEST_POSTGRES, _POSTGRES_NOTED = 130_000, 140_000
_OLDEST_SQLITE = (3, 38)
_TZDATA_AGE = 2
_BACKLOG_WAIT = timedelta(minutes=5)
_LOOK = timedelta(seconds=5)


class Health(enum.StrEnum):
    """How bad a finding is: `bad` makes the whole degraded, and so does `warning`."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do, for all but those that are well."""

    topic: str
    health: Health
    message: str
    remedy: str | None = None


def examine(config: Config, clock: Clock) -> list[Finding]:
    """Return everything that was looked at, in the order in which a person would."""
    found = [*_python(), *_timezones(clock.now()), *_permissions(config), *_disks(config)]
    found += _databases(config, clock)
    found += _store(config)
    return [*found, *_job_indexes(config, clock.now())]


def _ok(topic: str, message: str) -> Finding:
    return Finding(topic, Health.OK, message)


def _warn(topic: str, message: str, remedy: str) -> Finding:
    return Finding(topic, Health.WARNING, message, remedy)


def _bad(topic: str, message: str, remedy: str) -> Finding:
    return Finding(topic, Health.BAD, message, remedy)


def _python() -> Iterable[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _ok("python", f"{version}, SQLAlchemy {importlib.metadata.version('sqlalchemy')}")


def _timezones(now: datetime) -> Iterable[Finding]:
    try:
        ZoneInfo("Europe/Berlin")
    except Exception:  # noqa: BLE001 (whatever it is, zones cannot be read)
        yield _bad("timezones", "there is no time zone data", "install the package tzdata of the system or of pip")
        return
    version = _tzdata_version()
    year = int(version[:4]) if version and version[:4].isdigit() else None
    where = "the system's" if any(Path(folder, "Europe/Berlin").exists() for folder in TZPATH) else "pip's"
    if year is not None and year < now.year - _TZDATA_AGE:
        yield _warn(
            "timezones",
            f"{where} time zone data is of {version}: rules that changed since are not in it",
            "upgrade the package tzdata, then restart the daemon",
        )
    else:
        yield _ok("timezones", f"{where} data{f', version {version}' if version else ''}")


def _tzdata_version() -> str | None:
    """Return the version of the data that is used: the system's goes before pip's."""
    for folder in TZPATH:
        for name in ("+VERSION", "tzdata.zi"):
            with contextlib.suppress(OSError):
                with Path(folder, name).open(encoding="utf-8") as file:
                    line = file.readline()
                return line.removeprefix("# version").strip()
        if Path(folder, "Europe").is_dir():
            return None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tzdata")
    return None


def _permissions(config: Config) -> Iterable[Finding]:
    for problem in config.withheld:
        yield _warn("permissions", f"{problem}: what it opens was not examined", SECRETS_REMEDY)
    for warning in config.warnings:
        yield _warn("permissions", str(warning), f"chmod o-r {config.path}")
    secret_files = [config.path, config.path.with_name(".env")]
    for file in secret_files:
        with contextlib.suppress(OSError):
            mode = file.stat().st_mode
            if mode & stat.S_IWOTH:
                yield _bad("permissions", f"every user may write {file}", f"chmod o-w {file}")
            if file.name == ".env" and mode & stat.S_IROTH:
                yield _warn("permissions", f"every user may read {file}", f"chmod o-r {file}")
    store = file_of(config.store.url)
    if store is not None:
        yield from _state_folder(Path(store))
    yield _ok("permissions", f"{config.path} is readable")


def _state_folder(store: Path) -> Iterable[Finding]:
    folder = store.parent
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        yield _bad("permissions", f"this user may not write into {folder}", f"chown or chmod {folder}")
    if store.exists():
        if not os.access(store, os.R_OK | os.W_OK):
            yield _bad("permissions", f"this user may not write {store}", f"run as its owner, or chown {store}")
        if store.stat().st_mode & stat.S_IWOTH:
            yield _bad("permissions", f"every user may write {store}", f"chmod o-w {store}")


def _disks(config: Config) -> Iterable[Finding]:
    folders = {config.folder}
    for settings in (config.store, *config.databases.values()):
        file = file_of(settings.url)
        if file is not None:
            folders.add(Path(file).parent)
    seen = set()
    for folder in sorted(folders):
        with contextlib.suppress(OSError):
            device = folder.stat().st_dev
            if device in seen:
                continue
            seen.add(device)
            free = shutil.disk_usage(folder).free
            said = f"{free / (1 << 30):.1f} GiB free at {folder}"
            remedy = "make room: SQLite and exports stop at the last byte"
            if free < _DISK_WARN:
                yield (_bad if free < _DISK_BAD else _warn)("disk", said, remedy)
            else:
                yield _ok("disk", said)


@contextlib.contextmanager
def _opened(config: Config) -> Iterator[dict[str, Database]]:
    with contextlib.ExitStack() as stack:
        settings = {"store": config.store, **config.databases}
        yield {name: stack.enter_context(contextlib.closing(Database(each))) for name, each in settings.items()}


def _databases(config: Config, clock: Clock) -> Iterable[Finding]:
    with _opened(config) as databases:
        for name, database in databases.items():
            file = file_of(database.settings.url)
            if file is not None and not Path(file).exists():
                if name != "store":
                    yield _bad("database", f"{name}: there is no file {file}", f"correct [databases.{name}] url")
                continue
            try:
                yield from _database(name, database, clock)
            except BatchdError as error:
                yield _bad("database", error.message, error.hint or "see that it runs and lets this user in")
            except Exception as error:  # noqa: BLE001 (whatever a driver says is a finding)
                yield _bad("database", f"{name}: {driver_message(error)}", "see that this user may read its catalogue")


def _database(name: str, database: Database, clock: Clock) -> Iterable[Finding]:
    before = clock.now()
    theirs = clock_of(database)
    after = clock.now()
    apart = max(before - theirs, theirs - after, timedelta(0))
    said = f"{name}: its clock and this machine's are {apart.total_seconds():.1f} s apart"
    remedy = "run an NTP client (chrony, systemd-timesyncd) on both machines"
    if apart > _CLOCK_WARN:
        yield (_bad if apart > _CLOCK_BAD else _warn)("clock", said, remedy)
    else:
        yield _ok("clock", said)
    if database.dialect.name == "postgresql":
        yield from server_findings(name, server_of(database))
    else:
        version, mode = file_of_sqlite(database)
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_SQLITE:
            yield _bad("version", f"{name}: SQLite {version} is older than 3.38", "use a newer Python or system SQLite")
        else:
            yield _ok("version", f"{name}: SQLite {version}, journal mode {mode}")


def server_findings(name: str, server: Server) -> Iterable[Finding]:
    """Return what a PostgreSQL server's own words mean."""
    major = server.version // 10_000
    if server.version < _OLDEST_POSTGRES:
        yield _bad("version", f"{name}: PostgreSQL {major} is not supported", "upgrade the server to 13 or newer")
    elif server.version < _POSTGRES_NOTED:
        yield _warn("version", f"{name}: PostgreSQL {major} gets no fixes any more", "plan an upgrade of the server")
    else:
        yield _ok("version", f"{name}: PostgreSQL {major}.{server.version % 10_000}")
    yield from _pooler(name, server.pooler)
    for setting, remedy in (
        ("autovacuum", "autovacuum = on"),
        ("track_counts", "track_counts = on"),
        ("fsync", "fsync = on"),
    ):
        if server.settings.get(setting) == "off":
            yield _warn("settings", f"{name}: {setting} is off", f"set {remedy} in postgresql.conf")
    for table in server.dead_rows:
        yield _dead(name, table)
    for index in server.invalid_indexes:
        yield _warn(
            "indexes", f"{name}: index {index} is invalid, and no query uses it", f"REINDEX INDEX CONCURRENTLY {index};"
        )


def _pooler(name: str, pooler: str | None) -> Iterable[Finding]:
    if pooler is None:
        return
    said = f"{name}: a pooler in {pooler} mode stands between"
    if pooler == "transaction" and name == "store":
        yield _warn(
            "pgbouncer",
            f"{said}: LISTEN is lost in it, so what another process queues begins up to 5 s later",
            "give [store] a direct connection, or a pool of its own with pool_mode = session",
        )
    else:
        yield _ok("pgbouncer", said)


def _dead(name: str, table: DeadRows) -> Finding:
    share = table.dead / max(1, table.dead + table.live)
    said = f"{name}: {share:.0%} of {table.table} are dead rows ({table.dead})"
    if table.is_disabled:
        return _warn(
            "bloat", f"{said}, and autovacuum is off for it", f"ALTER TABLE {table.table} RESET (autovacuum_enabled);"
        )
    return _warn("bloat", said, f"VACUUM (ANALYZE) {table.table}; then look for long open transactions")


def _store(config: Config) -> Iterable[Finding]:
    with contextlib.closing(Database(config.store)) as store:
        try:
            if not has_tables(store):
                yield _warn("store", "the store has no tables yet", "start the daemon, or run `batchd migrate`")
                return
            try:
                check_version(store)
            except BatchdError as error:
                yield _bad("store", error.message, error.hint or "run `batchd migrate`")
                return
            lacking = missing_parts(store)
            if lacking:
                yield _bad(
                    "store",
                    f"the store lacks {', '.join(lacking)}",
                    "`batchd migrate --sql` prints how they are made; make them again, or restore the store",
                )
            if any(part.startswith(("table", "column")) for part in lacking):
                return
            yield from store_findings(store_ailments(store))
            alive = alive_workers(store)
        except BatchdError:
            return  # told among the databases
    if not alive:
        yield _warn(
            "daemon", "no daemon is running: nothing will start by itself", "batchd run, or systemctl start batchd"
        )
    else:
        yield _ok("daemon", f"{len(alive)} alive")


def store_findings(found: StoreAilments) -> Iterable[Finding]:
    """Return what the store's counts mean."""
    if not found.missing:
        yield _ok("store", f"schema version {found.version}, all tables and indexes are there")
    if found.stuck:
        yield _bad(
            "runs", f"lease over, and nobody took them back: runs {_ids(found.stuck)}", "start a daemon, or restart it"
        )
    if found.overdue:
        yield _warn(
            "runs", f"longer than their timeout: runs {_ids(found.overdue)}", "batchd cancel RUN; see its log lines"
        )
    if found.waits_since is not None and found.now - found.waits_since > _BACKLOG_WAIT:
        since = f"{found.waits_since:%Y-%m-%d %H:%M}Z"
        yield _warn(
            "backlog",
            f"{found.backlog} runs could start, the first since {since}",
            "raise [daemon] workers or the queues' limits",
        )
    if found.failed:
        yield _warn("failures", f"{found.failed} runs failed in the last day", "batchd runs --state failed --since 1d")
    if found.quarantined:
        yield _bad(
            "failures",
            f"{found.quarantined} runs are quarantined",
            "batchd runs --state quarantined, then fix and batchd retry",
        )
    if found.broken_schedules:
        yield _bad("schedules", f"cannot be planned: {', '.join(found.broken_schedules)}", "batchd jobs says why")
    for listener, count in found.unread.items():
        yield _warn(
            "outbox", f"listener {listener} has not had {count} events for a day", "batchd status shows its error"
        )
    if found.open_incidents:
        yield _warn("alerts", f"{found.open_incidents} incidents are open", "batchd alerts lists them")


def _ids(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids[:10])) + (" …" if len(ids) > 10 else "")  # noqa: PLR2004 (a line)


def _job_indexes(config: Config, now: datetime) -> Iterable[Finding]:
    """Ask each job's own look for the indexes that it lacks."""
    withheld = config.settings.databases.keys() - config.databases.keys()
    with _opened(config) as databases, working_in(config.folder):
        for job in config.jobs:
            kind = config.kinds[job.kind]
            if kind.look is None:
                continue
            if withheld and withheld & {*kind.databases(kind.params.model_validate(config.params[job.name]))}:
                continue  # told among the permissions
            try:
                found = explain_job(config, job, databases, None, now, _LOOK)
            except Exception as error:  # noqa: BLE001 (a job that cannot be looked at is a finding, no crash)
                yield _warn("jobs", f"{job.name}: {driver_message(error)}", f"batchd explain {job.name}")
                continue
            if found.problem is not None:
                yield _bad("jobs", f"{job.name} would fail: {found.problem}", "batchd check --connect")
            for line in found.advice:
                yield _warn("indexes", f"{job.name} goes through its table without an index", line)
