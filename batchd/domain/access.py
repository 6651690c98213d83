"""Tokens of the HTTP surface: what they look like, and what their roles allow."""

from __future__ import annotations

import enum
import re
import secrets
from dataclasses import dataclass

_PREFIX = "batchd"
_WHOLE = re.compile(r"batchd_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32
_ID_BYTES = 6


class Role(enum.StrEnum):
    """What a token allows: `metrics` only /metrics, `viewer` every reading, `operator` changes as well."""

    METRICS = "metrics"
    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is shown once. `id` may be shown any time; `text` is the secret."""

    id: str
    text: str


def new_token() -> Token:
    """Return a token of 256 random bits. Its prefix lets a scanner of secrets recognise it."""
    name = secrets.token_hex(_ID_BYTES)
    return Token(name, f"{_PREFIX}_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}")


def token_id(text: str) -> str | None:
    """Return the id in a token's text; None for what is no token at all."""
    matched = _WHOLE.fullmatch(text)
    return matched[1] if matched else None
