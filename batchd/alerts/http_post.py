"""One POST of a channel: bounded, never redirected, and clear about whether it may have arrived."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from batchd import __version__
from batchd.alerts.channel import Surroundings, Undelivered
from batchd.jobs.http.retry import retry_after

_QUOTED = 200
_READ = 4_096
_OK = range(200, 300)


def post(url: str, body: bytes, headers: Mapping[str, str], limit: timedelta, around: Surroundings) -> str:
    """Send the body and return the answer in a few words; raises Undelivered for every answer that is no 2xx.

    Nothing of the URL but its host is told: paths of webhooks are secrets.
    """
    # Here: 6 MB that a daemon without such a channel need not have.
    import httpx2  # noqa: PLC0415

    from batchd.jobs.http.trust import trusted  # noqa: PLC0415

    host = host_of(url)
    over_at = around.clock.monotonic() + limit.total_seconds()
    own = {"User-Agent": f"batchd/{__version__}"} | dict(headers)
    try:
        with (
            httpx2.Client(timeout=limit.total_seconds(), follow_redirects=False, verify=trusted()) as client,
            client.stream("POST", url, content=body, headers=own) as response,
        ):
            said = b""
            for chunk in response.iter_bytes():
                said += chunk[:_READ]
                if len(said) >= _READ or around.clock.monotonic() > over_at:
                    break  # the status is what counts, and an answer may drip for hours
            status = response.status_code
            asked = retry_after(response.headers.get("retry-after"), around.clock.now())
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
        raise Undelivered(f"{host}: no connection: {_reason(error, around)}") from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise Undelivered(f"{host}: cannot be sent: {_reason(error, around)}") from error
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise Undelivered(f"{host}: {_reason(error, around)}", may_have_gone=True) from error
    words = around.mask(" ".join(said[:_READ].decode("utf-8", "replace").split()))[:_QUOTED]
    told = f"{status} {words}".strip()
    if status in _OK:
        return f"{host} answered {told}"
    raise Undelivered(f"{host} answered {told}", retry_after=asked)


def host_of(url: str) -> str:
    """Return whom the URL asks, for messages."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "no host", parts.port
    except ValueError:
        return "no host"
    return f"{host}:{port}" if port else host


def url_problem(url: str) -> str | None:
    """Return what is wrong with a URL that is to be posted to, or None; never the URL itself."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an http:// or https:// URL"
    return None


def _reason(error: Exception, around: Surroundings) -> str:
    return around.mask(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no answer'}")[:_QUOTED]
