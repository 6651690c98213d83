"""What a reader finds in a file: jobs, queues, settings, and lines that it keeps as comments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeAlias

from batchd.domain.schedule import ScheduleError, parse_schedule

TomlValue: TypeAlias = "str | bool | int | float | list[Any] | dict[str, Any]"

NO_LIMIT = "1d"
"""The `timeout` of a job whose old system had none; batchd's own default of an hour would end long ones."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input, as it was named; `data` is what it holds, `text` the same as text."""

    name: str
    data: bytes

    @property
    def text(self) -> str:
        """The content as text; what is not UTF-8 is shown as what it would be in Latin-1, which loses nothing."""
        try:
            text = self.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = self.data.decode("latin-1")
        return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\N{SYMBOL FOR NULL}")

    @property
    def path(self) -> PurePath:
        """Its name as a path."""
        return PurePath(self.name)


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the machine `batchd check` will look at: its users, folders and programs."""

    home_of: Callable[[str], str | None]
    """The home of a user; None when there is no such user."""
    has_folder: Callable[[str], bool]
    has_program: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Options:
    """What the files cannot know: where the old system ran, and where the new one will."""

    timezone: str
    """The zone of schedules that name none and follow the machine's clock."""
    machine: Machine
    base_url: str | None = None
    """Where an application's own paths are, for Vercel."""
    app_dir: str | None = None
    """The folder of the application, where its commands run."""
    environment: str = "production"
    """Which environment of a Rails application is meant."""
    roles: frozenset[str] = frozenset()
    """Which roles of a Whenever schedule are meant; none: all."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read: a file, and a line from 1 (0: the whole file)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(slots=True)
class FoundJob:
    """A job, as it will be written: `settings` in the order of the file, beside what a person should know of it."""

    place: Place
    name: str
    original: str
    meaning: str
    settings: dict[str, TomlValue]
    changes: list[str] = field(default_factory=list)
    """Where the same words mean something else now."""
    checks: list[str] = field(default_factory=list)
    """What only a person can know."""
    above: list[str] = field(default_factory=list)
    """Comments that stood above it, without their marks."""
    commented: list[str] = field(default_factory=list)
    """Lines of TOML that are offered, but not in force."""

    def disable(self, reason: str) -> None:
        """Write it with `enabled = false`: as it is it would do the wrong thing, or nothing."""
        self.settings["enabled"] = False
        self.checks.append(f"{reason}; then take `enabled = false` away")

    def set_schedule(self, schedule: str, timezone: str | None) -> None:
        """Set when it fires; what batchd would refuse is kept as a comment, and the job has no schedule."""
        try:
            parse_schedule(schedule, timezone or "UTC")
        except ScheduleError as error:
            self.settings.pop("schedule", None)
            self.commented.append(f"schedule = {schedule!r}")
            self.checks.append(f"batchd cannot follow this schedule: {error}. Without one it runs only when triggered")
            return
        self.settings["schedule"] = schedule
        if timezone is not None:
            self.settings["timezone"] = timezone


@dataclass(frozen=True, slots=True)
class Kept:
    """A line that is no job: what it meant there, and what becomes of it; `original` is what is written down."""

    place: Place
    original: str
    meaning: str
    becomes: str


@dataclass(slots=True)
class Findings:
    """All that was found, in the order of the files."""

    items: list[FoundJob | Kept] = field(default_factory=list)
    queues: dict[str, dict[str, TomlValue]] = field(default_factory=dict)
    daemon: dict[str, TomlValue] = field(default_factory=dict)
    origins: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Where a setting of a section comes from, by section and key."""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """What holds for every job of a system, each said once."""
    systems: dict[str, str] = field(default_factory=dict)
    """Which system each file was read as."""

    @property
    def jobs(self) -> list[FoundJob]:
        """The jobs alone."""
        return [item for item in self.items if isinstance(item, FoundJob)]

    def add(self, job: FoundJob) -> FoundJob:
        """Add a job; queues that it names come to be."""
        queue = job.settings.get("queue")
        if isinstance(queue, str):
            if queue == "default":
                del job.settings["queue"]
            else:
                name = plain_name(queue, "queue")
                job.settings["queue"] = name
                self.queues.setdefault(name, {})
        self.items.append(job)
        return job

    def keep(self, place: Place, original: str, meaning: str, becomes: str = "kept as this comment") -> None:
        """Keep a line that becomes no job."""
        self.items.append(Kept(place, original, meaning, becomes))

    def set_daemon(self, key: str, value: TomlValue, origin: str) -> None:
        """Set a key of [daemon]; another file that says otherwise is told of in a comment."""
        came_from = self.origins.setdefault(("daemon", key), [])
        came_from.append(origin if self.daemon.get(key, value) == value else f"{origin} says {value!r}; CHECK which")
        self.daemon.setdefault(key, value)

    def set_queue(self, name: str, settings: Mapping[str, TomlValue], origin: str) -> None:
        """Add a queue, or to what is known of it."""
        plain = plain_name(name, "queue")
        self.queues.setdefault(plain, {}).update(settings)
        self.origins.setdefault(("queues", plain), []).append(origin)

    def remark(self, system: str, *said: str) -> None:
        """Say what holds for every job of a system; saying it again changes nothing."""
        known = self.remarks.setdefault(system, [])
        known.extend(each for each in said if each not in known)

    def with_unique_names(self) -> Findings:
        """Give jobs that were called alike names of their own, and return itself."""
        taken: set[str] = set()
        for job in self.jobs:
            wished = plain_name(job.name, "job")
            name, number = wished, 1
            while name.lower() in taken:
                number += 1
                name = f"{wished}-{number}"
            taken.add(name.lower())
            job.name = name
        return self


def plain_name(text: str, otherwise: str) -> str:
    """Return a name that needs no quotes in TOML, as near to the text as can be; `otherwise` where nothing is left."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in text.strip())
    while "--" in kept:
        kept = kept.replace("--", "-")
    return kept.strip("-_")[:60].rstrip("-_") or otherwise


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, each on one line."""
    return tuple(" ".join(part.split()) for part in text.split("\n\n"))


_WRAPPERS = frozenset({"exec", "sudo", "nice", "ionice", "env", "bash", "sh", "time", "test", "[", "then", "if"})
_WITH_ARGUMENT = frozenset({"cd", "flock", "timeout", "sleep", "source", "."})
_RUNNERS = frozenset(
    {"python", "python3", "node", "npx", "npm", "php", "ruby", "perl", "bundle", "rake", "rails", "docker", "make"}
)


def name_of_command(words: Iterable[str]) -> str:
    """Return what a person would call a job with these words: its program, and for an interpreter what it runs."""
    found: list[str] = []
    skips_next = False
    for word in words:
        base = PurePath(word).name.strip("\"'();{}")
        if not base or base.isdigit() or not base[0].isalnum() or "=" in base:
            skips_next = skips_next and base[:1] == "-"
            continue
        if skips_next or base in _WRAPPERS or base in _WITH_ARGUMENT:
            skips_next = not skips_next and base in _WITH_ARGUMENT
            continue
        found.append(PurePath(base).stem if PurePath(base).suffix in {".sh", ".py", ".rb", ".js", ".php"} else base)
        if base not in _RUNNERS or len(found) > 1:
            break
    return plain_name("-".join(found), "job")
