"""`batchd convert`: schedules of other systems as a config, or explained line by line."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from batchd import __version__
from batchd.cli.output import emit_json, say
from batchd.cli.text import cleaned, counted
from batchd.config.settings import checked_zone
from batchd.errors import NoPermission, UsageError

_MOST_BYTES = 20 * 10**6
_ZONE_LINK = Path("/etc/localtime")
_ZONE_FILE = Path("/etc/timezone")
_FROM = (
    "auto", "crontab", "crontab-system", "systemd", "whenever", "sidekiq", "sidekiq-cron", "sidekiq-scheduler",
    "solid-queue", "good-job", "vercel", "bullmq", "celery", "apscheduler", "apscheduler-store",
)  # fmt: skip


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--from", "system", type=click.Choice(_FROM), default="auto", show_default=True, help="What the files are."
)
@click.option("--explain", is_flag=True, help="Instead of a config: each line, its old meaning and the new.")
@click.option("--json", "as_json", is_flag=True, help="With --explain: as JSON, for programs.")
@click.option(
    "--timezone",
    metavar="ZONE",
    help="The zone of schedules that follow the machine's clock. [default: this machine's]",
)
@click.option("--base-url", metavar="URL", help="Where the application of a vercel.json is.")
@click.option("--app-dir", metavar="DIR", help="The folder of the application, where its commands run.")
@click.option("--environment", default="production", show_default=True, help="Which of Rails' environments is meant.")
@click.option("--role", "roles", multiple=True, help="Which roles of a Whenever schedule are meant; all when not said.")
def convert(
    files: tuple[str, ...],
    system: str,
    *,
    explain: bool,
    as_json: bool,
    timezone: str | None,
    base_url: str | None,
    app_dir: str | None,
    environment: str,
    roles: tuple[str, ...],
) -> None:
    """Write schedules of other systems as a config of batchd, with comments on what changed and what to check.

    \b
      crontab -l | batchd convert - > jobs.toml
      batchd convert /etc/crontab /etc/cron.d > jobs.toml
      batchd convert /etc/systemd/system/backup.timer --explain
      batchd convert config/schedule.rb --app-dir /srv/shop --timezone Europe/Berlin
      batchd convert vercel.json --base-url https://shop.example.com

    Reads crontabs, systemd timers (with their services and drop-ins), Whenever's schedule.rb, Sidekiq's YAML (also of
    sidekiq-cron and sidekiq-scheduler), Solid Queue, GoodJob, vercel.json, TypeScript and JavaScript with BullMQ,
    node-cron and their like, Celery beat and APScheduler, and APScheduler's job stores (a SQLite file or a URL).

    Nothing that is read is run. What batchd does not understand becomes a comment; the result passes `batchd check`.
    - is stdin; a folder stands for the files in it.
    """
    from batchd.db.job_stores import job_store_rows  # noqa: PLC0415 (other commands need none of this)
    from batchd.moving.convert import convert as converted  # noqa: PLC0415
    from batchd.moving.detect import System  # noqa: PLC0415
    from batchd.moving.explain import as_text, explained  # noqa: PLC0415
    from batchd.moving.found import Machine, Options, Source  # noqa: PLC0415
    from batchd.moving.toml_text import toml_document  # noqa: PLC0415

    if as_json and not explain:
        raise UsageError("--json belongs to --explain: the config itself is TOML")
    chosen = None if system == "auto" else System(system)
    sources = [Source(name, data) for name, data in _read(files)]
    options = Options(
        timezone=_checked(timezone) if timezone else _machine_zone(),
        machine=Machine(_home_of, lambda folder: Path(folder).is_dir(), lambda name: shutil.which(name) is not None),
        base_url=_checked_url(base_url),
        app_dir=app_dir,
        environment=environment,
        roles=frozenset(roles),
    )
    findings = converted(sources, options, system=chosen, rows_of=job_store_rows)
    if as_json:
        emit_json({"remarks": findings.remarks, "lines": explained(findings)})
    elif explain:
        for line in as_text(findings):
            click.echo(cleaned(line))
    else:
        click.echo(toml_document(findings, version=__version__), nl=False)
    checks = sum(bool(job.checks) for job in findings.jobs)
    disabled = sum(job.settings.get("enabled") is False for job in findings.jobs)
    said = [f"{counted(len(findings.jobs), 'job')} from {counted(len(sources), 'file')}"]
    said += [f"{checks} with something to CHECK by hand"] if checks else []
    said += [f"{disabled} with `enabled = false`"] if disabled else []
    say(", ".join(said), color=None if findings.jobs else "yellow")


def _read(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents: of files, of those in folders, of a timer's service and drop-ins; each once."""
    seen: set[Path] = set()
    for name in names:
        if name == "-":
            yield "-", sys.stdin.buffer.read(_MOST_BYTES)
        elif "://" in name:
            yield name, b""
        else:
            for path in _expanded(Path(name)):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    yield str(path), _content(path)


def _expanded(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(inner for inner in path.iterdir() if inner.is_file() and not inner.name.startswith("."))
        return
    yield path
    if path.suffix not in {".timer", ".service"}:
        return
    yield from _drop_ins(path)
    if path.suffix == ".timer":
        template = f"{path.stem.partition('@')[0]}@.service"
        for service in (path.with_suffix(".service"), path.with_name(template)):
            if service.is_file():
                yield service
                yield from _drop_ins(service)


def _drop_ins(unit: Path) -> Iterator[Path]:
    yield from sorted(unit.with_name(f"{unit.name}.d").glob("*.conf"))


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            with path.open("rb") as file:
                head = file.read(16)
            if head.startswith(b"SQLite format 3"):
                return head
            raise UsageError(f"{path}: is larger than {_MOST_BYTES // 10**6} MB, which no schedule is")
        return path.read_bytes()
    except PermissionError as error:
        raise NoPermission(f"{path}: may not be read by this user") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _checked(zone: str) -> str:
    try:
        return checked_zone(zone)
    except ValueError as error:
        raise UsageError(f"--timezone: {error}") from error


def _checked_url(url: str | None) -> str | None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f"--base-url {url}: write an absolute http:// or https:// URL")
    return url


def _machine_zone() -> str:
    """Return the machine's zone by its IANA name: $TZ, /etc/localtime, /etc/timezone; UTC when none of them tells."""
    candidates = [os.environ.get("TZ", "").lstrip(":")]
    if _ZONE_LINK.is_symlink():
        candidates.append(str(_ZONE_LINK.resolve()).partition("zoneinfo/")[2])
    try:
        candidates.append(_ZONE_FILE.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        candidates.append("")
    for candidate in candidates:
        try:
            if candidate:
                return checked_zone(candidate)
        except ValueError:
            continue
    say("the zone of this machine is not known; UTC is taken. Name it with --timezone", color="yellow")
    return "UTC"


def _home_of(user: str) -> str | None:
    try:
        return pwd.getpwnam(user).pw_dir
    except (KeyError, ValueError):
        return None
