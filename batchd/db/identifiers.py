"""Names of tables and columns as people write them: `audit.logs`, `"Session"`, `"my ""odd"" schema"."Log"`.

A quoted name is taken as it stands. An unquoted one matches in any case, as long as only one name could be meant: where
both `session` and `"Session"` exist, somebody who writes neither in quotes is asked to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PART = re.compile(r'\s*(?:"((?:[^"\x00]|"")+)"|([^\s".;\'(),\x00]+))\s*')


@dataclass(frozen=True, slots=True)
class Name:
    """One part of a name. `quoted` says that upper and lower case were meant as written."""

    text: str
    quoted: bool

    def choose(self, existing: Iterable[str]) -> str | None:
        """Return the one existing name that is meant, or None; raises ValueError when two could be."""
        names = set(existing)
        if self.quoted:
            return self.text if self.text in names else None
        candidates = {name for name in names if name.lower() == self.text.lower()}
        if len(candidates) > 1:
            listed = ", ".join(f'"{name}"' for name in sorted(candidates))
            raise ValueError(f"{self.text} could be any of {listed}; put the one you mean into double quotes")
        return candidates.pop() if candidates else None


def parse_name(text: str) -> tuple[Name, ...]:
    """Return the parts of a dotted name; raises ValueError with advice when the text is not one."""
    parts: list[Name] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if match is None:
            raise ValueError(f'not a name: {text!r}; write table, schema.table or "Mixed Case" in double quotes')
        quoted, plain = match.groups()
        parts.append(Name(quoted.replace('""', '"'), quoted=True) if quoted is not None else Name(plain, quoted=False))
        position = match.end()
        if position == len(text):
            return tuple(parts)
        if text[position] != ".":
            raise ValueError(f"not a name: {text!r}; unexpected {text[position]!r} at character {position + 1}")
        position += 1


def written(*parts: str | None) -> str:
    """Return the parts as one dotted name that `parse_name` reads back, quoted where it must be."""
    return ".".join(_quoted_if_needed(part) for part in parts if part is not None)


def nearest(wanted: str, existing: Sequence[str]) -> str | None:
    """Return a hint that names the existing names closest to `wanted`, or None when none is close."""
    by_folded = {name.rpartition(".")[2].strip('"').lower(): name for name in existing}
    by_folded |= {name.lower(): name for name in existing}
    close = difflib.get_close_matches(wanted.lower(), by_folded, n=3, cutoff=0.6)
    names = dict.fromkeys(by_folded[name] for name in close)
    return "did you mean " + " or ".join(names) + "?" if names else None


def _quoted_if_needed(part: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", part):
        return part
    return '"' + part.replace('"', '""') + '"'
