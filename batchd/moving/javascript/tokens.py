"""JavaScript source as tokens: enough to tell strings, comments, templates and regular expressions from code."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r"[A-Za-z_$][\w$]*|#[A-Za-z_$][\w$]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][-+]?\d+)?n?")
_OPERATOR = re.compile(r"=>|\?\?=?|\|\||&&|\?\.|\.\.\.|===?|!==?|\*\*|[-+*/%=<>!?:.,;(){}\[\]|&^~@#]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_BEFORE_REGEX = frozenset({*"(,=:[!&|?{};", "=>", "return", "typeof", "case", "&&", "||", "??"})


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: word, string, template, number, op, regex, end. `value` is what a string holds."""

    kind: str
    text: str
    start: int
    stop: int
    line: int
    value: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, without its marks."""

    first: int
    last: int
    text: str


def tokens(source: str) -> tuple[list[Token], list[Comment]]:
    """Return all tokens, the last of kind `end`, and the comments. Never raises."""
    return _Lexer(source).run()


class _Lexer:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._line = 1
        self._found: list[Token] = []
        self._comments: list[Comment] = []

    def run(self) -> tuple[list[Token], list[Comment]]:
        while self._at < len(self._source):
            self._step()
        self._found.append(Token("end", "", self._at, self._at, self._line))
        return self._found, self._comments

    def _step(self) -> None:
        source, at = self._source, self._at
        char = source[at]
        if char.isspace():
            self._advance(at + 1)
        elif source.startswith("//", at):
            stop = source.find("\n", at)
            self._comment(len(source) if stop < 0 else stop, 2, 0)
        elif source.startswith("/*", at):
            stop = source.find("*/", at + 2)
            self._comment(len(source) if stop < 0 else stop + 2, 2, 2 if stop >= 0 else 0)
        elif char in "\"'`":
            self._string(char)
        elif char == "/" and self._may_be_regex():
            self._regex()
        else:
            match = _WORD.match(source, at)
            kind = "word"
            if match is None:
                match = _NUMBER.match(source, at)
                kind = "number"
            if match is None:
                match = _OPERATOR.match(source, at)
                kind = "op"
            self._add(kind, match.end() if match else at + 1)

    def _string(self, quote: str) -> None:
        source, at = self._source, self._at + 1
        text: list[str] = []
        depth = 0
        while at < len(source):
            char = source[at]
            if char == "\\" and at + 1 < len(source):
                plain, at = _escaped(source, at + 1)
                text.append(plain)
                continue
            if quote == "`" and source.startswith("${", at):
                depth += 1
            elif quote == "`" and depth and char == "}":
                depth -= 1
            elif char == quote and not depth:
                at += 1
                break
            elif char == "\n" and quote != "`":
                break  # not closed: it is no string, and ends here
            text.append(char)
            at += 1
        value = "".join(text)
        self._add("template" if quote == "`" and "${" in value else "string", at, value)

    def _may_be_regex(self) -> bool:
        if not self._found:
            return True
        before = self._found[-1]
        return before.text in _BEFORE_REGEX and before.kind in {"op", "word"}

    def _regex(self) -> None:
        source, at, in_class = self._source, self._at + 1, False
        while at < len(source) and source[at] != "\n":
            if source[at] == "\\":
                at += 1
            elif source[at] in "[]":
                in_class = source[at] == "["
            elif source[at] == "/" and not in_class:
                match = re.compile(r"[a-z]*").match(source, at + 1)
                self._add("regex", match.end() if match else at + 1)
                return
            at += 1
        self._add("op", self._at + 1)

    def _comment(self, stop: int, head: int, tail: int) -> None:
        first = self._line
        text = self._source[self._at + head : stop - tail]
        self._advance(stop)
        lines = [line.strip().lstrip("*").strip() for line in text.split("\n")]
        self._comments.append(Comment(first, self._line, "\n".join(line for line in lines if line)))

    def _add(self, kind: str, stop: int, value: str = "") -> None:
        self._found.append(Token(kind, self._source[self._at : stop], self._at, stop, self._line, value))
        self._advance(stop)

    def _advance(self, stop: int) -> None:
        self._line += self._source.count("\n", self._at, stop)
        self._at = stop


def _escaped(source: str, at: int) -> tuple[str, int]:
    char = source[at]
    if char == "\n":
        return "", at + 1
    match = re.compile(r"u\{([0-9a-fA-F]{1,5})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})").match(source, at)
    if match:
        code = int(match[1] or match[2] or match[3], 16)
        return (chr(code) if not 0xD800 <= code <= 0xDFFF else "\N{REPLACEMENT CHARACTER}"), match.end()  # noqa: PLR2004
    return _ESCAPES.get(char, char), at + 1
