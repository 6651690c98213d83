"""What a channel is: settings from the config, and `send`. What it sends is a `Message`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from batchd.clock import Clock
from batchd.domain.alert import Told
from batchd.errors import BatchdError
from batchd.mail.delivery import MailSettings


class ChannelSettings(BaseModel):
    """The base of the settings of each type of channel: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a message tells: of an incident, of a run (a ping), or that the channel works (a test).

    `link` is where the dashboard shows it, where the config says how browsers reach that.
    """

    told: Told
    rule: str
    subject: str
    job: str | None
    run_id: int | None
    incident_id: int | None
    summary: str
    details: Mapping[str, Any]
    count: int
    opened_at: datetime | None
    closed_at: datetime | None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What goes at once. `id` is the same whenever this message is sent again; `store_id` says whose it is."""

    id: str
    store_id: str
    made_at: datetime
    entries: tuple[Entry, ...]


class Undelivered(BatchdError):
    """The message did not get through. `may_have_gone` says that nobody knows: it is then sent again as it was.

    `reached` are the recipients who have it already; `retry_after` is how long the other side asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        may_have_gone: bool = False,
        retry_after: timedelta | None = None,
        reached: Collection[str] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.may_have_gone = may_have_gone
        self.retry_after = retry_after
        self.reached = frozenset(reached)


class NotOurs(BatchdError):
    """Another daemon serves the channel by now; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What a channel needs to know of this try: who has the message already, and a last look before it goes.

    `confirm` raises NotOurs when another daemon has the channel by now; call it as late as possible.
    """

    reached: frozenset[str] = frozenset()
    confirm: Callable[[], None] = lambda: None


class Channel(Protocol):
    """Sends messages; for one thread at a time."""

    def send(self, message: Message, handover: Handover) -> str:
        """Send the message and return what the other side said to it, in a few words; raises Undelivered."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What channels may need of the daemon. `mask` takes secrets out of a text."""

    mail: MailSettings | None
    clock: Clock
    mask: Callable[[str], str]


S = TypeVar("S", bound=ChannelSettings)


@dataclass(frozen=True, slots=True)
class ChannelType(Generic[S]):
    """A type of channel.

    `check` returns complaints about settings, each with its key; it is told whether there is a [mail]. `is_per_job`
    says that it stands in jobs and not among the channels.
    """

    name: str
    summary: str
    settings: type[S]
    build: Callable[[S, Surroundings], Channel]
    example: str
    check: Callable[[S, bool], list[tuple[str, str]]] = lambda _settings, _has_mail: []
    is_per_job: bool = False
