"""ping: a dead-man's switch outside: each start, success and failure of a job calls a URL of Healthchecks' sort.

    https://hc-ping.com/UUID/start      a run begins
    https://hc-ping.com/UUID            it succeeded
    https://hc-ping.com/UUID/fail       it failed for good; the reason is the body

Whoever stands behind the URL notices what batchd itself cannot tell any more: that nothing comes at all.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from batchd.alerts.channel import ChannelSettings, ChannelType, Entry, Handover, Message, Surroundings
from batchd.alerts.http_post import post, url_problem
from batchd.domain.alert import Told
from batchd.jobs.params import Secret

_LIMIT = timedelta(seconds=10)
_LONGEST_BODY = 10_000


class PingSettings(ChannelSettings):
    """`url` alone stands for all three, as Healthchecks has them; each may be given by itself instead."""

    url: Secret | None = Field(None, description="`/start` and `/fail` are put behind it, as Healthchecks has them.")
    start: Secret | None = Field(None, description="Called when a run begins.")
    success: Secret | None = Field(None, description="Called when a run has succeeded.")
    fail: Secret | None = Field(None, description="Called when a run has failed for good.")

    @property
    def wants_start(self) -> bool:
        """Whether a start is told at all."""
        return self.url is not None or self.start is not None


class PingChannel:
    """See `Channel`. A message of pings has one entry."""

    def __init__(self, settings: PingSettings, around: Surroundings) -> None:
        self._settings = settings
        self._around = around

    def send(self, message: Message, handover: Handover) -> str:
        """Call the URL of what happened; nothing is called where the config has none."""
        entry = message.entries[0]
        url = url_for(self._settings, entry, message.store_id)
        if url is None:
            return "no URL for it"
        handover.confirm()
        body = entry.summary.encode()[:_LONGEST_BODY]
        return post(url, body, {"Content-Type": "text/plain; charset=utf-8"}, _LIMIT, self._around)


def url_for(settings: PingSettings, entry: Entry, store_id: str) -> str | None:
    """Return the URL; behind Healthchecks' own sort of URL the run has an id, by which starts and ends are paired.

    A test goes to `/log`, which says nothing about how the job is.
    """
    own = {
        Told.START: settings.start,
        Told.SUCCESS: settings.success,
        Told.FAIL: settings.fail,
        Told.TEST: settings.success,
    }[entry.told]
    if own is not None:
        return own.get_secret_value()
    if settings.url is None:
        return None
    parts = urlsplit(settings.url.get_secret_value())
    path = parts.path.rstrip("/") + {Told.START: "/start", Told.FAIL: "/fail", Told.TEST: "/log"}.get(entry.told, "")
    run = "" if entry.run_id is None else f"rid={uuid.uuid5(uuid.NAMESPACE_OID, f'{store_id}.{entry.run_id}')}"
    return urlunsplit(parts._replace(path=path, query="&".join(part for part in (parts.query, run) if part)))


def _check(settings: PingSettings, has_mail: bool) -> list[tuple[str, str]]:  # noqa: ARG001, FBT001 (its type's shape)
    given = {name: getattr(settings, name) for name in ("url", "start", "success", "fail")}
    found = [
        (name, wrong)
        for name, value in given.items()
        if value is not None and (wrong := url_problem(value.get_secret_value())) is not None
    ]
    if not any(given.values()):
        found.append(("", "names no URL; write one, or a table with `start`, `success` and `fail`"))
    return found


CHANNEL: ChannelType[Any] = ChannelType(
    name="ping",
    summary="Calls a URL of Healthchecks' sort at each start, success and failure of a job.",
    settings=PingSettings,
    build=PingChannel,
    example="""\
[jobs.nightly-backup]
alerts = { ping = "${HEALTHCHECKS_URL}" }
""",
    check=_check,
    is_per_job=True,
)
