"""Whom a request's credentials are meant for, and how a URL is told and kept without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port; raises ValueError for what is no http(s) URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        raise ValueError("not an http:// or https:// URL")
    return scheme, parts.hostname.lower(), parts.port or _PORTS[scheme]


def may_have_credentials(url: str, home: str, allowed_hosts: Collection[str]) -> bool:
    """Whether the credentials for `home` may be sent to `url`: the same origin, or a host that the config names.

    A named host must keep the scheme or better it: what was meant for https never goes over http.
    """
    theirs, ours = origin_of(url), origin_of(home)
    if theirs == ours:
        return True
    return theirs[1] in {host.lower() for host in allowed_hosts} and (theirs[0] == "https" or ours[0] == "http")


def shown(url: str) -> str:
    """Return the URL for messages: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def without_query(url: str, query: Mapping[str, str]) -> str:
    """Return the URL without the parameters that the config gives, which may be secrets: for a checkpoint."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in _pairs(parts) if query.get(name) != value]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def with_query(url: str, query: Mapping[str, str]) -> str:
    """Return the URL with the parameters that it does not have yet."""
    parts = urlsplit(url)
    pairs = _pairs(parts)
    known = {name for name, _ in pairs}
    added = [(name, value) for name, value in query.items() if name not in known]
    return url if not added else urlunsplit(parts._replace(query=urlencode(pairs + added)))


def _pairs(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)
