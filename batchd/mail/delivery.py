"""How messages leave: what a transport promises, and what can come of a try."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchd.errors import BatchdError, ExitCode
from batchd.mail.addresses import Mailbox

if TYPE_CHECKING:
    from batchd.mail.message import Parcel


class Security(enum.StrEnum):
    """How the connection to the server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class MailSettings:
    """`[mail]`. Either `folder` or `host` is set. `timeout` bounds the connect and each answer of the server."""

    sender: Mailbox
    host: str | None
    port: int
    security: Security
    user: str | None
    password: str | None = field(repr=False)
    timeout: timedelta
    ca_file: Path | None
    folder: Path | None

    @property
    def place(self) -> str:
        """Where mail goes, for people."""
        return str(self.folder) if self.folder else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of each recipient: accepted, refused for good, or put off; with the server's own words.

    `receipt` is the server's answer to the message itself; it usually holds the id in its queue.
    """

    accepted: tuple[str, ...]
    refused: Mapping[str, str]
    deferred: Mapping[str, str]
    receipt: str


class MailUnavailable(BatchdError):
    """The server could not be reached, broke off, or said "not now" (4xx). Trying again may help.

    `in_doubt` says that the message may have been accepted all the same: the connection broke while its end was sent.
    """

    exit_code = ExitCode.STORE_UNREACHABLE

    def __init__(self, message: str, *, hint: str | None = None, in_doubt: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.in_doubt = in_doubt


class MailRefused(BatchdError):
    """The server said no for good (5xx), or cannot do what is asked. Trying again does not help."""


class Transport(Protocol):
    """Sends parcels. Any thread may use it; it keeps no connection."""

    def send(self, parcel: Parcel, before_data: Callable[[], None]) -> Outcome:
        """Send the message to the parcel's recipients; raises MailUnavailable or MailRefused when none can get it.

        `before_data` is called when at least one recipient is accepted and nothing of the message is sent yet; what it
        raises ends the try, and nothing is sent.
        """
        ...

    def greet(self) -> str:
        """Go as far as possible without sending anything, and return what the other side says of itself."""
        ...
