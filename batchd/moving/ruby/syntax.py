"""Statements and literal values of Ruby; what is more than a literal is an `Unknown` with its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchd.moving.ruby.tokens import Code, Lexer, Token
from batchd.moving.toml_text import WithVariables, dollars_escaped

_UNITS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_557_600,
}
_OPENERS = frozenset({"if", "unless", "case", "while", "until", "begin", "def", "class", "module", "for"})
_MODIFIERS = frozenset({"if", "unless", "while", "until"})
_BRANCHES = frozenset({"else", "elsif", "when", "rescue", "ensure", "in", "then"})
_MOST_DEPTH = 40


class Symbol(str):
    """`:name`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Duration:
    """`5.minutes`: seconds as Whenever counts them, a month having 30 days."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Span:
    """`1..5`."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """What only running it could tell."""

    text: str


@dataclass(slots=True)
class Statement:
    """One statement: a call with its arguments, or anything else (`name` is None), with its text."""

    name: str | None
    text: str
    line: int
    args: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    body: list[Statement] | None = None
    condition: str | None = None


class Parser:
    """Reads statements; `variables` are what is known by name so far."""

    def __init__(self, source: str, variables: Mapping[str, Any] | None = None, depth: int = 0) -> None:
        lexer = Lexer(source)
        self._source = source
        self._tokens = lexer.tokens()
        self.comments = lexer.comments
        self.variables: dict[str, Any] = dict(variables or {})
        self._at = 0
        self._depth = depth

    def statements(self, closing: str = "") -> list[Statement]:
        """Return the statements up to the closing word, which is eaten."""
        found: list[Statement] = []
        while self._token.kind != "end":
            if self._token.kind == "newline" or self._token.text == ";":
                self._at += 1
            elif closing and self._token.text == closing:
                self._at += 1
                break
            else:
                before = self._at
                statement = self._statement()
                if statement is not None:
                    found.append(statement)
                self._at = max(self._at, before + 1)
        return found

    def value(self) -> Any:
        """Return the literal that stands next, `+` between texts included."""
        start = self._token
        found = self._primary()
        while self._token.text == "+" and self._tokens[self._at - 1].kind != "newline":
            self._at += 1
            other = self._primary()
            if isinstance(found, str) and isinstance(other, str):
                found = _joined([found, other])
            else:
                found = Unknown(self._text(start))
        return found

    @property
    def _token(self) -> Token:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _text(self, start: Token) -> str:
        return self._source[start.start : self._tokens[max(self._at - 1, 0)].stop].strip()

    def _statement(self) -> Statement | None:
        start = self._token
        self._depth += 1
        try:
            if self._depth > _MOST_DEPTH:
                return self._rest(start)
            if start.kind == "word" and start.text in _OPENERS:
                return self._conditional(start)
            if start.kind == "word" and start.text in _BRANCHES | {"end"}:
                return self._rest(start) if start.text in _BRANCHES else None
            if start.kind == "word" and self._tokens[self._at + 1].text == "=":
                return self._assignment(start)
            if start.kind == "word" and self._tokens[self._at + 1].text != ".":
                return self._call(start)
            return self._rest(start)
        finally:
            self._depth -= 1

    def _rest(self, start: Token) -> Statement:
        """Take the line as it is; a block that it opens becomes its body."""
        while self._token.kind not in {"newline", "end"}:
            if self._token.text == "do" and self._token.kind == "word":
                self._at += 1
                body = self._block("end")
                return Statement(None, self._text(start), start.line, body=body)
            self._at += 1
        return Statement(None, self._text(start), start.line)

    def _conditional(self, start: Token) -> Statement:
        closing = self._end_on_its_line()
        if closing is not None:
            self._at = closing + 1
            return Statement(None, self._text(start), start.line)
        self._skip_line()
        condition = self._text(start)
        body = self._block("end")
        return Statement(None, self._text(start), start.line, body=body, condition=condition)

    def _end_on_its_line(self) -> int | None:
        """Return the token that closes what opens here, when it is on the same line: `def f(x) g(x) end`."""
        depth = 0
        for at in range(self._at, len(self._tokens)):
            token, before = self._tokens[at], self._tokens[at - 1]
            if token.kind in {"newline", "end"} and token.text != ";":
                return None
            if token.kind != "word":
                continue
            begins = at == self._at or before.text in {";", "=", "(", "do", "then"}
            depth += token.text == "do" or (token.text in _OPENERS and (begins or token.text not in _MODIFIERS))
            depth -= token.text == "end"
            if depth == 0:
                return at
        return None

    def _assignment(self, start: Token) -> Statement:
        self._at += 2
        value = self.value()
        self._skip_line()
        self.variables[start.text] = value
        return Statement("=", self._text(start), start.line, args=[start.text, value])

    def _call(self, start: Token) -> Statement:
        self._at += 1
        statement = Statement(start.text, "", start.line)
        in_parentheses = self._token.text == "(" and self._token.start == start.stop
        if in_parentheses:
            self._at += 1
        self._arguments(statement, ")" if in_parentheses else "")
        if self._token.text == "do" and self._token.kind == "word":
            self._at += 1
            statement.body = self._block("end")
        elif self._token.text == "{":
            self._at += 1
            statement.body = self._block("}")
        if self._token.kind not in {"newline", "end"} and self._token.text not in {"end", "}", ")", ";"}:
            rest = self._token.start
            self._skip_line()
            statement.condition = self._source[rest : self._tokens[self._at - 1].stop].strip()  # `if production`
        statement.text = self._text(start)
        if statement.name == "set" and len(statement.args) == 2:  # noqa: PLR2004 (Whenever's: `set :path, "/srv"`)
            self.variables[str(statement.args[0])] = statement.args[1]  # is read as `path`
        return statement

    def _block(self, closing: str) -> list[Statement]:
        if self._token.text == "|":
            self._skip_line()
        return self.statements(closing)

    def _arguments(self, statement: Statement, closing: str) -> None:
        while self._token.kind != "end":
            if closing and self._token.kind == "newline":
                self._at += 1
                continue
            if self._token.text in (closing, "do", ";", "if", "unless", "end", "}") or self._token.kind == "newline":
                break
            if self._token.text == "{" and self._tokens[self._at - 1].text not in {",", "(", "["}:
                break
            before = self._at
            self._argument(statement)
            if self._token.text == ",":
                self._at += 1
                self._skip_newlines()
            elif not closing or self._at == before:
                break
        if closing and self._token.text == closing:
            self._at += 1

    def _argument(self, statement: Statement) -> None:
        if self._token.kind == "label":
            key = "".join(part for part in self._token.parts if isinstance(part, str))
            self._at += 1
            self._skip_newlines()
            statement.options[key] = self.value()
            return
        found = self.value()
        if self._token.text == "=>":
            self._at += 1
            self._skip_newlines()
            statement.options[str(found)] = self.value()
        else:
            statement.args.append(found)

    def _primary(self) -> Any:
        start = self._token
        self._depth += 1
        try:
            if self._depth > _MOST_DEPTH:
                self._skip_line()
                return Unknown(self._text(start))
            found = self._atom(start)
            while self._token.text in {".", "["} and self._token.start == self._tokens[self._at - 1].stop:
                found = self._after_dot(start, found)
            if self._token.text in {"..", "..."}:
                return self._range(start, found)
            return found
        finally:
            self._depth -= 1

    def _atom(self, start: Token) -> Any:
        self._at += 1
        match start.kind:
            case "string" | "symbol":
                text = self._resolved(start)
                return Symbol(text) if start.kind == "symbol" else text
            case "words":
                return "".join(part for part in start.parts if isinstance(part, str)).split()
            case "number":
                digits = start.text.replace("_", "")
                return float(digits) if "." in digits else int(digits[:18])
            case "word":
                return self._word(start)
        if start.text == "[":
            return self._list()
        if start.text == "{":
            return self._hash()
        if start.text == "(":
            found = self.value()
            self._eat(")")
            return found
        if start.text == "-" and self._token.kind == "number":
            number = self._atom(self._token)
            return -number if isinstance(number, int | float) else Unknown(self._text(start))
        return Unknown(start.text)

    def _word(self, start: Token) -> Any:
        match start.text:
            case "true":
                return True
            case "false":
                return False
            case "nil":
                return None
            case "ENV":
                return self._env(start)
        return self.variables.get(start.text.lstrip("@"), self.variables.get(start.text, Unknown(start.text)))

    def _env(self, start: Token) -> Any:
        """Return `${NAME}` for `ENV["NAME"]`, with the default of `ENV.fetch("NAME", "default")` or `|| "default"`."""
        if self._token.text == "[":
            self._at += 1
            name, default = self.value(), None
            self._eat("]")
        elif self._token.text == "." and self._tokens[self._at + 1].text == "fetch":
            self._at += 2
            call = Statement("fetch", "", start.line)
            if self._token.text == "(":
                self._at += 1
                self._arguments(call, ")")
            name, default = (*call.args, None, None)[:2]
        else:
            return Unknown("ENV")
        if self._token.text == "||":
            self._at += 1
            default = self._primary()
        if not isinstance(name, str) or not name.isidentifier():
            return Unknown(self._text(start))
        fallback = str(default) if isinstance(default, str | int | float) and "}" not in str(default) else ""
        return WithVariables(f"${{{name}:-{fallback}}}")

    def _after_dot(self, start: Token, found: Any) -> Any:
        if self._token.text == "[":
            self._at += 1
            self.value()
            self._eat("]")
            return Unknown(self._text(start))
        self._at += 1
        name = self._token.text
        self._at += 1
        if self._token.text == "(" and self._token.start == self._tokens[self._at - 1].stop:
            self._at += 1
            self._arguments(Statement(name, "", start.line), ")")
        unit = _UNITS.get(name.removesuffix("s"))
        if unit is not None and isinstance(found, int | float):
            return Duration(int(found * unit))
        if name in {"to_s", "freeze", "strip", "to_sym"} and isinstance(found, str | int):
            return str(found)
        return Unknown(self._text(start))

    def _range(self, start: Token, found: Any) -> Any:
        excludes = self._token.text == "..."
        self._at += 1
        last = self._primary()
        if isinstance(found, int) and isinstance(last, int):
            return Span(found, last - excludes)
        return Unknown(self._text(start))

    def _list(self) -> list[Any]:
        found = Statement("[", "", 0)
        self._arguments(found, "]")
        return [*found.args, *([found.options] if found.options else [])]

    def _hash(self) -> dict[str, Any]:
        found = Statement("{", "", 0)
        self._arguments(found, "}")
        return found.options

    def _resolved(self, token: Token) -> str:
        parts: list[str] = []
        for part in token.parts:
            if isinstance(part, Code):
                value = (
                    Parser(part.text, self.variables, self._depth + 5).value() if self._depth < _MOST_DEPTH else None
                )
                known = isinstance(value, str | int | float) and not isinstance(value, bool)
                parts.append((value if isinstance(value, str) else str(value)) if known else f"#{{{part.text}}}")
            else:
                parts.append(part)
        return _joined(parts)

    def _eat(self, text: str) -> None:
        self._skip_newlines()
        if self._token.text == text:
            self._at += 1

    def _skip_newlines(self) -> None:
        while self._token.kind == "newline":
            self._at += 1

    def _skip_line(self) -> None:
        depth = 0
        while self._token.kind != "end" and not (self._token.kind == "newline" and depth == 0):
            if self._token.kind == "op" and self._token.text in ")]}":
                if depth == 0:
                    return
                depth -= 1
            depth += self._token.kind == "op" and self._token.text in "([{"
            self._at += 1


def _joined(parts: list[str]) -> str:
    """Return the texts as one; when one of them has variables of batchd, the dollars of the others are escaped."""
    if any(isinstance(part, WithVariables) for part in parts):
        return WithVariables(
            "".join(part if isinstance(part, WithVariables) else dollars_escaped(part) for part in parts)
        )
    return "".join(parts)
