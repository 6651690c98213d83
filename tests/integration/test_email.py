"""email: one message from params or a template; which failures are for good; what a second attempt does."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchd.domain.job import JsonObject
from batchd.errors import JobError, LeaseLost, RunInterrupted
from batchd.jobs import mailing
from batchd.jobs.kinds.email import KIND
from batchd.mail.addresses import parse_mailbox
from batchd.mail.message import Letter
from batchd.store.checkpoints import CheckpointKey, take_over
from tests.support.job_context import DirectContext
from tests.support.reporting import body, context_on, mail_to, mails
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_until


def email(context: DirectContext, **params: Any) -> JsonObject:
    """Send a mail, by default to Ann."""
    said = {"subject": "Hello {{ name }}", "text": "Dear {{ name }}", "data": {"name": "Ann"}}
    return KIND.run(KIND.params.model_validate({"to": ["ann@example.com"], **said, **params}), context)


@pytest.fixture
def context(tmp_path: Path) -> DirectContext:
    """A context whose mail goes to a folder."""
    return context_on({}, tmp_path)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between two tries take no time."""
    monkeypatch.setattr(DirectContext, "wait", lambda self, pause: self.raise_if_stopping())


def test_a_message_of_text_and_one_of_html(context: DirectContext, tmp_path: Path) -> None:
    """Values are escaped in HTML and only there; who reads text gets text."""
    data = {"name": "Ann & <Bob>"}
    email(context, data=data)
    html = '<p>Dear <b>{{ name }}</b></p><p>see <a href="https://example.com/x">here</a></p>'
    email(context_on({}, tmp_path), text=None, html=html, data=data)
    first, second = mails(tmp_path)
    assert first["Subject"] == "Hello Ann & <Bob>"
    assert body(first, "plain").strip() == "Dear Ann & <Bob>"
    assert first.get_content_type() == "text/plain"
    assert "<b>Ann &amp; &lt;Bob&gt;</b>" in body(second, "html")
    assert body(second, "plain").splitlines() == ["Dear Ann & <Bob>", "", "see here (https://example.com/x)"]
    assert first["List-Id"] is None
    assert first["Auto-Submitted"] == "auto-generated"


def test_templates_of_a_folder(context: DirectContext, tmp_path: Path) -> None:
    """`NAME.html` and `NAME.txt`, one of them or both; never a file outside of the folder."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "welcome.html").write_text(
        "{% extends 'batchd/base.html' %}{% block content %}Hi {{ name }}{% endblock %}"
    )
    (folder / "welcome.txt").write_text("Hi {{ name }} & co\n")
    (tmp_path / "outside.txt").write_text("secret")
    params: dict[str, Any] = {"text": None, "templates": str(folder)}
    email(context, template="welcome", data={"name": "<Ann>"}, **params)
    (mail,) = mails(tmp_path)
    assert "Hi &lt;Ann&gt;" in body(mail, "html")
    assert body(mail, "plain").strip() == "Hi <Ann> & co"
    for name in ("../outside", "/etc/passwd", "nothing"):
        with pytest.raises(JobError, match="there is neither") as raised:
            email(context_on({}, tmp_path), template=name, **params)
        assert not raised.value.retryable


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"to": []}, "no recipient"),
        ({"to": ["nobody"]}, "`to`: 'nobody' is not a mail address"),
        ({"cc": ["ann@example.com\nBcc: eve@example.com"]}, "`cc`: "),
        ({"subject": ""}, "no subject"),
        ({"subject": "{{ nope }}"}, "template subject: 'nope' is undefined"),
        ({"text": None}, "says nothing"),
        ({"text": "{{ 1/0 }}"}, "template text: ZeroDivisionError"),
    ],
)
def test_what_no_retry_can_help_fails_for_good(context: DirectContext, params: dict[str, Any], said: str) -> None:
    """With one sentence that says which part is wrong."""
    with pytest.raises(JobError, match=said) as raised:
        email(context, **params)
    assert not raised.value.retryable
    assert (raised.value.hint == "the names that it may use: name") == ("undefined" in said)


def test_check_finds_wrong_addresses_in_the_config() -> None:
    """Each with its key."""
    assert KIND.check
    found = KIND.check(KIND.params.model_validate({"to": ["ok@example.com", "nope"], "reply_to": ["x y@z.org"]}))
    assert [key for key, _ in found] == ["to", "reply_to"]


def test_check_finds_a_template_that_is_not_there(tmp_path: Path) -> None:
    """Neither without a folder nor in it."""
    assert KIND.check
    for folder, said in ((None, "say with `templates`"), (tmp_path, "neither hello.html nor hello.txt")):
        ((key, message),) = KIND.check(KIND.params.model_validate({"template": "hello", "templates": folder}))
        assert (key, said in message) == ("template", True), message
    (tmp_path / "hello.txt").write_text("Hello")
    assert KIND.check(KIND.params.model_validate({"template": "hello", "templates": tmp_path})) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.text(max_size=80), st.text(max_size=80))
def test_nothing_that_people_typed_becomes_a_header(tmp_path: Path, subject: str, text: str) -> None:
    """Whatever the data are, the message has the headers and the recipients of an ordinary one."""
    folder = tmp_path / "mail"
    for file in folder.glob("*") if folder.exists() else ():
        file.unlink()
    email(context_on({}, tmp_path), subject="s {{ s }}", text="{{ t }}", data={"s": subject, "t": text})
    (mail,) = mails(tmp_path)
    expected = "X-Envelope-To From To Subject Date Message-ID Auto-Submitted X-Auto-Response-Suppress X-Mailer"
    plain = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
    assert sorted(mail.keys()) == sorted([*expected.split(), *plain])
    assert mail.get_all("X-Envelope-To") == ["ann@example.com"]


def test_a_dry_run_sends_and_records_nothing(context: DirectContext, tmp_path: Path) -> None:
    """But fills everything in."""
    assert email(context, dry_run=True) == {"subject": "Hello Ann", "recipients": 1, "dry_run": True}
    assert not (tmp_path / "mail").exists()


def test_a_second_attempt_after_the_mail_was_accepted_sends_nothing(tmp_path: Path) -> None:
    """The record is there before the run's ending; the result is that of the first."""
    with SmtpSink() as sink:
        first = context_on({}, tmp_path, mail=mail_to(None, sink))
        result = email(first)
        assert email(first.next_attempt()) == result
        assert email(first.next_attempt(fence=9)) == result
    assert len(sink.messages) == 1


def test_an_attempt_that_died_while_it_sent_leaves_a_doubt_and_the_same_id(tmp_path: Path) -> None:
    """The next one says so, and sends again under the same Message-ID."""
    with SmtpSink() as sink:
        first = context_on({}, tmp_path, mail=mail_to(None, sink))
        sink.drop_after_data = 1
        with pytest.raises(JobError) as raised:
            email(first)
        assert raised.value.retryable
        second = first.next_attempt()
        email(second)
    assert "mail.in_doubt" in second.log.events("warning")
    assert len(sink.messages) == 2
    assert len({message.message["Message-ID"] for message in sink.messages}) == 1


def test_a_clear_no_leaves_no_doubt(tmp_path: Path) -> None:
    """4xx to the message: tried again, now and later, without a warning of duplicates."""
    with SmtpSink() as sink:
        sink.data_replies = ["451 later"] * 3
        first = context_on({}, tmp_path, mail=mail_to(None, sink))
        with pytest.raises(JobError, match="451 later") as raised:
            email(first)
        assert raised.value.retryable
        assert first.log.events("warning") == ["mail.retried", "mail.retried"]
        second = first.next_attempt()
        email(second)
    assert second.log.events("warning") == []
    assert len(sink.messages) == 1


def test_recipients_who_were_put_off_get_the_mail_later_and_alone(tmp_path: Path) -> None:
    """Who has it does not get it again; who was refused for good fails the run, until a person retries it."""
    with SmtpSink() as sink:
        sink.refuse("bob@example.com", "451 greylisted")
        sink.refuse("eve@example.com", "550 no such user")
        params = {"to": ["ann@example.com", "bob@example.com", "eve@example.com"]}
        first = context_on({}, tmp_path, mail=mail_to(None, sink))
        with pytest.raises(JobError, match=r"bob@example\.com was put off") as raised:
            email(first, **params)
        assert raised.value.retryable
        sink.refuse("bob@example.com", None)
        sink.refuse("eve@example.com", None)
        second = first.next_attempt()
        with pytest.raises(JobError, match=r"eve@example.com was refused \(550 no such user\); 2 recipients") as ended:
            email(second, **params)
        by_hand = email(second.next_attempt(), **params)
    assert not ended.value.retryable
    assert ended.value.result is not None
    assert ended.value.result["mail"]["refused"] == {"eve@example.com": "550 no such user"}
    assert by_hand["mail"]["accepted"] == 3  # type: ignore[index,call-overload]
    assert [message.recipients[0] for message in sink.messages] == [
        "ann@example.com",
        "bob@example.com",
        "eve@example.com",
    ]


def test_a_server_that_is_away_is_tried_again(tmp_path: Path) -> None:
    """In this attempt and in later ones."""
    with SmtpSink() as sink:
        away = mail_to(None, sink)
    context = context_on({}, tmp_path, mail=away)
    with pytest.raises(JobError, match="refused") as raised:
        email(context)
    assert raised.value.retryable
    assert context.log.events("warning") == ["mail.retried"] * 2


def test_an_attempt_that_lost_its_run_sends_nothing(tmp_path: Path) -> None:
    """It finds out at the last moment before the message."""
    with SmtpSink() as sink:
        slow = context_on({}, tmp_path, mail=mail_to(None, sink))
        posting = mailing.Mailing(slow)
        assert slow.store
        take_over(slow.store, CheckpointKey(slow.store_id, slow.run_id, fence=slow.fence + 1))
        letter = mailing.composed(_letter())
        with pytest.raises(LeaseLost):
            posting.post(letter, {})
    assert not sink.messages


def test_a_stop_before_the_message_keeps_it_back(tmp_path: Path) -> None:
    """Told to stop while it talks to the server, it says goodbye; the next attempt sends."""
    with SmtpSink() as sink:
        context = context_on({}, tmp_path, mail=mail_to(None, sink), stop_at_check=1)
        with pytest.raises(RunInterrupted):
            email(context)
        assert not sink.messages
        second = context.next_attempt()
        email(second)
    assert len(sink.messages) == 1
    assert second.log.events("warning") == []


def test_a_store_that_is_away_after_the_mail_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is tried again until it is written: the mail is not sent twice."""
    with SmtpSink() as sink:
        context = context_on({}, tmp_path, mail=mail_to(None, sink))
        assert context.store
        broken = context.store.engine.url.database
        assert broken
        aside = Path(broken).with_suffix(".aside")
        failures = iter(range(3))

        def wait(self: DirectContext, pause: timedelta) -> None:
            if next(failures, None) is None and aside.exists():
                _swap(aside, Path(broken))

        monkeypatch.setattr(DirectContext, "wait", wait)
        sink.before_data_reply.clear()
        worker = threading.Thread(target=email, args=(context,))
        worker.start()
        wait_until(lambda: sink.messages, what="the message is with the server")
        context.store.close()
        _swap(Path(broken), aside)
        Path(broken).mkdir()
        sink.before_data_reply.set()
        worker.join(30)
    assert context.log.events("warning").count("mail.record_delayed") >= 1
    assert len(sink.messages) == 1
    email(context.next_attempt())
    assert len(sink.messages) == 1


def _swap(source: Path, target: Path) -> None:
    """Move a SQLite file out of the way, or back."""
    if target.is_dir():
        target.rmdir()
    source.rename(target)


def _letter() -> Any:
    return Letter(
        sender=parse_mailbox("a@example.org"),
        subject="x",
        text="y",
        message_id="z@example.org",
        date=datetime(2026, 1, 1, tzinfo=UTC),
        to=(parse_mailbox("ann@example.com"),),
    )
