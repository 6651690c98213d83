"""SMTP against a real server: security, logins, refusals of every sort, and a server that goes away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchd.mail.addresses import Mailbox
from batchd.mail.delivery import MailRefused, MailSettings, MailUnavailable, Outcome, Security
from batchd.mail.folder import FolderTransport
from batchd.mail.message import Letter, Parcel, compose, message_id
from batchd.mail.smtp import SmtpTransport
from tests.support.smtp_sink import PASSWORD, USER, SmtpSink

_SENDER = Mailbox("batchd", "batchd", "example.org")


def parcel(*recipients: str, text: str = "Hello\n.\n.. dots\n") -> Parcel:
    """A message to the recipients (by default to Ann)."""
    to = tuple(Mailbox("", *name.split("@")) for name in recipients or ("ann@example.com",))
    return compose(
        Letter(
            sender=_SENDER,
            subject="Hello",
            text=text,
            message_id=message_id("7f3a0b0e-1111-4222-8333-444455556666", 1, "example.org"),
            date=datetime(2026, 11, 25, tzinfo=UTC),
            to=to,
        )
    )


def settings(sink: SmtpSink, **changes: Any) -> MailSettings:
    """The settings that lead to the sink."""
    plain = MailSettings(
        sender=_SENDER,
        host="127.0.0.1",
        port=sink.port,
        security=Security(sink.config()["security"]),
        user=None,
        password=None,
        timeout=timedelta(seconds=3),
        ca_file=None,
        folder=None,
    )
    return replace(plain, **changes)


def send(to: MailSettings, what: Parcel, before_data: Callable[[], None] = lambda: None) -> Outcome:
    """Send it."""
    return SmtpTransport(to).send(what, before_data)


def test_a_message_arrives_byte_by_byte() -> None:
    """Lines of dots included; the receipt is the server's own word."""
    with SmtpSink() as sink:
        outcome = send(settings(sink), parcel())
    (received,) = sink.messages
    assert received.content == parcel().content
    assert (received.sender, received.recipients) == ("batchd@example.org", ("ann@example.com",))
    assert (outcome.accepted, outcome.receipt) == (("ann@example.com",), "250 queued as 1")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_secured_server_lets_us_in_with_its_certificate_verified(security: str, tmp_path: Path) -> None:
    """STARTTLS and TLS, with a login, against a CA of our own."""
    with SmtpSink(security, auth=security == "starttls") as sink:
        login = {"user": USER, "password": PASSWORD} if security == "starttls" else {}
        trusting = settings(sink, ca_file=Path(sink.write_ca(tmp_path)), **login)
        assert SmtpTransport(trusting).greet() == "sink.example.org"
        assert not sink.messages
        send(trusting, parcel())
    assert len(sink.messages) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_somebody_else_is_not_trusted(security: str) -> None:
    """Nothing is sent, neither the password nor the message."""
    with (
        SmtpSink(security) as sink,
        pytest.raises(MailUnavailable, match=r"certificate .* not to be trusted") as raised,
    ):
        send(settings(sink, user=USER, password=PASSWORD), parcel())
    assert "ca_file" in (raised.value.hint or "")
    assert not sink.messages


def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    """The CA is right, the host is not."""
    elsewhere = SmtpSink("starttls", names=("mail.example.org",))
    with elsewhere as sink, pytest.raises(MailUnavailable, match="not to be trusted"):
        send(settings(sink, ca_file=Path(sink.write_ca(tmp_path))), parcel())
    assert not sink.messages


def test_a_server_without_starttls_gets_nothing() -> None:
    """No fall-back to plain text."""
    with SmtpSink() as sink, pytest.raises(MailRefused, match="STARTTLS"):
        send(settings(sink, security=Security.STARTTLS), parcel())
    assert not sink.messages


def test_a_wrong_password_is_refused_for_good(tmp_path: Path) -> None:
    """And does not stand in the message."""
    with SmtpSink("starttls", auth=True) as sink, pytest.raises(MailRefused, match="the login") as raised:
        wrong = settings(sink, ca_file=Path(sink.write_ca(tmp_path)), user=USER, password="canary-wrong")
        send(wrong, parcel())
    assert "canary" not in raised.value.message


def test_each_recipient_has_an_outcome_of_its_own() -> None:
    """Accepted, refused for good, put off: the message goes to those who can get it."""
    with SmtpSink() as sink:
        sink.refuse("bob@example.com", "550 no such user")
        sink.refuse("eve@example.com", "451 greylisted, come back later")
        outcome = send(settings(sink), parcel("ann@example.com", "bob@example.com", "eve@example.com"))
    assert outcome.accepted == ("ann@example.com",)
    assert outcome.refused == {"bob@example.com": "550 no such user"}
    assert outcome.deferred == {"eve@example.com": "451 greylisted, come back later"}
    assert [message.recipients for message in sink.messages] == [("ann@example.com",)]


def test_nothing_is_sent_when_nobody_is_accepted() -> None:
    """Not even announced."""
    announced = threading.Event()
    with SmtpSink() as sink:
        sink.refuse("ann@example.com", "550 no such user")
        outcome = send(settings(sink), parcel(), announced.set)
    assert (outcome.accepted, list(outcome.refused)) == ((), ["ann@example.com"])
    assert not announced.is_set()
    assert not sink.messages


@pytest.mark.parametrize(
    ("reply", "error"),
    [("451 try later", MailUnavailable), ("554 this is spam", MailRefused), ("552 too big", MailRefused)],
)
def test_the_answer_to_the_message_counts(reply: str, error: type[Exception]) -> None:
    """4xx may be tried again, 5xx not; neither leaves a doubt."""
    with SmtpSink() as sink:
        sink.data_replies = [reply]
        with pytest.raises(error, match=reply) as raised:
            send(settings(sink), parcel())
    assert not getattr(raised.value, "in_doubt", False)


def test_a_connection_that_breaks_after_the_message_leaves_a_doubt() -> None:
    """The server may have it."""
    with SmtpSink() as sink:
        sink.drop_after_data = 1
        with pytest.raises(MailUnavailable) as raised:
            send(settings(sink), parcel())
    assert raised.value.in_doubt
    assert len(sink.messages) == 1


def test_what_is_raised_before_the_message_keeps_it_back() -> None:
    """As when the run's lease is lost at the last moment."""

    def stop() -> None:
        raise KeyError("stop")

    with SmtpSink() as sink, pytest.raises(KeyError):
        send(settings(sink), parcel(), stop)
    assert not sink.messages


def test_a_server_that_is_away_or_silent_is_unavailable() -> None:
    """Refused at once, or given up after the timeout."""
    with SmtpSink() as sink:
        there = settings(sink)
    with pytest.raises(MailUnavailable, match="refused"):
        send(there, parcel())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = replace(there, port=silent.getsockname()[1], timeout=timedelta(seconds=0.3))
        with pytest.raises(MailUnavailable, match="timed out"):
            send(mute, parcel())


def test_a_message_that_is_too_large_is_not_offered() -> None:
    """By the limit that the server announces."""
    with SmtpSink(data_size_limit=10_000) as sink, pytest.raises(MailRefused, match="10,000"):
        send(settings(sink), parcel(text="x" * 20_000))
    assert not sink.messages


def test_an_address_beyond_ascii_needs_a_server_that_knows_it() -> None:
    """With SMTPUTF8 it arrives, without it is refused."""
    with SmtpSink(enable_SMTPUTF8=True) as sink:
        send(settings(sink), parcel("jörg@example.com"))
    assert sink.messages[0].recipients == ("jörg@example.com",)
    with SmtpSink() as sink, pytest.raises(MailRefused, match="SMTPUTF8"):
        send(settings(sink), parcel("jörg@example.com"))


def test_a_folder_holds_each_message_once(tmp_path: Path) -> None:
    """Sent twice it is there once, whole, with its envelope; nothing else is left."""
    folder = tmp_path / "a" / "mail"
    transport = FolderTransport(folder)
    assert transport.greet() == "the folder will be made"
    for _ in range(2):
        transport.send(parcel("ann@example.com", "bob@example.com"), lambda: None)
    (file,) = folder.iterdir()
    assert file.suffix == ".eml"
    assert file.read_bytes().endswith(parcel("ann@example.com", "bob@example.com").content)
    assert file.read_bytes().startswith(b"X-Envelope-To: ann@example.com\r\nX-Envelope-To: bob@example.com\r\nFrom:")
    assert transport.greet() == "the folder can be written to"


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """A file is in its way."""
    (tmp_path / "file").write_text("")
    transport = FolderTransport(tmp_path / "file")
    with pytest.raises(MailUnavailable):
        transport.send(parcel(), lambda: None)
    with pytest.raises(MailUnavailable):
        transport.greet()
