"""Mail addresses as people write them, checked, with international domains in the form that every server knows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST_LOCAL = 64
_LONGEST_ADDRESS = 254
_LONGEST_LABEL = 63
_LONGEST_NAME = 200

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a1-\U0010ffff-]+"
_LOCAL = rf"{_ATOM}(?:\.{_ATOM})*"  # compiled when it is used: it is large
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_JOINERS = {"\u200c", "\u200d"}
"""Zero-width joiners: format characters that ordinary names in some scripts need."""


class AddressInvalid(ValueError):
    """The text is not an address; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address with the name that is shown beside it. `domain` is ASCII: xn--… for an international one."""

    name: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        """The address alone: what goes into the envelope."""
        return f"{self.local}@{self.domain}"

    @property
    def needs_utf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it."""
        return not self.local.isascii()

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name else self.address


def parse_mailbox(text: str) -> Mailbox:
    """Return the mailbox that `ann@example.com` or `Ann Lee <ann@example.com>` means; raises AddressInvalid."""
    written = text.strip(" ")
    name = ""
    if written.endswith(">") and "<" in written:
        name, _, written = written[:-1].rpartition("<")
    local, at, domain = written.rpartition("@")
    if not at or not local:
        raise AddressInvalid(f"{text!r} is not a mail address: write name@example.com, or Name <name@example.com>")
    if not re.fullmatch(_LOCAL, local) or not _is_printable(local):
        raise AddressInvalid(f"{text!r}: {local!r} cannot stand before the @")
    mailbox = Mailbox(_name(name, text), unicodedata.normalize("NFC", local), _domain(domain, text))
    if len(local.encode()) > _LONGEST_LOCAL or len(mailbox.address.encode()) > _LONGEST_ADDRESS:
        raise AddressInvalid(f"{text[:80]!r}… is longer than an address may be")
    return mailbox


def unique(mailboxes: Iterable[Mailbox]) -> tuple[Mailbox, ...]:
    """Return the mailboxes without those whose address came before."""
    first: dict[str, Mailbox] = {}
    for mailbox in mailboxes:
        first.setdefault(mailbox.address, mailbox)
    return tuple(first.values())


def _name(written: str, text: str) -> str:
    name = written.strip(" ")
    if quoted := _QUOTED.fullmatch(name):
        name = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if not _is_printable(name.replace(" ", "")):
        raise AddressInvalid(f"{text!r}: the name holds a line break or another character that cannot be seen")
    if len(name) > _LONGEST_NAME:
        raise AddressInvalid(f"{text[:80]!r}…: the name is longer than {_LONGEST_NAME} characters")
    return " ".join(name.split(" ")).strip()


def _domain(written: str, text: str) -> str:
    try:
        domain = written if written.isascii() else _ascii_domain(written)
    except UnicodeError as error:  # IDNAError is one
        raise AddressInvalid(f"{text!r}: {written!r} is not a domain: {error}") from error
    labels = domain.split(".")
    if not all(_LABEL.fullmatch(label) and len(label) <= _LONGEST_LABEL for label in labels):
        raise AddressInvalid(f"{text!r}: {written!r} is not a domain")
    return domain.lower()


def _ascii_domain(written: str) -> str:
    import idna  # noqa: PLC0415 (its tables take 1 MB, and most addresses need none of it)

    return idna.encode(written, uts46=True).decode("ascii")


def _is_printable(text: str) -> bool:
    """Return whether every character can be seen: no control, format, surrogate or separator characters."""
    return all(char in _JOINERS or unicodedata.category(char)[0] not in "CZ" for char in text)
