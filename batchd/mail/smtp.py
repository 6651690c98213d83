"""Mail through an SMTP server, one connection a message, certificates always verified."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta

from batchd.mail.delivery import MailRefused, MailSettings, MailUnavailable, Outcome, Security
from batchd.mail.message import Parcel

_END_OF_DATA = timedelta(minutes=10)
"""How long to wait for the answer to the whole message (RFC 5321, 4.5.3.2.6): who hangs up sooner makes duplicates."""

_GO_AHEAD = 354
_HANGING_UP = 421
_PERMANENT = 500


class SmtpTransport:
    """See `Transport`."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    def send(self, parcel: Parcel, before_data: Callable[[], None]) -> Outcome:
        """Send the message in one SMTP transaction."""
        with self._connected() as client:
            self._check_size(client, parcel)
            self._begin(client, parcel)
            accepted, refused, deferred = self._offer(client, parcel)
            if not accepted:
                return Outcome((), refused, deferred, "")
            before_data()
            receipt = self._hand_over(client, parcel)
            return Outcome(accepted, refused, deferred, receipt)

    def greet(self) -> str:
        """Connect, secure, log in and say NOOP; return how the server names itself."""
        with self._connected() as client, self._understood("NOOP"):
            _require(*client.noop(), "NOOP")
            name = (client.ehlo_resp or b"").decode("ascii", "replace").splitlines()
            return name[0] if name else "it answers"

    @contextlib.contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """Yield a client that is secured and logged in; say QUIT at the end, whatever comes of it."""
        client = self._connect()
        try:
            with self._understood("EHLO"):
                client.ehlo_or_helo_if_needed()
            if self._settings.security is Security.STARTTLS:
                with self._understood("STARTTLS"):
                    client.starttls(context=self._tls())
                    client.ehlo()
            if self._settings.user is not None:
                with self._understood("the login"):
                    client.login(self._settings.user, self._settings.password or "")
            yield client
        finally:
            # What was accepted stays accepted: a QUIT that fails says nothing about it.
            with contextlib.suppress(OSError, smtplib.SMTPException):
                if client.sock is not None:
                    client.sock.settimeout(2)
                client.quit()
            client.close()

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        host, seconds = settings.host or "", settings.timeout.total_seconds()
        with self._understood("the greeting"):
            if settings.security is Security.TLS:
                return smtplib.SMTP_SSL(host, settings.port, timeout=seconds, context=self._tls())
            return smtplib.SMTP(host, settings.port, timeout=seconds)

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise MailRefused(f"[mail] ca_file {self._settings.ca_file} cannot be used: {error}") from error

    def _check_size(self, client: smtplib.SMTP, parcel: Parcel) -> None:
        limit = client.esmtp_features.get("size", "")
        if limit.isdecimal() and 0 < int(limit) < len(parcel.content):
            raise MailRefused(
                f"the message has {len(parcel.content):,} bytes, and {self._settings.place} takes {int(limit):,}",
                hint="send fewer rows, or save the attachments to a folder",
            )

    def _begin(self, client: smtplib.SMTP, parcel: Parcel) -> None:
        options = [f"SIZE={len(parcel.content)}"] if client.has_extn("size") else []
        if parcel.needs_utf8:
            if not client.has_extn("smtputf8"):
                raise MailRefused(f"{self._settings.place} does not know SMTPUTF8, which an address here needs")
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        with self._understood("MAIL FROM"):
            _require(*client.mail(parcel.sender, options), f"the sender {parcel.sender}")

    def _offer(self, client: smtplib.SMTP, parcel: Parcel) -> tuple[tuple[str, ...], dict[str, str], dict[str, str]]:
        accepted: list[str] = []
        refused: dict[str, str] = {}
        deferred: dict[str, str] = {}
        for recipient in parcel.recipients:
            with self._understood("RCPT TO"):
                code, said = client.rcpt(recipient)
            if code in {250, 251, 252}:
                accepted.append(recipient)
            elif code == _HANGING_UP:
                raise MailUnavailable(_words(code, said))
            else:
                (refused if code >= _PERMANENT else deferred)[recipient] = _words(code, said)
        return tuple(accepted), refused, deferred

    def _hand_over(self, client: smtplib.SMTP, parcel: Parcel) -> str:
        """Send the message and return the server's receipt. A connection that breaks here leaves everybody in doubt."""
        with self._understood("DATA"):
            code, said = client.docmd("DATA")
            if code != _GO_AHEAD:
                raise _answer(code, said, "DATA")
        assert client.sock is not None
        client.sock.settimeout(max(self._settings.timeout, _END_OF_DATA).total_seconds())
        with self._understood("the message", in_doubt=True):
            client.send(_stuffed(parcel.content))
            code, said = client.getreply()
            if code < 0:
                raise smtplib.SMTPServerDisconnected("an answer that is none")
            _require(code, said, "the message")
        return _words(code, said)

    @contextlib.contextmanager
    def _understood(self, step: str, *, in_doubt: bool = False) -> Iterator[None]:
        """Raise what smtplib and the socket say in batchd's words."""
        place = self._settings.place
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise MailUnavailable(
                f"the certificate of {place} is not to be trusted: {error.verify_message}",
                hint="[mail] host must be the name in the certificate; ca_file names a CA of your own",
            ) from error
        except smtplib.SMTPNotSupportedError as error:
            raise MailRefused(
                f"{place} does not offer {step}: {error}", hint="change [mail] security or user"
            ) from error
        except smtplib.SMTPResponseException as error:
            raise _answer(error.smtp_code, error.smtp_error, f"{step} at {place}") from error
        except smtplib.SMTPException as error:
            raise MailUnavailable(f"{place} broke off at {step}: {_line(error)}", in_doubt=in_doubt) from error
        except OSError as error:
            raise MailUnavailable(f"{place}: {step} failed: {_line(error)}", in_doubt=in_doubt) from error


def _require(code: int, said: bytes, step: str) -> None:
    """Raise what a negative answer means."""
    if not 200 <= code < 300:  # noqa: PLR2004 (positive completion)
        # -1 is smtplib's word for an answer that is none.
        raise _answer(code, said, step)


def _answer(code: int, said: bytes | str, step: str) -> MailUnavailable | MailRefused:
    kind = MailRefused if code >= _PERMANENT else MailUnavailable
    return kind(f"{step} was refused: {_words(code, said)}")


def _words(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return f"{code} {' '.join(text.split())}"[:300]


def _line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


def _stuffed(content: bytes) -> bytes:
    """Return the message as DATA has it: a dot at the start of a line doubled, a line with one dot at the end."""
    lines = content if content.endswith(b"\r\n") else content + b"\r\n"
    doubled = lines.replace(b"\r\n.", b"\r\n..")
    return (b"." + doubled if doubled.startswith(b".") else doubled) + b".\r\n"
