"""`[http]`: from the section to the settings that the surface knows."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from batchd.config.problems import Problems
from batchd.config.settings import HttpSection
from batchd.config.substitution import Substitution
from batchd.domain.surface import LOCAL_HOSTS, HttpSettings, Listen, Tcp, UnixSocket, host_of, own_hosts, parse_listen

_LONGEST_SOCKET_PATH = 107
_SHORTEST_SECRET = 16
_SITE = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
"""A host and a port, nobody's password: it stands in alerts and in what requests are compared with."""


def read_http(
    section: HttpSection | None, folder: Path, outside: Substitution, problems: Problems
) -> HttpSettings | None:
    """Return the settings, or None without a section; what is wrong becomes problems."""
    if section is None:
        return None
    listen = _listen(section, folder, problems)
    origin = _origin(section, problems)
    hosts = {host_of(host) for host in section.hosts} | LOCAL_HOSTS | own_hosts(listen)
    if origin is not None:
        hosts.add(host_of(urlsplit(origin).netloc))
    return HttpSettings(
        listen=listen,
        hosts=frozenset(hosts),
        public_origin=origin,
        trusted_proxies=frozenset(section.trusted_proxies),
        metrics_open=section.metrics == "open",
        cron_secret=_cron_secret(section, outside, problems),
        rate=section.rate,
        largest_body=section.max_body,
        session_length=section.session,
        most_listeners=section.max_listeners,
        keep_audit=section.keep_audit,
    )


def _listen(section: HttpSection, folder: Path, problems: Problems) -> Listen:
    try:
        listen = parse_listen(section.listen)
    except ValueError as error:
        problems.add(("http", "listen"), str(error))
        return Tcp("127.0.0.1", 0)
    if isinstance(listen, UnixSocket):
        path = str(folder / Path(listen.path).expanduser())
        if len(path.encode()) > _LONGEST_SOCKET_PATH:
            problems.add(("http", "listen"), f"the path of a socket has at most {_LONGEST_SOCKET_PATH} bytes")
        return UnixSocket(path)
    return listen


def _origin(section: HttpSection, problems: Problems) -> str | None:
    if section.public_url is None:
        return None
    parts = urlsplit(section.public_url)
    if (
        parts.scheme not in {"http", "https"}
        or not _SITE.fullmatch(parts.netloc)
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        problems.add(("http", "public_url"), "must be the URL of a site, without a path: https://batch.example.com")
        return None
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _cron_secret(section: HttpSection, outside: Substitution, problems: Problems) -> str | None:
    secret = section.cron_secret.get_secret_value() if section.cron_secret is not None else None
    if section.cron_secret_file is not None:
        if secret is not None:
            problems.add(("http", "cron_secret_file"), "set either `cron_secret` or `cron_secret_file`, not both")
        secret = outside.file_content(section.cron_secret_file, ("http", "cron_secret_file"))
        if secret is not None and len(secret) < _SHORTEST_SECRET:
            problems.add(("http", "cron_secret_file"), f"the secret must have at least {_SHORTEST_SECRET} characters")
    if secret is not None:
        outside.keep_secret(secret)
        if section.cron_secret is not None:
            outside.note_if_inline(("http", "cron_secret"))
    return secret


def listening_on(text: str) -> HttpSettings:
    """Return settings for a place that the command line names; raises ValueError."""
    listen = parse_listen(text)
    return HttpSettings(listen, hosts=LOCAL_HOSTS | own_hosts(listen))
