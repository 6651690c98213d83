"""Header lines in pure ASCII, folded, from values that were checked: nothing in a value can become a second header.

Written by hand and not by `email.policy`, because the standard library's refolding of address lists encodes the commas
between two addresses in some versions (CVE-2025-1795), and because we can vouch for a line that we made ourselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from email.header import Header

from batchd.mail.addresses import Mailbox

_WIDTH = 76
_LONGEST_TEXT = 300
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_FOLD = "\r\n "


def one_line(text: str) -> str:
    """Return the text as one line: runs of whitespace become one space, control characters go, long texts are cut."""
    seen = (char for char in text if char.isspace() or unicodedata.category(char) not in {"Cc", "Cs"})
    visible = " ".join("".join(seen).split())
    return visible if len(visible) <= _LONGEST_TEXT else visible[: _LONGEST_TEXT - 1] + "…"


def text_line(name: str, text: str) -> str:
    """Return an unstructured header (a subject); raises ValueError for a value that is not one line."""
    if one_line(text) != text:
        raise ValueError(f"{name}: not one line of text")
    if text.isascii() and "=?" not in text:
        return _checked(name, _folded(f"{name}:", text.split(" ")))
    return _checked(name, f"{name}: {_encoded(text, len(name) + 2)}")


def token_line(name: str, token: str) -> str:
    """Return a header whose value is machine-made ASCII and stays on one line."""
    if not token.isascii() or not token.isprintable():
        raise ValueError(f"{name}: not plain ASCII")
    return _checked(name, f"{name}: {token}")


def address_line(name: str, mailboxes: Sequence[Mailbox]) -> str:
    """Return a header with the mailboxes, one a line."""
    return _checked(name, f"{name}: " + f",{_FOLD}".join(_mailbox(mailbox) for mailbox in mailboxes))


def _mailbox(mailbox: Mailbox) -> str:
    if not mailbox.name:
        return mailbox.address
    return f"{_phrase(mailbox.name)} <{mailbox.address}>"


def _phrase(name: str) -> str:
    if not name.isascii() or "=?" in name:
        return _encoded(name, 0)
    if _ATOMS.fullmatch(name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def _encoded(text: str, taken: int) -> str:
    """Return the text as encoded words (RFC 2047), the first line shorter by `taken`."""
    name_of_that_length = "x" * max(0, taken - 2)
    return Header(text, "utf-8", maxlinelen=_WIDTH, header_name=name_of_that_length).encode(linesep="\r\n")


def _folded(head: str, words: Iterable[str]) -> str:
    lines = [head]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _WIDTH and lines[-1] != head:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)


def _checked(name: str, line: str) -> str:
    """Return the line; raises ValueError when any line of it would be read as a header of its own."""
    first, *others = line.split("\r\n")
    if not first.startswith(f"{name}: ") or not all(each.startswith(" ") and each.strip() for each in others):
        raise ValueError(f"{name}: cannot be folded")
    if any(char in line.replace("\r\n", "") for char in "\r\n\x00"):
        raise ValueError(f"{name}: holds a line break")
    return line + "\r\n"
