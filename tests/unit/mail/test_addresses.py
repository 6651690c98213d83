"""Addresses: what is one, what is none, and that nothing can hide in them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.mail.addresses import AddressInvalid, Mailbox, parse_mailbox, unique


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ann@example.com", "", "ann@example.com"),
        ("Ann Lee <ann@example.com>", "Ann Lee", "ann@example.com"),
        ('"Lee, Ann \\"A\\"" <ann@example.com>', 'Lee, Ann "A"', "ann@example.com"),
        ("Jörg Müller <jm@example.com>", "Jörg Müller", "jm@example.com"),
        ("Müller, Jörg <jm@example.com>", "Müller, Jörg", "jm@example.com"),
        ("a.b+tag@sub.example.co.uk", "", "a.b+tag@sub.example.co.uk"),
        ("root@localhost", "", "root@localhost"),
        ("o'neil@EXAMPLE.com", "", "o'neil@example.com"),
        ("ann@straße.example", "", "ann@xn--strae-oqa.example"),
        ("ann@bücher.example", "", "ann@xn--bcher-kva.example"),
        ("アン <ann@例え.テスト>", "アン", "ann@xn--r8jz45g.xn--zckzah"),
        ("jörg@example.com", "", "jörg@example.com"),
    ],
)
def test_addresses_as_people_write_them(text: str, name: str, address: str) -> None:
    """Names and international domains come out right; ß is not turned into ss."""
    mailbox = parse_mailbox(text)
    assert (mailbox.name, mailbox.address) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@example..com",
        "ann@-example.com",
        "ann@example.com.",
        "ann lee@example.com",
        "ann@exam ple.com",
        "ann@[127.0.0.1]",
        "a..b@example.com",
        ".ann@example.com",
        "ann@example.com, bob@example.com",
        "ann@example.com\r\nBcc: eve@example.com",
        "ann\n@example.com",
        "Ann\r\nBcc: eve@example.com <ann@example.com>",
        "Ann\u2028Lee <ann@example.com>",
        "Ann \u202emoc.live@eve <ann@example.com>",
        "ann\u200b@example.com",
        "ann@exa\u0000mple.com",
        f"{'a' * 65}@example.com",
        f"ann@{'a' * 64}.com",
        f"ann@{'.'.join(['a' * 60] * 5)}.com",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Each with a message, none with anything else than AddressInvalid."""
    with pytest.raises(AddressInvalid):
        parse_mailbox(text)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """No other error; what is accepted has no character that could end a line or an address."""
    with contextlib.suppress(AddressInvalid):
        mailbox = parse_mailbox(text)
        assert not set(mailbox.address) & set('\r\n\t\0 <>,;"')
        assert not set(mailbox.name) & set("\r\n\0")
        assert mailbox.domain.isascii()


def test_each_address_counts_once() -> None:
    """The first of two stays."""
    ann, other, bob = Mailbox("Ann", "a", "x.org"), Mailbox("Other", "a", "x.org"), Mailbox("", "b", "x.org")
    assert unique([ann, bob, other]) == (ann, bob)
