"""Literal values of JavaScript: strings, numbers, objects, arrays, constants of the file, process.env."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchd.moving.javascript.tokens import Token
from batchd.moving.toml_text import WithVariables

_OPENING = {"(": ")", "[": "]", "{": "}"}
_MOST_DEPTH = 40
_WORDS = {"true": True, "false": False, "null": None, "undefined": None}
_FUNCTIONS = frozenset({"async", "function", "await"})
_ENDS = frozenset({",", ")", "]", "}", ";"})


@dataclass(frozen=True, slots=True)
class Unknown:
    """What only running it could tell."""

    text: str


@dataclass(frozen=True, slots=True)
class New:
    """`new Name(…)`."""

    name: str
    args: tuple[Any, ...]


@dataclass(slots=True)
class Reader:
    """Reads values from tokens; `constants` are what `const` and its like have named."""

    source: str
    tokens: list[Token]
    constants: Mapping[str, Any]
    at: int = 0
    depth: int = field(default=0)

    @property
    def token(self) -> Token:
        """The token that stands next."""
        return self.tokens[min(self.at, len(self.tokens) - 1)]

    def arguments(self) -> list[Any]:
        """Return the arguments of a call whose opening parenthesis stands next."""
        self.at += 1
        return self._values(")")

    def value(self) -> Any:
        """Return the value that stands next, up to a comma or a closing bracket."""
        start = self.at
        self.depth += 1
        try:
            found = self._sum() if self.depth <= _MOST_DEPTH else Unknown("")
            if self.token.text in {"as", "satisfies"}:
                self._skip()
            elif self.token.text in {"??", "||"} and isinstance(found, WithVariables):
                self.at += 1
                found = self._with_default(found, self.value())
            if self.token.text not in _ENDS and self.token.kind != "end":
                self._skip()
                return Unknown(self._text(start))
            return found
        finally:
            self.depth -= 1

    def _text(self, start: int) -> str:
        first, last = self.tokens[start], self.tokens[max(start, self.at - 1)]
        return self.source[first.start : last.stop]

    def _skip(self) -> None:
        """Go to the next comma or closing bracket of this depth."""
        depth = 0
        while self.token.kind != "end":
            text = self.token.text if self.token.kind == "op" else ""
            if depth == 0 and text in _ENDS:
                return
            depth += (text in _OPENING) - (text in {")", "]", "}"})
            self.at += 1

    def _sum(self) -> Any:
        start = self.at
        found = self._atom()
        while self.token.text in {"*", "+", "-", "/"} and self.token.kind == "op":
            operator = self.token.text
            self.at += 1
            found = _computed(found, operator, self._atom())
            if isinstance(found, Unknown):
                found = Unknown(self._text(start))
        return found

    def _atom(self) -> Any:
        token, start = self.token, self.at
        self.at += 1
        match token.kind:
            case "string":
                return token.value
            case "number":
                return _number(token.text)
            case "word":
                return self._word(token, start)
        if token.text == "{":
            return self._object()
        if token.text == "[":
            return self._values("]")
        if token.text == "-" and self.token.kind == "number":
            number = self._atom()
            return -number if isinstance(number, int | float) else Unknown(self._text(start))
        if token.text == "(":
            found = self.value()
            if self.token.text == ")":
                self.at += 1
            if self.token.text == "=>":
                self._skip()
                return Unknown(self._text(start))
            return found
        self.at = start
        self._skip()
        self.at = max(self.at, start + (self.token.text not in _ENDS))
        return Unknown(self._text(start))

    def _word(self, token: Token, start: int) -> Any:
        if token.text in _WORDS:
            return _WORDS[token.text]
        if token.text == "new":
            return self._new(start)
        if token.text in _FUNCTIONS:
            self._skip()
            return Unknown(self._text(start))
        if token.text == "process" and [each.text for each in self.tokens[self.at : self.at + 3]] == [".", "env", "."]:
            name = self.tokens[min(self.at + 3, len(self.tokens) - 1)].text
            self.at += 4
            if self.token.text == "!":
                self.at += 1
            return WithVariables(f"${{{name}:-}}") if name.isidentifier() else Unknown(self._text(start))
        if self.token.text in _ENDS or self.token.kind == "end" or self.token.text in {"as", "*", "+"}:
            return self.constants.get(token.text, Unknown(token.text))
        if self.token.text == "." and self.tokens[min(self.at + 1, len(self.tokens) - 1)].kind == "word":
            member = self.tokens[self.at + 1].text
            known = self.constants.get(token.text)
            if (
                isinstance(known, dict)
                and member in known
                and self.tokens[min(self.at + 2, len(self.tokens) - 1)].text in _ENDS
            ):
                self.at += 2
                return known[member]
        self._skip()
        return Unknown(self._text(start))

    def _new(self, start: int) -> Any:
        name = self.token.text
        self.at += 1
        while self.token.text == ".":
            name = self.tokens[min(self.at + 1, len(self.tokens) - 1)].text
            self.at += 2
        if self.token.text == "<":
            while self.token.text not in {"(", ";"} and self.token.kind != "end":
                self.at += 1
        if self.token.text != "(":
            return Unknown(self._text(start))
        return New(name, tuple(self.arguments()))

    def _values(self, closing: str) -> list[Any]:
        found: list[Any] = []
        while self.token.kind != "end" and self.token.text != closing:
            before = self.at
            found.append(self.value())
            if self.token.text == ",":
                self.at += 1
            elif self.token.text != closing or self.at == before:
                break
        if self.token.text == closing:
            self.at += 1
        return found

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.token.kind != "end" and self.token.text != "}":
            before = self.at
            self._property(found)
            if self.token.text == ",":
                self.at += 1
            if self.at == before:
                self.at += 1
        self.at += 1
        return found

    def _property(self, found: dict[str, Any]) -> None:
        key_token, start = self.token, self.at
        self.at += 1
        if key_token.text == "...":
            spread = self.value()
            found.update(
                spread
                if isinstance(spread, dict)
                else {f"...{getattr(spread, 'text', spread)}": Unknown(self._text(start))}
            )
            return
        key = key_token.value if key_token.kind == "string" else key_token.text
        if self.token.text == ":":
            self.at += 1
            found[key] = self.value()
        elif self.token.text in {",", "}"}:
            found[key] = self.constants.get(key, Unknown(key))
        else:
            self._skip()
            found[key] = Unknown(self._text(start))

    def _with_default(self, variable: WithVariables, default: Any) -> Any:
        name = str(variable)[2:].partition(":")[0]
        plain = str(default) if isinstance(default, str | int | float) and not isinstance(default, bool) else ""
        return WithVariables(f"${{{name}:-{plain}}}") if "}" not in plain and "${" not in plain else variable


def _number(text: str) -> Any:
    digits = text.replace("_", "").rstrip("n")
    try:
        if digits.lower().startswith("0x"):
            return int(digits, 16)
        return int(digits) if digits.isdecimal() and len(digits) < 16 else float(digits)  # noqa: PLR2004
    except (ValueError, OverflowError):
        return Unknown(text)


def _computed(left: Any, operator: str, right: Any) -> Any:
    if operator == "+" and type(left) is str and type(right) is str:
        return left + right
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in (left, right)):
        return Unknown("")
    try:
        match operator:
            case "*":
                return left * right
            case "+":
                return left + right
            case "-":
                return left - right
        return left / right
    except (ZeroDivisionError, OverflowError):
        return Unknown("")


def constants_of(source: str, tokens: list[Token]) -> dict[str, Any]:
    """Return what `const NAME = literal` and its like name in a file, in the order of the file."""
    found: dict[str, Any] = {}
    for index in range(len(tokens) - 3):
        if tokens[index].text not in {"const", "let", "var"} or tokens[index + 1].kind != "word":
            continue
        at = index + 2
        if tokens[at].text == ":":  # a type
            while at < len(tokens) - 1 and tokens[at].text not in {"=", ";"} and tokens[at].line == tokens[index].line:
                at += 1
        if tokens[at].text == "=":
            value = Reader(source, tokens, found, at + 1).value()
            if not isinstance(value, Unknown):
                found[tokens[index + 1].text] = value
    return found
