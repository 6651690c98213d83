"""Where one SQL statement ends and the next begins, and which named parameters it has.

An own scanner, since the libraries guess: sqlparse takes statements apart inside of function bodies, sqlglot writes
them anew. This one knows only what both databases' own tools know: psql's rules (psqlscan.l: quotes, dollar quotes,
nested comments, parentheses, BEGIN ATOMIC bodies) and those of sqlite3_complete (a trigger ends with `; END;`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

_COMMENT = re.compile(r"/\*|\*/")
_SHARED = r"""
    (?P<comment>--[^\n]*)
  | (?P<open>/\*)
  | (?P<name>"(?:[^"]|"")*")
"""
_POSTGRESQL = re.compile(
    _SHARED
    + r"""
  | (?P<text>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*')
  | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
  | (?P<cast>::|:=)
  | (?P<param>:[^\W\d]\w*)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d[\w.]*|\$\d+)
  | (?P<space>\s+)
  | (?P<sign>.)
""",
    re.VERBOSE | re.DOTALL,
)
_SQLITE = re.compile(
    _SHARED
    + r"""
  | (?P<text>'(?:[^']|'')*')
  | (?P<quoted>`(?:[^`]|``)*`|\[[^\]]*\])
  | (?P<param>:[^\W\d]\w*)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d[\w.]*)
  | (?P<space>\s+)
  | (?P<sign>.)
""",
    re.VERBOSE | re.DOTALL,
)
_ROUTINES = frozenset({"FUNCTION", "PROCEDURE"})
_LOOSE_WORDS = 4
_NOTHING = frozenset({"comment", "space"})


class NotSql(ValueError):
    """A quote or comment that does not end, or what only psql understands; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL; only those of kind `param` are placeholders."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon; `line` is where it begins, `words` are its bare words in capitals."""

    tokens: tuple[Token, ...] = field(repr=False)
    line: int
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The statement as it is written."""
        return "".join(token.text for token in self.tokens)

    @property
    def first_word(self) -> str:
        """The word that says what kind of statement it is."""
        return self.words[0] if self.words else ""

    def names(self) -> frozenset[str]:
        """Return the names of its parameters; `a[low:high]` has none, for it is a slice of an array."""
        return frozenset(token.text[1:] for token, is_slice in self._params() if not is_slice)

    def for_binding(self, known: Collection[str]) -> str:
        """Return it with `:name` for the known parameters alone, every other colon escaped, as SQLAlchemy reads it."""
        params = {id(token) for token, _ in self._params() if token.text[1:] in known}
        return "".join(token.text if id(token) in params else token.text.replace(":", r"\:") for token in self.tokens)

    def _params(self) -> Iterator[tuple[Token, bool]]:
        depth = 0
        for token in self.tokens:
            if token.kind == "sign":
                depth += {"[": 1, "]": -1}.get(token.text, 0)
            elif token.kind == "param":
                yield token, depth > 0


def statements_in(sql: str, dialect: str) -> list[Statement]:
    """Return the statements of a script for `postgresql` or `sqlite`; raises NotSql."""
    found: list[Statement] = []
    ends = _TriggerEnds() if dialect == "sqlite" else _RoutineEnds()
    tokens: list[Token] = []
    for token in _tokens(sql, _SQLITE if dialect == "sqlite" else _POSTGRESQL, nested=dialect != "sqlite"):
        if token.text == ";" and token.kind == "sign" and ends.is_end(token):
            found += _statement(tokens)
            tokens = []
            ends = type(ends)()
            continue
        tokens.append(token)
        if token.kind not in _NOTHING:
            ends.see(token)
    return found + _statement(tokens)


def _statement(tokens: list[Token]) -> list[Statement]:
    """Return the statement that the tokens are, without what stands around it; none for comments alone."""
    inner = [index for index, token in enumerate(tokens) if token.kind not in _NOTHING]
    if not inner:
        return []
    kept = tuple(tokens[inner[0] : inner[-1] + 1])
    words = tuple(token.text.upper() for token in kept if token.kind == "word")
    return [Statement(kept, kept[0].line, words)]


def _tokens(sql: str, pattern: re.Pattern[str], *, nested: bool) -> Iterator[Token]:
    place, line = 0, 1
    while place < len(sql):
        match = pattern.match(sql, place)
        assert match is not None
        assert match.lastgroup is not None
        kind, end = match.lastgroup, match.end()
        if kind == "open":
            kind, end = "comment", _comment_end(sql, place, line, nested=nested)
        elif kind == "dollar":
            closing = sql.find(match[0], end)
            if closing < 0:
                raise NotSql(line, f"{match[0]} is not closed")
            kind, end = "text", closing + len(match[0])
        elif kind == "sign" and match[0] in "'\"`":
            raise NotSql(line, f"the quote {match[0]} is not closed")
        elif kind == "sign" and match[0] == "\\" and nested:
            raise NotSql(line, "a backslash command is psql's own, and no SQL")
        text = sql[place:end]
        yield Token(kind, text, line)
        line += text.count("\n")
        place = end


def _comment_end(sql: str, start: int, line: int, *, nested: bool) -> int:
    depth, place = 1, start + 2
    while depth:
        match = _COMMENT.search(sql, place)
        if match is None:
            if nested:
                raise NotSql(line, "the comment /* is not closed")
            return len(sql)  # SQLite lets the script's end close it
        place = match.end()
        if match[0] == "*/":
            depth -= 1
        elif nested:
            depth += 1
    return place


class _RoutineEnds:
    """PostgreSQL: no end within parentheses (CREATE RULE … DO (a; b)), nor within BEGIN ATOMIC … END of a routine."""

    def __init__(self) -> None:
        self._parens = 0
        self._begins = 0
        self._words: list[str] = []

    def see(self, token: Token) -> None:
        if token.kind == "sign":
            self._parens = max(0, self._parens + {"(": 1, ")": -1}.get(token.text, 0))
        if token.kind != "word":
            return
        word = token.text.upper()
        if len(self._words) < _LOOSE_WORDS:
            self._words.append(word)
        if self._words[0] != "CREATE" or not _ROUTINES & set(self._words) or self._parens:
            return
        if word == "BEGIN" or (word == "CASE" and self._begins):
            self._begins += 1
        elif word == "END" and self._begins:
            self._begins -= 1

    def is_end(self, _token: Token) -> bool:
        return not self._parens and not self._begins


class _TriggerEnds:
    """SQLite: a trigger ends only with `; END;`."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._last: tuple[str, str] = ("", "")

    def see(self, token: Token) -> None:
        text = token.text.upper()
        self._last = (self._last[1], text)
        if token.kind == "word" and len(self._words) < _LOOSE_WORDS:
            self._words.append(text)

    def is_end(self, _token: Token) -> bool:
        is_trigger = self._words[:1] == ["CREATE"] and "TRIGGER" in self._words[:3]
        return not is_trigger or self._last == (";", "END")
