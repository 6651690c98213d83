"""YAML as plain values with their lines: composed by PyYAML's safe loader, and never constructed into objects.

Aliases and merge keys are followed, within bounds: a document that unfolds into more than so many values is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from batchd.errors import UsageError
from batchd.moving.found import Findings, Place, Source
from batchd.moving.rails.erb import Erb, without_erb

_MOST_VALUES = 50_000
_MOST_DEPTH = 60
_MOST_BRACKETS = 100
_MOST_CHARACTERS = 2_000_000
_INTEGER = re.compile(r"[-+]?\d[\d_]{0,17}")
_FLOAT = re.compile(r"[-+]?(?:\d[\d_]*)?\.\d+(?:[eE][-+]?\d{1,2})?")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = {"", "~", "null", "nil"}


@dataclass(slots=True)
class Node:
    """A value (text, number, boolean, None, list or dict of nodes) and the line on which it, or its key, stands."""

    value: Any
    line: int
    tag: str = ""

    def plain(self) -> Any:
        """Return the value without lines."""
        if isinstance(self.value, dict):
            return {key: inner.plain() for key, inner in self.value.items()}
        if isinstance(self.value, list):
            return [inner.plain() for inner in self.value]
        return self.value

    def get(self, *keys: str) -> Node | None:
        """Return the first of the keys that a mapping has; None when it has none or is no mapping."""
        for key in keys:
            if isinstance(self.value, dict) and key in self.value:
                found: Node = self.value[key]
                return found
        return None

    def text(self, *keys: str) -> str:
        """Return what stands under the key as a text, a leading colon of a Ruby symbol taken away; "" for nothing."""
        found = self.get(*keys)
        if found is None or found.value is None or isinstance(found.value, dict | list):
            return ""
        return unsymboled(found.value) if isinstance(found.value, str) else str(found.plain())


@dataclass(slots=True)
class Document:
    """What was read from one source."""

    source: Source
    root: Node
    lines: list[str]
    erb: Erb
    duplicates: list[tuple[int, str]] = field(default_factory=list)
    _taken: set[int] = field(default_factory=set)

    def place(self, line: int) -> Place:
        """Return the place of a line."""
        return Place(self.source.name, line)

    def comments_above(self, line: int) -> list[str]:
        """Return the comments right above a line; none is given twice."""
        found: list[str] = []
        number = line - 1
        while number >= 1 and self.lines[number - 1].lstrip().startswith("#"):
            if number not in self._taken:
                found.insert(0, self.lines[number - 1].strip().lstrip("#").removeprefix(" "))
                self._taken.add(number)
            number -= 1
        return found

    def original(self, line: int) -> str:
        """Return the lines of an entry: the one of its key, and those that are further in."""
        first = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        depth = len(first) - len(first.lstrip())
        block = [first]
        for text in self.lines[line : line + 40]:
            if text.strip() and len(text) - len(text.lstrip()) <= depth:
                break
            block.append(text)
        return "\n".join(each for each in block if each.strip() and not each.lstrip().startswith("#"))

    def keep_rest(self, findings: Findings) -> None:
        """Keep the comments that were given to nobody, tags that steer, and keys that stood there twice."""
        for number, line in enumerate(self.lines, start=1):
            if line.lstrip().startswith("#") and number not in self._taken:
                findings.keep(self.place(number), line.strip().lstrip("#").removeprefix(" "), "a comment", "")
        for number, tag in self.erb.statements:
            if not tag.startswith("<%#"):
                findings.keep(
                    self.place(number),
                    tag,
                    "a tag that steers",
                    "CHECK: not run; what it encloses was read as it stands",
                )
        for number, key in self.duplicates:
            findings.keep(self.place(number), key, "a key that stands twice", "CHECK: the last one counts, as in Ruby")


def read_yaml(source: Source) -> Document:
    """Return the document, its documents merged into one where there are several; raises UsageError."""
    if len(source.text) > _MOST_CHARACTERS or _is_too_deep(source.text):
        raise UsageError(f"{source.name}: not YAML that batchd reads: it is too large or too deep")
    erb = without_erb(source.text)
    document = Document(source, Node({}, 1), source.text.split("\n"), erb)
    builder = _Builder(erb, document.duplicates)
    try:
        roots = [builder.node(each, 0) for each in yaml.compose_all(erb.text, Loader=yaml.SafeLoader)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source.name}:{mark.line + 1}" if mark is not None else source.name
        said = getattr(error, "problem", None) or next(iter(str(error).splitlines()), "it cannot be read")
        raise UsageError(f"{where}: not YAML: {said}", hint="a cron that begins with * needs quotes in YAML") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{source.name}: not YAML that batchd reads: {error}") from None
    if len(roots) == 1:
        document.root = roots[0]
    elif all(isinstance(root.value, dict) for root in roots):
        document.root = Node({key: node for root in roots for key, node in root.value.items()}, 1)
    return document


def _is_too_deep(text: str) -> bool:
    """Return whether brackets or dashes nest deeper than any schedule does: PyYAML would take minutes over them."""
    depth = 0
    for match in re.finditer(r"[\[{\]}]|(?:- ?){50,}|(?:\? ?){50,}", text):
        bracket = match.group()
        if len(bracket) > 1:
            if "- -" in bracket or "? ?" in bracket:
                return True
            continue
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        if depth > _MOST_BRACKETS:
            return True
    return False


def unsymboled(text: Any) -> Any:
    """Return a text without the colon of a Ruby symbol."""
    return text[1:] if isinstance(text, str) and re.match(r":\w", text) else text


class _Builder:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, erb: Erb, duplicates: list[tuple[int, str]]) -> None:
        self._erb = erb
        self._duplicates = duplicates
        self._count = 0

    def node(self, node: yaml.Node, depth: int) -> Node:
        self._count += 1
        if self._count > _MOST_VALUES or depth > _MOST_DEPTH:
            raise ValueError("it unfolds into too many values, or too deep ones")
        line = node.start_mark.line + 1
        tag = "" if node.tag.startswith("tag:yaml.org,2002:") else node.tag
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, depth), line, tag)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.node(inner, depth + 1) for inner in node.value], line, tag)
        return Node(self._scalar(node), line, tag)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merged(value_node, depth)
                continue
            found = self.node(value_node, depth + 1)
            raw = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            key = str(unsymboled(self._erb.resolved(str(raw))))
            found.line = key_node.start_mark.line + 1
            if key in own:
                self._duplicates.append((found.line, key))
            own[key] = found
        return {**{key: value for key, value in merged.items() if key not in own}, **own}

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Node]:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth + 1) if depth < _MOST_DEPTH else {}
        found: dict[str, Node] = {}
        for inner in reversed(node.value) if isinstance(node, yaml.SequenceNode) else ():
            found |= self._merged(inner, depth + 1)
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        text = self._erb.resolved(str(node.value))
        if getattr(node, "style", None) is not None or node.tag not in _PLAIN_TAGS:
            return text
        lowered = text.lower()
        if lowered in _NULLS:
            return None
        if lowered in _BOOLEANS:
            return _BOOLEANS[lowered]
        if _INTEGER.fullmatch(text):
            return int(text.replace("_", ""))
        return float(text.replace("_", "")) if _FLOAT.fullmatch(text) else text


_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value")
)


def mappings(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the entries of a mapping, or of a list of mappings that have a `name`."""
    if isinstance(node.value, dict):
        yield from node.value.items()
    elif isinstance(node.value, list):
        for number, inner in enumerate(node.value, start=1):
            yield inner.text("name") or f"job-{number}", inner
