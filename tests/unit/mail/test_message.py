"""Messages: their tree, their headers, and that no value can become a header of its own."""

from __future__ import annotations

import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.mail.addresses import AddressInvalid, Mailbox, parse_mailbox
from batchd.mail.headers import one_line
from batchd.mail.message import Attachment, Image, Letter, compose, list_id, message_id

_STORE = "7f3a0b0e-1111-4222-8333-444455556666"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
ANN = Mailbox("Ann", "ann", "example.com")


def letter(**changes: Any) -> Letter:
    """A letter with the fields changed."""
    fields: dict[str, Any] = {
        "sender": Mailbox("batchd", "batchd", "example.org"),
        "subject": "Report",
        "text": "Hello",
        "message_id": message_id(_STORE, 42, "example.org"),
        "date": datetime(2026, 11, 25, 7, 0, tzinfo=UTC),
        "to": (ANN,),
    }
    return Letter(**(fields | changes))


def parsed(one: Letter) -> EmailMessage:
    """The message as a mail client sees it."""
    message = BytesParser(policy=email.policy.default).parsebytes(compose(one).content)
    assert isinstance(message, EmailMessage)
    return message


def tree(part: Any) -> Any:
    """The MIME tree: a type, or a type with its parts."""
    kind = part.get_content_type()
    return (kind, [tree(inner) for inner in part.iter_parts()]) if part.is_multipart() else kind


def test_the_tree_is_what_mail_clients_expect() -> None:
    """Text alone; text or HTML; HTML with its pictures; all of it with attachments."""
    html = "<p>Hello</p>"
    files = (Attachment("rows.csv", "text/csv", b"a,b\r\n1,2\r\n"), Attachment("ä.xlsx", "application/x", b"\0\1"))
    images = (Image("chart-1", PNG), Image("chart-2", PNG))
    related = ("multipart/related", ["text/html", "image/png", "image/png"])
    assert tree(parsed(letter())) == "text/plain"
    assert tree(parsed(letter(html=html))) == ("multipart/alternative", ["text/plain", "text/html"])
    assert tree(parsed(letter(html=html, images=images))) == ("multipart/alternative", ["text/plain", related])
    whole = parsed(letter(html=html, images=images, attachments=files))
    alternative = ("multipart/alternative", ["text/plain", related])
    assert tree(whole) == ("multipart/mixed", [alternative, "text/csv", "application/x"])
    assert tree(parsed(letter(attachments=files[:1]))) == ("multipart/mixed", ["text/plain", "text/csv"])


def test_every_part_comes_out_as_it_went_in() -> None:
    """Text of any script, pictures by their ids, files with their names; all of it in seven bits and short lines."""
    text, html = "Grüße, アン\n.\n..two dots\n" + "x" * 2000, "<p>Größe €</p>" + "<b>long</b>" * 300
    one = letter(
        text=text,
        html=html,
        images=(Image("chart-1", PNG),),
        attachments=(Attachment("Umsätze.csv", "text/csv", "ä;b\r\n".encode()),),
    )
    content = compose(one).content
    assert content.isascii()
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    assert b"\n" not in content.replace(b"\r\n", b"")
    message = parsed(one)
    plain, rich = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert plain.get_content().replace("\r\n", "\n") == text + "\n"
    assert rich.get_content().replace("\r\n", "\n") == html + "\n"
    picture = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert picture["Content-ID"] == "<chart-1>"
    assert picture.get_content_disposition() == "inline"
    assert picture.get_content() == PNG
    (file,) = message.iter_attachments()
    assert file.get_filename() == "Umsätze.csv"
    assert file.get_payload(decode=True) == "ä;b\r\n".encode()


def test_headers_say_what_machines_ask_for() -> None:
    """A stable Message-ID, a date, no answers from machines, a series that people can file."""
    message = parsed(letter(list_id=list_id("daily report!", "example.org"), reply_to=(ANN,), cc=(ANN,)))
    assert message["Message-ID"] == f"<batchd.42.{_STORE}@example.org>"
    assert message["Date"].datetime == datetime(2026, 11, 25, 7, 0, tzinfo=UTC)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Id"] == "<daily-report.batchd.example.org>"
    assert message["Reply-To"] == "Ann <ann@example.com>"
    assert compose(letter()).message_id != compose(letter(message_id=message_id(_STORE, 43, "example.org"))).message_id


def test_a_bcc_is_in_the_envelope_and_nowhere_else() -> None:
    """Everybody is in the envelope once."""
    eve = Mailbox("Eve", "eve", "example.com")
    parcel = compose(letter(bcc=(eve, ANN)))
    assert parcel.recipients == ("ann@example.com", "eve@example.com")
    assert b"eve" not in parcel.content.lower()


@pytest.mark.parametrize(
    "subject", ["Größe: 5 €", "x" * 250, "a " * 140 + "b", "=?utf-8?q?=0D=0ABcc:_eve?=", "日本語" * 60, "a: b; c, d"]
)
def test_subjects_of_any_sort_are_folded_and_read_back(subject: str) -> None:
    """No line is longer than a header line may be, and the text is the same."""
    content = compose(letter(subject=subject)).content
    head = content.split(b"\r\n\r\n")[0]
    assert max(len(line) for line in head.split(b"\r\n")) <= 998
    assert str(parsed(letter(subject=subject))["Subject"]) == subject


@given(st.text(max_size=400))
def test_no_subject_becomes_a_header(text: str) -> None:
    """Whatever stands in it: the message has the headers of an ordinary one, and the subject is one line."""
    message = parsed(letter(subject=one_line(text)))
    assert message.keys() == parsed(letter()).keys()
    assert message.get_content() == "Hello\r\n"


@given(
    st.one_of(st.text(max_size=60), st.text('abcé, .<>"\\()@=?\r\n日', max_size=30)),
    st.sampled_from(["{}", "{} <ann@example.com>", '"{}" <ann@example.com>', "{}@x.org"]),
)
def test_no_address_becomes_a_header_or_a_second_address(text: str, shape: str) -> None:
    """What is accepted as one mailbox is read as that mailbox by everybody else."""
    try:
        mailbox = parse_mailbox(shape.format(text))
    except AddressInvalid:
        return  # refused: nothing is sent
    message = parsed(letter(to=(mailbox, ANN)))
    assert message.keys() == parsed(letter()).keys()
    if mailbox.local.isascii():
        assert [each.addr_spec for each in message["To"].addresses] == [mailbox.address, ANN.address]
    assert compose(letter(to=(mailbox,))).recipients == (mailbox.address,)


@pytest.mark.parametrize("subject", ["a\r\nBcc: eve@example.com", "a\nb", "tab\there", "nul\0"])
def test_a_subject_that_is_no_line_is_refused(subject: str) -> None:
    """The last line of defence, should anybody forget the first."""
    with pytest.raises(ValueError, match="Subject"):
        compose(letter(subject=subject))


def test_many_recipients_with_names_of_any_script_stay_apart() -> None:
    """Long lists are folded between addresses, never inside one (CVE-2025-1795)."""
    many = tuple(
        Mailbox(f"Jörg, der {number}. mit langem Namen 株式会社", f"j{number}", "example.com") for number in range(60)
    )
    message = parsed(letter(to=many))
    assert [each.addr_spec for each in message["To"].addresses] == [each.address for each in many]
    assert [each.display_name for each in message["To"].addresses] == [each.name for each in many]
