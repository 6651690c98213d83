"""Links to a file that end: who has one needs nothing else, so it says what it opens and is signed.

    GRANT = version . run . until . token . file . signature

A grant is bound to one run's very file and to the token in whose name it was given: it dies with its time, with the
file, and with the token. It may be used again and again until then, so that a broken download can go on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

_FORM = "1"
_PURPOSE = b"batchd export link\0"
_KEY_BYTES = 32
_MOST_PARTS = 6
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Grant:
    """What a link opens, until when (Unix seconds), and in whose name it was given."""

    run_id: int
    valid_until: int
    token_id: str
    file_version: str


def signed(key: bytes, grant: Grant) -> str:
    """Return the grant as it stands in a link."""
    said = _said(grant)
    return f"{said}.{_signature(key, said)}"


def grant_of(key: bytes, written: str, now: float) -> Grant | None:
    """Return the grant; None for one that is not ours, was changed, or is over."""
    said, _, signature = written.rpartition(".")
    if len(written) > _LONGEST or not written.isascii():
        return None
    if not hmac.compare_digest(_signature(key, said).encode(), signature.encode()):
        return None
    form, *parts = said.split(".")
    if form != _FORM or len(parts) + 2 != _MOST_PARTS:
        return None
    run_id, valid_until, token_id, file_version = parts
    grant = Grant(int(run_id), int(valid_until), token_id, file_version)
    return grant if now < grant.valid_until else None


def link_key(path: Path) -> bytes:
    """Return the key, kept in a file that only its owner reads; make it when it is not there yet.

    Not in the store: whoever reads a copy of that could then make links.
    """
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(new)  # whole, or there already
            finally:
                new.unlink()
    key = path.read_bytes()
    if len(key) < _KEY_BYTES:
        raise OSError(f"{path} is no key; remove it, and a new one is made")
    return key


def _said(grant: Grant) -> str:
    assert "." not in grant.token_id
    return ".".join([_FORM, str(grant.run_id), str(grant.valid_until), grant.token_id, grant.file_version])


def _signature(key: bytes, said: str) -> str:
    digest = hmac.new(key, _PURPOSE + said.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
