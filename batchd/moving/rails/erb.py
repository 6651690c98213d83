"""ERB in YAML: tags become placeholders before the YAML is read, and `${VAR}` or their own text after it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from batchd.moving.ruby.syntax import Parser
from batchd.moving.toml_text import WithVariables, dollars_escaped

_TAG = re.compile(r"<%(=|-|#)?(.*?)-?%>", re.DOTALL)
_MARK = re.compile(r"erb(\d+)tag")


@dataclass(slots=True)
class Erb:
    """A text without its tags, and what they were."""

    text: str
    values: list[str] = field(default_factory=list)
    """What stands for each `<%= %>`."""
    statements: list[tuple[int, str]] = field(default_factory=list)
    """Tags that only steer (`<% if … %>`), by line."""

    def resolved(self, scalar: str) -> str:
        """Return a scalar with its placeholders replaced."""
        found = [self.values[int(match[1])] for match in _MARK.finditer(scalar) if int(match[1]) < len(self.values)]
        has_variables = any(isinstance(value, WithVariables) for value in found)

        def one(match: re.Match[str]) -> str:
            value = self.values[int(match[1])] if int(match[1]) < len(self.values) else match.group()
            return dollars_escaped(value) if has_variables and not isinstance(value, WithVariables) else value

        if not has_variables:
            return _MARK.sub(one, scalar)
        pieces, last = [], 0
        for match in _MARK.finditer(scalar):
            pieces += [dollars_escaped(scalar[last : match.start()]), one(match)]
            last = match.end()
        return WithVariables("".join([*pieces, dollars_escaped(scalar[last:])]))


def without_erb(text: str) -> Erb:
    """Return the text with a placeholder for each tag; lines stay where they are."""
    found = Erb("")

    def one(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 1
        newlines = "\n" * match.group().count("\n")
        if match[1] != "=":
            found.statements.append((line, match.group()))
            return newlines
        value = Parser(match[2].strip()).value()
        found.values.append(value if isinstance(value, str) and value else match.group())
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.values[-1] = str(value)
        return f"erb{len(found.values) - 1}tag{newlines}"

    found.text = _TAG.sub(one, text)
    return found


def is_tag(text: str) -> bool:
    """Return whether a resolved scalar still holds a tag that only running it could tell."""
    return "<%" in text


def default_of(value: str) -> str:
    """Return what a text with variables is when none of them is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) if isinstance(value, WithVariables) else value
