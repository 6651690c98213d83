"""Ruby source as tokens. Whatever is not understood becomes a token all the same: nothing is lost, nothing raises."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r"(?:@@?|\$)?[A-Za-z_]\w*[?!]?")
_NUMBER = re.compile(r"\d[\d_]*(?:\.\d+)?")
_OPERATOR = re.compile(r"=>|==|!=|\|\||&&|\.\.\.?|::|<<|&\.|->|=~|\+=|[-+*/%=<>!?:.,;(){}\[\]|&^~]")
_HEREDOC = re.compile(r"<<[~-]?(['\"]?)([A-Z_]\w*)\1")
_PERCENT = re.compile(r"%([wWiIqQ]?)([\[({<|!/])")
_CLOSING = {"[": "]", "(": ")", "{": "}", "<": ">"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "0": "\0", "e": "\x1b"}


@dataclass(frozen=True, slots=True)
class Code:
    """`#{…}` inside a string."""

    text: str


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: word, label, symbol, string, words, number, op, newline, end. `start`, `stop`: places in the text."""

    kind: str
    text: str
    start: int
    stop: int
    line: int
    parts: tuple[str | Code, ...] = ()


class Lexer:
    """Makes the tokens of one source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._line = 1
        self.comments: list[Token] = []

    def tokens(self) -> list[Token]:
        """Return all tokens, the last of kind `end`."""
        found: list[Token] = []
        while self._at < len(self._source):
            token = self._next(found[-1] if found else None)
            if token is not None:
                found.append(token)
        found.append(Token("end", "", self._at, self._at, self._line))
        return found

    def _next(self, before: Token | None) -> Token | None:
        source, at = self._source, self._at
        char = source[at]
        if char == "\n":
            token = self._token("newline", at + 1)
            if source.startswith("=begin", at + 1):
                self._skip_block_comment()
            return token
        if char.isspace() or source.startswith("\\\n", at):
            self._advance(at + (2 if char == "\\" else 1))
            return None
        if char == "#":
            stop = source.find("\n", at)
            self.comments.append(self._token("comment", len(source) if stop < 0 else stop))
            return None
        return self._quoted(before) or self._plain()

    def _quoted(self, before: Token | None) -> Token | None:
        source, at = self._source, self._at
        char = source[at]
        heredoc = _HEREDOC.match(source, at)
        if heredoc and (before is None or before.kind not in {"word", "number"} or source[at - 1].isspace()):
            return self._heredoc(heredoc)
        if char in "\"'`":
            return self._string(at + 1, char, "string", interpolates=char != "'")
        if char == ":" and source[at + 1 : at + 2] in ('"', "'"):
            return self._string(at + 2, source[at + 1], "symbol", interpolates=source[at + 1] == '"')
        percent = _PERCENT.match(source, at)
        if percent and (before is None or before.kind in {"op", "newline"} or percent[1]):
            kind = "words" if percent[1].lower() in {"w", "i"} and percent[1] else "string"
            return self._string(
                percent.end(), _CLOSING.get(percent[2], percent[2]), kind, interpolates=percent[1] != "q"
            )
        return None

    def _plain(self) -> Token:
        source, at = self._source, self._at
        symbol = re.compile(r":([A-Za-z_]\w*[?!]?)").match(source, at)
        if symbol and source[at - 1 : at] != ":":
            return self._token("symbol", symbol.end(), (symbol[1],))
        word = _WORD.match(source, at)
        if word:
            is_label = source[word.end() : word.end() + 1] == ":" and source[word.end() + 1 : word.end() + 2] != ":"
            if is_label:
                return self._token("label", word.end() + 1, (word.group(),))
            return self._token("word", word.end())
        number = _NUMBER.match(source, at)
        if number:
            return self._token("number", number.end())
        operator = _OPERATOR.match(source, at)
        return self._token("op", operator.end() if operator else at + 1)

    def _string(self, at: int, closing: str, kind: str, *, interpolates: bool) -> Token:
        source = self._source
        opening = next((key for key, value in _CLOSING.items() if value == closing), "")
        parts: list[str | Code] = []
        text: list[str] = []
        depth = 0
        while at < len(source):
            char = source[at]
            if char == "\\" and at + 1 < len(source):
                text.append(_unescaped(source[at + 1], raw=not interpolates, closing=closing))
                at += 2
                continue
            if interpolates and source.startswith("#{", at):
                stop = _matching_brace(source, at + 2)
                parts += ["".join(text), Code(source[at + 2 : stop])]
                text, at = [], stop + 1
                continue
            depth += (char == opening) - (char == closing and depth > 0 and opening != "")
            if (
                char == closing
                and (depth == 0 or not opening)
                and not (opening and _still_open(text, opening, closing))
            ):
                break
            text.append(char)
            at += 1
        parts.append("".join(text))
        label = kind == "string" and source[at + 1 : at + 2] == ":" and source[at + 2 : at + 3] != ":"
        return self._token("label" if label else kind, min(at + (2 if label else 1), len(source)), tuple(parts))

    def _heredoc(self, match: re.Match[str]) -> Token:
        source = self._source
        body_start = source.find("\n", match.end())
        if body_start < 0:
            return self._token("op", match.end())
        end = re.compile(rf"^[ \t]*{match[2]}[ \t]*$", re.MULTILINE).search(source, body_start)
        stop = end.end() if end else len(source)
        body = source[body_start + 1 : end.start() if end else stop]
        # The rest of the first line is read after the body; schedules end the statement there.
        return self._token("string", stop, (body.strip(),))

    def _skip_block_comment(self) -> None:
        stop = self._source.find("\n=end", self._at)
        self.comments.append(self._token("comment", len(self._source) if stop < 0 else stop + 5))

    def _token(self, kind: str, stop: int, parts: tuple[str | Code, ...] = ()) -> Token:
        token = Token(kind, self._source[self._at : stop], self._at, stop, self._line, parts)
        self._advance(stop)
        return token

    def _advance(self, stop: int) -> None:
        self._line += self._source.count("\n", self._at, stop)
        self._at = stop


def _still_open(text: list[str], opening: str, closing: str) -> bool:
    return text.count(opening) > text.count(closing)


def _unescaped(char: str, *, raw: bool, closing: str) -> str:
    if raw:
        return char if char in (closing, "\\") else f"\\{char}"
    return _ESCAPES.get(char, char)


def _matching_brace(source: str, at: int) -> int:
    depth = 1
    while at < len(source):
        depth += (source[at] == "{") - (source[at] == "}")
        if depth == 0:
            return at
        at += 1
    return at
