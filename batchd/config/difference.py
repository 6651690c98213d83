"""What is different between two configs: what a reload answers, and what only a restart can take over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from batchd.config.load import Config
from batchd.config.problems import Problem
from batchd.config.settings import HttpSection
from batchd.db.engine import masked
from batchd.domain.job import JobDefinition
from batchd.domain.queue import QueueLimits

_AT_ONCE = {
    "daemon": frozenset(
        {
            "timezone",
            "workers",
            "shutdown_grace",
            "queue_order",
            "imports",
            "import_path",
            "keep",
            "keep_for",
            "keep_runs",
            "keep_events",
            "keep_unread_events",
        }
    ),
    "log": frozenset({"level", "format"}),
}
"""The keys of these sections that a running daemon takes over."""

_BUT_LISTEN = frozenset(HttpSection.model_fields) - {"listen"}
"""Of `[http]`, where there was one and still is."""

_NAMED_AT_ONCE = ("queues", "databases")
"""Sections with a table for each name, all of which a running daemon takes over."""

_WHOLE_AT_ONCE = ("mail", "alerts", "exports")
_ASIDE = ("store", "databases")
"""Compared as they are connected to: a password that came from elsewhere is no text of the section."""


@dataclass(frozen=True, slots=True)
class JobChange:
    """A job that is not as it was, and the keys that differ. A secret is named, never shown."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """From one config to another. `settings` are keys it takes over at once: "log.level", "databases.app"."""

    added: tuple[str, ...]
    changed: tuple[JobChange, ...]
    removed: tuple[str, ...]
    unchanged: int
    settings: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is different."""
        return not (self.added or self.changed or self.removed or self.settings)


def difference(before: Config, after: Config) -> ConfigDifference:
    """Return what the second config has that the first has not, and the other way round."""
    old, new = ({job.name: job for job in config.jobs} for config in (before, after))
    shared = sorted(old.keys() & new.keys())
    pairs = [(name, _job_keys(before, old[name], after, new[name])) for name in shared]
    changed = tuple(JobChange(name, keys) for name, keys in pairs if keys)
    return ConfigDifference(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=changed,
        removed=tuple(sorted(old.keys() - new.keys())),
        unchanged=len(shared) - len(changed),
        settings=tuple(_settings(before, after, at_once=True)),
    )


def needs_restart(started: Config, after: Config) -> tuple[str, ...]:
    """Return the keys that differ from those the process was started with, and that only a restart takes over."""
    others = []
    if any(folder not in after.import_path for folder in started.import_path):
        others.append("daemon.import_path")  # what was added is taken over; what may have been imported stays
    if started.store != after.store:
        others.append("store")
    return (*_settings(started, after, at_once=False), *others)


def refusals(started: Config, after: Config) -> list[Problem]:
    """Return why a running daemon cannot go over to the config at all: it would be another daemon, elsewhere."""
    found = []
    if masked(started.store.url) != masked(after.store.url):
        said = "is not the store that this daemon works on, and no daemon changes its store: this needs a restart"
        found.append(after.problem(("store",), said))
    if started.state != after.state:
        said = "is not the folder that this daemon has its state in: this needs a restart"
        found.append(after.problem(("daemon", "state"), said))
    return found


def _job_keys(before: Config, old: JobDefinition, after: Config, new: JobDefinition) -> tuple[str, ...]:
    plain = [each.name for each in fields(old) if each.name not in {"name", "params"}]
    keys = [key for key in plain if getattr(old, key) != getattr(new, key)]
    # The params as the job gets them: a definition has a reference in place of each secret.
    whole_old, whole_new = before.params.get(old.name, {}), after.params.get(new.name, {})
    return (*keys, *_different(whole_old, whole_new))


def _settings(before: Config, after: Config, *, at_once: bool) -> Iterator[str]:
    """Yield the keys that differ, of those that are, or are not, taken over at once."""
    for section in type(before.settings).model_fields:
        old, new = getattr(before.settings, section), getattr(after.settings, section)
        if section in _ASIDE:
            continue
        if section in _NAMED_AT_ONCE:
            if at_once:
                yield from (f"{section}.{name}" for name in _different(old, new))
        elif section in _AT_ONCE or (section == "http" and old is not None and new is not None):
            live = _AT_ONCE.get(section, _BUT_LISTEN)
            names: Callable[[str], str] = _written(type(old))
            yield from (
                f"{section}.{names(key)}"
                for key in _different(dict(old), dict(new))
                if (key in live) is at_once and key != "state"
            )
        elif _whole(before, section) != _whole(after, section) and (section in _WHOLE_AT_ONCE) is at_once:
            yield section
    if at_once:
        yield from (f"databases.{name}" for name in _different(before.databases, after.databases))


def _whole(config: Config, section: str) -> object:
    if section == "alerts":  # but for what they know of other sections, which are told by their own names
        return replace(config.alerts, queue_limits=QueueLimits(), site=None)
    return getattr(config if section in _WHOLE_AT_ONCE else config.settings, section)


def _written(model: Any) -> Callable[[str], str]:
    return lambda key: model.model_fields[key].alias or key


def _different(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    missing = object()
    return sorted(key for key in old.keys() | new.keys() if old.get(key, missing) != new.get(key, missing))
