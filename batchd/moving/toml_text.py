"""Findings as a config: TOML with comments that say where each part came from, what changed, and what to check."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchd.moving.found import Findings, FoundJob, Kept

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DOLLARS = re.compile(r"\$\$+\{?|\$\{")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_FIRST_KEYS = (
    "kind",
    "enabled",
    "schedule",
    "timezone",
    "queue",
    "priority",
    "mutex",
    "command",
    "shell",
    "url",
    "token",
)
_LAST_KEYS = ("timeout", "jitter", "start_deadline", "catch_up", "overlap", "retry")
_WIDTH = 118
_LONGEST_LINE = 100


class WithVariables(str):
    """A text whose `${VAR}` are meant for batchd; in any other the dollars are escaped."""

    __slots__ = ()


def toml_document(findings: Findings, *, version: str) -> str:
    """Return the whole config."""
    parts = [*_head(findings, version), *_sections(findings)]
    kept: list[str] = []
    for item in findings.items:
        if isinstance(item, Kept):
            kept += _kept(item)
        else:
            parts += ["", *kept, *_job(item)] if kept else ["", *_job(item)]
            kept = []
    parts += ["", *kept] if kept else []
    # Strings have control characters escaped; a comment may hold none of them in any form.
    lines = [line for part in parts for line in part.split("\n")]
    return "".join([_CONTROL.sub(_REPLACED, line) + "\n" for line in lines])


def dollars_escaped(text: str) -> str:
    """Return the text so that batchd reads it as it stands, `${` and `$$` included."""
    return _DOLLARS.sub(lambda match: match.group().replace("$", "$$"), text)


def toml_value(value: Any) -> str:
    """Return a value as TOML on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if value == value and abs(value) != float("inf") else f'"{value}"'  # noqa: PLR0124
        case WithVariables():
            return _string(str(value))
        case str():
            return _string(dollars_escaped(value))
        case Mapping():
            pairs = ", ".join(f"{_key(str(key))} = {toml_value(inner)}" for key, inner in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
    return _string(dollars_escaped(str(value)))


def comment(text: str, *, indent: str = "") -> list[str]:
    """Return the text as lines of a comment, the long ones wrapped, with a hanging indent."""
    lines: list[str] = []
    for line in text.split("\n"):
        safe = _visible(line).rstrip()
        lines += textwrap.wrap(
            safe,
            _WIDTH,
            initial_indent="# ",
            subsequent_indent=f"# {indent}",
            break_on_hyphens=False,
            break_long_words=False,
        ) or ["#"]
    return lines


def verbatim(text: str) -> list[str]:
    """Return lines of the source as a comment, each as it is."""
    return [f"# {_visible(line)}".rstrip() for line in text.rstrip("\n").split("\n")]


def setting_line(key: str, value: Any) -> str:
    """Return `key = value`; a list that is too long for a line gets a line for each part."""
    line = f"{_key(key)} = {toml_value(value)}"
    if isinstance(value, list) and len(line) > _LONGEST_LINE:
        inner = "".join(f"    {toml_value(part)},\n" for part in value)
        return f"{_key(key)} = [\n{inner}]"
    return line


def ordered_keys(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys in the order of a person's questions: what, when, how; what becomes of trouble last."""
    middle = [key for key in settings if key not in _FIRST_KEYS + _LAST_KEYS]
    return [key for key in (*_FIRST_KEYS, *middle, *_LAST_KEYS) if key in settings]


def _head(findings: Findings, version: str) -> Iterator[str]:
    read = ", ".join(f"{name} ({system})" for name, system in findings.systems.items())
    yield from comment(f"Converted by `batchd convert` {version} from {read or 'nothing'}.")
    yield from comment(
        "Look at every CHECK, which only you can know; CHANGED is where the same words mean something else here. Then: "
        "`batchd check --config FILE`, and `batchd next --config FILE` for the fire times."
    )
    for system, remarks in findings.remarks.items():
        yield "#"
        yield from comment(f"{system}:")
        for remark in remarks:
            yield from comment(f"- {remark}", indent="  ")


def _sections(findings: Findings) -> Iterator[str]:
    if findings.daemon:
        yield from ("", "[daemon]")
        for key, value in findings.daemon.items():
            yield from _origin(findings, ("daemon", key))
            yield setting_line(key, value)
    for name, settings in findings.queues.items():
        yield ""
        yield from _origin(findings, ("queues", name))
        yield f"[queues.{_key(name)}]"
        yield from (setting_line(key, value) for key, value in settings.items())


def _origin(findings: Findings, key: tuple[str, str]) -> Iterator[str]:
    for said in findings.origins.get(key, ()):
        yield from comment(said, indent="  ")


def _kept(item: Kept) -> Iterator[str]:
    if not item.original.strip():
        return
    lines = item.original.rstrip("\n").split("\n")
    short = f"{item.place}  {_visible(lines[0].strip())}"
    arrow = f"   → {item.becomes}" if item.becomes else ""
    if len(lines) == 1 and len(short) + len(arrow) <= _WIDTH:
        yield f"# {short}{arrow}"
        return
    if len(lines) == 1:
        yield f"# {short}"
    else:
        yield f"# {item.place}"
        yield from verbatim(textwrap.indent(textwrap.dedent(item.original), "    "))
    if arrow:
        yield from comment(arrow, indent="     ")


def _job(job: FoundJob) -> Iterator[str]:
    for line in job.above:
        yield from verbatim(line)
    original = job.original.strip("\n")
    if "\n" in original:
        yield f"# {job.place}"
        yield from verbatim(textwrap.indent(textwrap.dedent(original), "    "))
    else:
        yield f"# {job.place}  {_visible(original.strip())}"
    yield from _said("CHANGED", job.changes)
    yield from _said("CHECK", job.checks)
    yield f"[jobs.{_key(job.name)}]"
    yield from (setting_line(key, job.settings[key]) for key in ordered_keys(job.settings))
    for line in job.commented:
        yield from verbatim(line)


def _said(mark: str, sentences: Iterable[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from comment(f"{mark}: {sentence}", indent="  ")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(_visible(key), ensure_ascii=False)


def _string(text: str) -> str:
    is_plain = _CONTROL.search(text) is None
    if is_plain and "'" not in text and ('"' in text or "\\" in text):
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{_visible(escaped)}"'


def _visible(text: str) -> str:
    """Return the text without control characters, which TOML forbids in comments."""
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    is_surrogate = 0xD800 <= code <= 0xDFFF  # noqa: PLR2004 (alone it is no character)
    return f"\\u{0xFFFD if is_surrogate else code:04x}"
