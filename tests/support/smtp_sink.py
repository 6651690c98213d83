"""A real SMTP server on loopback that keeps what it accepts, and misbehaves as a test asks.

with SmtpSink() as sink:
    sink.refuse("bob@example.com", "550 no such user")
    ...
    assert sink.messages[0].recipients == ("ann@example.com",)
"""

from __future__ import annotations

import asyncio
import email.policy
import ssl
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "batchd", "canary-mail-password-93c1"


@dataclass(frozen=True)
class Received:
    """One accepted message with its envelope."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The message, parsed."""
        parsed = BytesParser(policy=email.policy.default).parsebytes(self.content)
        assert isinstance(parsed, EmailMessage)
        return parsed


class SmtpSink:
    """See the module. `security` is "none", "starttls" or "tls"; with `auth` nobody gets in without the password."""

    def __init__(
        self,
        security: str = "none",
        *,
        auth: bool = False,
        names: tuple[str, ...] = ("127.0.0.1", "localhost"),
        **options: Any,
    ) -> None:
        self.messages: list[Received] = []
        self.connections = 0
        self.drop_after_data = 0
        self.data_replies: list[str] = []
        self.before_data_reply = threading.Event()
        self.before_data_reply.set()
        self._refusals: dict[str, str] = {}
        self._security = security
        self._options = dict(options)
        self.ca = trustme.CA()
        if security != "none":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.ca.issue_cert(*names).configure_cert(context)
            self._context: ssl.SSLContext | None = context
        else:
            self._context = None
        if auth:
            self._options |= {
                "authenticator": self._authenticate,
                "auth_required": True,
                "auth_require_tls": security == "starttls",
            }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="smtp sink", daemon=True)
        self._started = threading.Event()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.before_data_reply.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def refuse(self, recipient: str, reply: str | None) -> None:
        """Answer so to that recipient from now on; None: accept it again."""
        if reply is None:
            self._refusals.pop(recipient, None)
        else:
            self._refusals[recipient] = reply

    def config(self, **more: Any) -> dict[str, Any]:
        """The `[mail]` section that leads here."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "security": self._security,
            "from": "batchd <batchd@example.org>",
            "timeout": "5s",
            **more,
        }

    def write_ca(self, folder: Path) -> str:
        """Write the CA's certificate and return its file's name."""
        file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(file))
        return str(file)

    def of(self, recipient: str) -> list[Received]:
        """The messages that this recipient got."""
        return [message for message in self.messages if recipient in message.recipients]

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self._refusals.get(address)
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data_replies:
            return self.data_replies.pop(0)
        assert isinstance(envelope.original_content, bytes)
        self.messages.append(Received(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.original_content))
        if self.drop_after_data:
            self.drop_after_data -= 1
            assert server.transport
            server.transport.abort()
        await self._loop.run_in_executor(None, self.before_data_reply.wait)
        return f"250 queued as {len(self.messages)}"

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        right = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=data == right, handled=False)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(
                self._connection,
                "127.0.0.1",
                0,
                ssl=self._context if self._security == "tls" else None,
            )
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.05))
            self._loop.close()

    def _connection(self) -> SMTP:
        self.connections += 1
        starttls = self._security == "starttls"
        return SMTP(
            self,
            hostname="sink.example.org",
            loop=self._loop,
            tls_context=self._context if starttls else None,
            require_starttls=starttls,
            **self._options,
        )
