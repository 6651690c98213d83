"""What is wrong with a config: every problem at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from batchd.errors import BatchdError, ExitCode
from batchd.telemetry.masking import MASK

Path_ = tuple[str, ...]

_HEADER = re.compile(r"\s*\[\[?\s*(.+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^.\s"']+))\s*\.?""")
_LONG_TEXTS = ('"""', "'''")
_SECTION_LENGTHS = ((("jobs",), 2), (("databases",), 2), (("queues",), 2), (("alerts", "channels"), 3))
"""How much of a path names the table, where that is more than its first part."""

_LONGEST_MESSAGE = 500
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; `suggestion` is the nearest valid name for a typo."""

    file: str
    line: int | None
    section: str
    key: str | None
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f" [{self.section}]" if self.section else ""
        key = f" {self.key}:" if self.key else ""
        near = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"{place}:{where}{key} {self.message}{near}"

    def at(self, line: int | None) -> Problem:
        """Return the same problem on another line."""
        return replace(self, line=line)


class ConfigInvalid(BatchdError):
    """The config has problems; the message lists all of them, one a line."""

    exit_code = ExitCode.CONFIG_INVALID

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.section)))
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class CredentialDenied(ConfigInvalid):
    """The only thing wrong with the config is that a secret of it cannot be had here, by this user."""

    exit_code = ExitCode.NO_PERMISSION


class Locator:
    """Finds the line on which a dotted path is written; for a key that is missing, the line of its table."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path_, int] = {}
        table: Path_ = ()
        for number, line in _written_lines(text):
            if header := _HEADER.match(line):
                table = _parts(header[1])
                self._note(table, number)
            elif key := _KEY.match(line):
                self._note(table + _parts(key[1]), number)

    def line_of(self, path: Path_) -> int | None:
        """Return the line of the path, or of the nearest thing around it that is written."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None

    def _note(self, path: Path_, number: int) -> None:
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], number)


class Problems:
    """Collects problems of one file.

    With `may_lack_secrets`, what comes of a secret that this user cannot have is `withheld`, and no problem. No problem
    shows any of the `secrets`, which grow while the file is read: a variable may stand where it does not belong.
    """

    def __init__(self, file: Path, text: str, *, may_lack_secrets: bool = False) -> None:
        self.found: list[Problem] = []
        self.withheld: list[Problem] = []
        self.denied: list[Problem] = []
        self.secrets: Collection[str] = ()
        self._may_lack_secrets = may_lack_secrets
        self._lacking: set[Path_] = set()
        self._file = str(file)
        self._locator = Locator(text)
        self._faulty: set[Path_] = set()

    def add(self, path: Path_, message: str, *, names: Iterable[str] = ()) -> None:
        """Note a problem with what stands at `path`; `names` are the valid ones where it is an unknown name."""
        self._faulty.add(path)
        if path in self._lacking:
            return  # what is said of the stand-in for a secret says nothing
        near = _nearest(path[-1] if path else "", names)
        self.found.append(self.of(path, message, near))

    def add_consequences(self, found: Iterable[tuple[Path_, str]]) -> None:
        """Note problems, but none at a place where one was noted before: it may only follow from that."""
        told = frozenset(self._faulty)
        for path, message in found:
            if path not in told:
                self.add(path, message)

    def add_denied(self, path: Path_, message: str) -> None:
        """Note that this user may not read the file that `path` names."""
        self.denied.append(self.of(path, message))
        if not self._withheld(path, message):
            self.add(path, message)

    def add_absent(self, path: Path_, message: str, credential: str) -> None:
        """Note that there is no file of that name, which may be a credential that only the service has."""
        said = f"{credential} is a credential, which only the service has"
        if not self._withheld(path, said):
            self.add(path, message)

    def _withheld(self, path: Path_, message: str) -> bool:
        if self._may_lack_secrets and path:
            self.withheld.append(self.of(path, message))
            self._faulty.add(path)
            self._lacking |= {path, (*path[:-1], path[-1].removesuffix("_file"))}
        return self._may_lack_secrets and bool(path)

    def has(self, path: Path_) -> bool:
        """Return whether a problem with exactly this is noted: what follows from it need not be told."""
        return path in self._faulty

    def of(self, path: Path_, message: str, suggestion: str | None = None) -> Problem:
        """Return a problem with what stands at `path`, without noting it."""
        cut = next((length for head, length in _SECTION_LENGTHS if path[: len(head)] == head), 1)
        section, key = ".".join(path[:cut]), ".".join(path[cut:]) or None
        return Problem(
            self._file,
            self._locator.line_of(path),
            _shown(section, _LONGEST_NAME),
            key and _shown(key, _LONGEST_NAME),
            _shown(self._masked(message), _LONGEST_MESSAGE),
            suggestion,
        )

    def _masked(self, message: str) -> str:
        for secret in sorted(self.secrets, key=len, reverse=True):
            message = message.replace(secret, MASK).replace(repr(secret)[1:-1], MASK)
        return message

    def add_named(self, path: Path_, message: str, wrong: str, names: Iterable[str]) -> None:
        """Note a problem with the value `wrong`, with the nearest of the valid `names`."""
        self.add(path, message)
        self.found[-1] = replace(self.found[-1], suggestion=_nearest(wrong, names))

    def raise_if_any(self) -> None:
        """Raise ConfigInvalid when there is any problem; CredentialDenied when all are files that may not be read."""
        if self.found:
            raise (CredentialDenied if len(self.denied) == len(self.found) else ConfigInvalid)(self.found)


def _parts(dotted: str) -> Path_:
    return tuple(first or second or third for first, second, third in _PART.findall(dotted))


def _written_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, counted as TOML counts (newlines alone), but not the inside of a long text."""
    inside: str | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if inside is None:
            yield number, line
            opened = [mark for mark in _LONG_TEXTS if line.count(mark) % 2]
            inside = opened[0] if opened else None
        elif inside in line:
            inside = None


def _nearest(wrong: str, names: Iterable[str]) -> str | None:
    """Return the nearest name, or None; a huge text is no typo, and comparing it would take minutes."""
    near = get_close_matches(wrong, list(names), n=1) if len(wrong) <= _LONGEST_NAME else []
    return near[0] if near else None


def _shown(text: str, longest: int) -> str:
    """Return the text on one line, without characters that move a cursor, and not longer than a person reads."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} … ({len(text):,} characters) … {text[-longest // 4 :]}"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
