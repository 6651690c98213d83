"""The calls in a source: what is called, on what, with which arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batchd.moving.javascript.tokens import Comment, Token, tokens
from batchd.moving.javascript.values import New, Reader, constants_of


@dataclass(frozen=True, slots=True)
class Call:
    """`target.name(args)`, or `new name(args)`; `text` is its source, with long function bodies left out."""

    target: str
    name: str
    args: list[Any]
    line: int
    text: str
    is_new: bool = False
    is_decorator: bool = False


class Script:
    """One source, taken apart."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens, self._comments = tokens(source)
        self.constants = constants_of(source, self._tokens)

    def calls(self, names: frozenset[str]) -> Iterator[Call]:
        """Yield the calls of these names, in the order of the file."""
        for index, token in enumerate(self._tokens):
            if token.kind != "word" or token.text not in names:
                continue
            opening = self._opening(index)
            before = self._tokens[index - 1].text if index else ""
            if opening is None or before == "function":
                continue
            reader = Reader(self._source, self._tokens, self.constants, opening)
            args = reader.arguments()
            yield Call(
                self._target(index),
                token.text,
                args,
                token.line,
                self._text(index, reader.at - 1),
                is_new=before == "new",
                is_decorator=before == "@",
            )

    def queue_of(self, target: str) -> str | None:
        """Return the name of the queue that a variable holds."""
        found = self.constants.get(target)
        if isinstance(found, New) and found.name == "Queue" and found.args and isinstance(found.args[0], str):
            return found.args[0]
        return None

    def comments_above(self, line: int) -> list[str]:
        """Return the comments that end right above a line."""
        found: list[str] = []
        for comment in reversed(self._comments):
            if comment.last == line - 1 and not self._has_code(comment):
                found.insert(0, comment.text)
                line = comment.first
            elif comment.last < line - 1:
                break
        return found

    def _has_code(self, comment: Comment) -> bool:
        return any(token.line == comment.first for token in self._tokens)

    def _opening(self, index: int) -> int | None:
        """Return where the call's parenthesis is, behind type arguments; None when it is no call."""
        at = index + 1
        if self._tokens[at].text == "<":
            depth, limit = 0, min(at + 40, len(self._tokens))
            while at < limit:
                depth += (self._tokens[at].text == "<") - (self._tokens[at].text == ">")
                at += 1
                if depth == 0:
                    break
        return at if at < len(self._tokens) and self._tokens[at].text == "(" else None

    def _target(self, index: int) -> str:
        """Return the word before the dot."""
        if index < 2 or self._tokens[index - 1].text not in {".", "?."}:  # noqa: PLR2004
            return ""
        before: Token = self._tokens[index - 2]
        return before.text.lstrip("#") if before.kind == "word" else ""

    def _text(self, index: int, last: int) -> str:
        first, end = self._tokens[index], self._tokens[min(last, len(self._tokens) - 1)]
        start = self._source.rfind("\n", 0, first.start) + 1
        lines = self._source[start : end.stop].split("\n")
        most = 12
        return "\n".join(lines if len(lines) <= most else [*lines[: most - 1], "…"])
