"""What is wrong with a config: every problem at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from batchd.errors import BatchdError, ExitCode

Path_ = tuple[str, ...]

_HEADER = re.compile(r"\s*\[\[?\s*(.+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^.\s"']+))\s*\.?""")


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
        key = f" {self.key}:" if self.key else (":" if not where else "")
        near = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"{place}:{where}{key} {self.message}{near}"


class ConfigInvalid(BatchdError):
    """The config has problems; the message lists all of them, one a line."""

    exit_code = ExitCode.CONFIG_INVALID

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.section)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Locator:
    """Finds the line on which a dotted path is written; for a key that is missing, the line of its table."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path_, int] = {}
        table: Path_ = ()
        for number, line in enumerate(text.splitlines(), start=1):
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
    """Collects problems of one file."""

    def __init__(self, file: Path, text: str) -> None:
        self.found: list[Problem] = []
        self._file = str(file)
        self._locator = Locator(text)

    def add(self, path: Path_, message: str, *, names: Iterable[str] = ()) -> None:
        """Note a problem with what stands at `path`; `names` are the valid ones where it is an unknown name."""
        near = get_close_matches(path[-1] if path else "", list(names), n=1)
        self.found.append(self.of(path, message, near[0] if near else None))

    def of(self, path: Path_, message: str, suggestion: str | None = None) -> Problem:
        """Return a problem with what stands at `path`, without noting it."""
        cut = 2 if path[:1] in {("jobs",), ("databases",), ("queues",)} else 1
        section, key = ".".join(path[:cut]), ".".join(path[cut:]) or None
        return Problem(self._file, self._locator.line_of(path), section, key, message, suggestion)

    def add_named(self, path: Path_, message: str, wrong: str, names: Iterable[str]) -> None:
        """Note a problem with the value `wrong`, with the nearest of the valid `names`."""
        self.add(path, message)
        near = get_close_matches(wrong, list(names), n=1)
        if near:
            last = self.found[-1]
            self.found[-1] = Problem(last.file, last.line, last.section, last.key, last.message, near[0])

    def raise_if_any(self) -> None:
        """Raise ConfigInvalid when there is any."""
        if self.found:
            raise ConfigInvalid(self.found)


def _parts(dotted: str) -> Path_:
    return tuple(first or second or third for first, second, third in _PART.findall(dotted))
