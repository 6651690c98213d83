"""Unit files: sections, continued lines, drop-ins, and the words of a command line (systemd.syntax(7))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from batchd.moving.found import Place, Source

_HEADER = re.compile(r"\[([^\]]+)\]")
_CAT_HEADER = re.compile(r"# (/\S+\.(?:timer|service|conf))")
_DROP_IN = re.compile(r"([^/]+\.(?:timer|service))\.d/[^/]+\.conf$")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}


@dataclass(frozen=True, slots=True)
class Entry:
    """One assignment; `key` without its section."""

    place: Place
    section: str
    key: str
    value: str


@dataclass(slots=True)
class Unit:
    """A timer or a service, its drop-ins included."""

    name: str
    place: Place
    entries: list[Entry] = field(default_factory=list)
    odd_lines: list[Entry] = field(default_factory=list)
    """Lines that are no assignment."""

    @property
    def stem(self) -> str:
        """Its name without the ending."""
        return PurePath(self.name).stem

    @property
    def instance(self) -> str:
        """What stands behind the @ of its name."""
        return self.stem.partition("@")[2]

    def all(self, section: str, key: str) -> list[Entry]:
        """Return the assignments of a list; an empty one forgets those before it."""
        found: list[Entry] = []
        for entry in self.entries:
            if (entry.section, entry.key) == (section, key):
                found = [*found, entry] if entry.value else []
        return found

    def last(self, section: str, key: str) -> str | None:
        """Return the last assignment's value; None when there is none or an empty one."""
        found = self.all(section, key)
        return found[-1].value if found else None


def read_units(sources: Iterable[Source]) -> dict[str, Unit]:
    """Return the units by name; drop-ins are added to theirs, after it."""
    units: dict[str, Unit] = {}
    pieces = [piece for source in sources for piece in _pieces(source)]
    pieces.sort(key=lambda piece: _DROP_IN.search(piece[0]) is not None)  # drop-ins last, else in their order
    for path, place, lines in pieces:
        match = _DROP_IN.search(path)
        name = match[1] if match else _unit_name(path, lines)
        unit = units.setdefault(name, Unit(name, place))
        _read(unit, place, lines)
    return units


def _unit_name(path: str, lines: list[str]) -> str:
    """Return the unit's name; one that came through a pipe has none, and its sections say what it is."""
    name = PurePath(path).name
    if PurePath(path).suffix in {".timer", ".service"}:
        return name
    return f"{'unit' if name == '-' else name}.{'timer' if '[Timer]' in map(str.strip, lines) else 'service'}"


def _pieces(source: Source) -> Iterator[tuple[str, Place, list[str]]]:
    """Yield the files in a source: itself, or those that `systemctl cat` has put one after the other."""
    path, first, lines = source.name, 0, list[str]()
    for number, line in enumerate(source.text.split("\n"), start=1):
        match = _CAT_HEADER.fullmatch(line.strip())
        if match:
            if any(each.strip() for each in lines):
                yield path, Place(source.name, first), lines
            path, first, lines = match[1], number, []
        else:
            lines.append(line)
    if any(each.strip() for each in lines):
        yield path, Place(source.name, first), lines


def _read(unit: Unit, place: Place, lines: list[str]) -> None:
    section, held, began = "", "", 0
    for number, line in enumerate([*lines, ""], start=place.line + 1):  # the last line may be "continued" too
        if held and line.lstrip().startswith(("#", ";")):
            continue
        stripped = held + line.strip()
        began = began if held else number
        held = ""
        if not stripped or stripped.startswith(("#", ";")):
            continue
        if stripped.endswith("\\"):
            held = stripped[:-1].rstrip() + " "
            continue
        header = _HEADER.fullmatch(stripped)
        if header:
            section = header[1]
            continue
        key, equals, value = stripped.partition("=")
        entry = Entry(Place(place.source, began), section, key.strip(), value.strip())
        (unit.entries if equals and section else unit.odd_lines).append(entry)


def words(text: str) -> list[str]:
    """Return the words of a value, quotes and escapes taken away."""
    found: list[str] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        word, position = _word(text, position)
        found.append(word)
    return found


def _word(text: str, position: int) -> tuple[str, int]:
    quote, word = "", []
    while position < len(text):
        char = text[position]
        if char == "\\" and position + 1 < len(text):
            plain, position = _escaped(text, position + 1)
            word.append(plain)
            continue
        if quote:
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif char in "\"'":
            quote = char
        elif char.isspace():
            break
        else:
            word.append(char)
        position += 1
    return "".join(word), position


def _escaped(text: str, position: int) -> tuple[str, int]:
    char = text[position]
    if char == "x" and re.fullmatch("[0-9a-fA-F]{2}", text[position + 1 : position + 3]):
        return chr(int(text[position + 1 : position + 3], 16)), position + 3
    if char in _ESCAPES:
        return _ESCAPES[char], position + 1
    return (char if char in "\"'\\" else f"\\{char}"), position + 1
