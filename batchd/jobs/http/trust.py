"""The certificates that are trusted: the system's, read once and again when they have changed.

To read the system's bundle takes as long as a hundred requests to a near server, and a client does it anew.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path

import httpx2


def trusted() -> ssl.SSLContext:
    """Return a context that verifies with the system's certificates (or SSL_CERT_FILE's); any thread may call it.

    The same one is returned until a file or folder of certificates changes, so that a daemon needs no restart for that.
    """
    named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    usual = ssl.get_default_verify_paths()
    return _read(named, tuple(_changed_ns(path) for path in (*named, usual.openssl_cafile, usual.openssl_capath)))


@functools.lru_cache(maxsize=1)
def _read(_named: tuple[str | None, ...], _changed: tuple[int | None, ...]) -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _changed_ns(path: str | None) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns if path else None
    except OSError:
        return None
