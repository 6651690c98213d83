"""`--explain`: each line of the sources, what it meant there, and what it is now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchd.moving.found import Findings, FoundJob, Kept
from batchd.moving.toml_text import ordered_keys, setting_line
from batchd.moving.words import in_words

_SHOWN_APART = frozenset({"schedule", "timezone"})


@dataclass(frozen=True, slots=True)
class Explained:
    """One line of a source: `new` are lines of the config, or what becomes of it."""

    place: str
    old: str
    meaning: str
    job: str | None
    new: tuple[str, ...]
    changed: tuple[str, ...] = ()
    check: tuple[str, ...] = ()


def explained(findings: Findings) -> list[Explained]:
    """Return the lines in their order, settings of queues and of the daemon first."""
    return [
        *_sections(findings),
        *(_job(item) if isinstance(item, FoundJob) else _kept(item) for item in findings.items),
    ]


def as_text(findings: Findings) -> Iterator[str]:
    """Yield the explanation as lines for a person."""
    for system, remarks in findings.remarks.items():
        yield f"{system}: what changes for every job"
        yield from (f"  - {remark}" for remark in remarks)
        yield ""
    for each in explained(findings):
        yield each.place
        yield from _labelled("old", [*each.old.split("\n"), *([f"= {each.meaning}"] if each.meaning else [])])
        yield from _labelled("new", [*([f"[jobs.{each.job}]"] if each.job else []), *each.new])
        for changed in each.changed:
            yield from _labelled("changed", [changed])
        for check in each.check:
            yield from _labelled("check", [check])
        yield ""


def _labelled(label: str, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"  {label if number == 0 else '':8}{line}".rstrip()


def _job(job: FoundJob) -> Explained:
    schedule = job.settings.get("schedule")
    zone = job.settings.get("timezone")
    when = setting_line("schedule", schedule) if schedule else "no schedule"
    new = [f"{when}  = {in_words(schedule, zone)}"]
    new += [setting_line(key, job.settings[key]) for key in ordered_keys(job.settings) if key not in _SHOWN_APART]
    original = job.original.strip("\n")
    return Explained(str(job.place), original, job.meaning, job.name, tuple(new), tuple(job.changes), tuple(job.checks))


def _kept(item: Kept) -> Explained:
    return Explained(str(item.place), item.original, item.meaning, None, (item.becomes or "kept as a comment",))


def _sections(findings: Findings) -> Iterator[Explained]:
    for (section, key), origins in findings.origins.items():
        settings = {key: findings.daemon.get(key)} if section == "daemon" else findings.queues.get(key, {})
        name = "[daemon]" if section == "daemon" else f"[queues.{key}]"
        lines = tuple(setting_line(inner, value) for inner, value in settings.items())
        for origin in origins:
            place, _, text = origin.partition("  ")
            yield Explained(place, text, "", None, (name, *lines))
