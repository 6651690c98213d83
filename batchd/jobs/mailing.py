"""A run's mail, written down before it goes and after it went: another attempt sends only what is missing.

    recorded() ─► offer the recipients that are left ─► record "sending" ─► DATA ─► record who has it ─► the ending
                                                        │                  │
                  nothing was sent: try again ◄─────────┘                  └─► died here: nobody knows, sent again

"Sending" is written under the fence: an attempt that has lost its run finds out before it sends anything. What remains
is the time between the server's acceptance and our record of it. Another attempt that finds "sending" cannot know; it
sends again, under the same Message-ID, by which mail servers and clients know a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from batchd.domain.job import JsonObject
from batchd.errors import BatchdError, JobError, LeaseLost
from batchd.jobs.contract import JobContext
from batchd.mail.addresses import AddressInvalid, Mailbox, parse_mailbox
from batchd.mail.delivery import MailRefused, MailSettings, MailUnavailable, Outcome
from batchd.mail.message import Letter, Parcel, compose
from batchd.mail.transport import transport_of

_TRIES = 3
_RECORD_TRIES = 8


@dataclass(frozen=True, slots=True)
class _Delivery:
    """What is known of a run's mail; kept in the store as it stands here.

    `sending` lists whom nobody knows about; `is_finished` says that everybody has it; `is_over` that nobody is left to
    ask, but not everybody has it: a person who retries the run then wants the refused ones to be asked again.
    """

    accepted: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    sending: tuple[str, ...] = ()
    receipt: str = ""
    is_finished: bool = False
    is_over: bool = False
    result: JsonObject = field(default_factory=dict)

    @classmethod
    def of(cls, recorded: Any) -> _Delivery:
        if not recorded:
            return cls()
        return cls(
            accepted=tuple(recorded["accepted"]),
            refused={} if recorded["over"] else dict(recorded["refused"]),
            sending=tuple(recorded["sending"]),
            receipt=recorded["receipt"],
            is_finished=recorded["finished"],
            result=recorded["result"],
        )

    def as_json(self) -> JsonObject:
        return {
            "accepted": list(self.accepted),
            "refused": dict(self.refused),
            "sending": list(self.sending),
            "receipt": self.receipt,
            "finished": self.is_finished,
            "over": self.is_over,
            "result": self.result,
        }

    def after(self, outcome: Outcome) -> _Delivery:
        """Return what is known once a server has answered."""
        return replace(
            self,
            accepted=(*self.accepted, *outcome.accepted),
            refused={**self.refused, **outcome.refused},
            sending=(),
            receipt=outcome.receipt or self.receipt,
        )


def mail_settings(job: str, mail: MailSettings | None) -> MailSettings:
    """Return the config's `[mail]`; raises JobError when this daemon's config has none."""
    if mail is None:
        raise JobError(
            f"job {job!r} sends mail, and this daemon's config has no [mail]",
            hint="write one with `host` (or `folder`) and `from`",
            retryable=False,
        )
    return mail


def mailboxes(key: str, written: Sequence[str]) -> tuple[Mailbox, ...]:
    """Return the mailboxes of a param; raises JobError for the first that is none, since no retry could help."""
    try:
        return tuple(parse_mailbox(text) for text in written)
    except AddressInvalid as error:
        raise JobError(f"`{key}`: {error}", retryable=False) from error


def address_problems(key: str, written: Sequence[str]) -> list[tuple[str, str]]:
    """Return a complaint for each text that is no address, for a kind's `check`."""
    found = []
    for text in written:
        try:
            parse_mailbox(text)
        except AddressInvalid as error:
            found.append((key, str(error)))
    return found


def composed(letter: Letter) -> Parcel:
    """Return the letter as a parcel; raises JobError for one that has nobody to go to, or cannot be written."""
    if not (letter.to or letter.cc or letter.bcc):
        raise JobError("the mail has no recipient", hint="set `to`, `cc` or `bcc`", retryable=False)
    try:
        return compose(letter)
    except ValueError as error:
        raise JobError(f"the mail cannot be written: {error}", retryable=False) from error


class Mailing:
    """The one mail of a run: what earlier attempts have reached, and the rest of the way. For the attempt's thread."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._settings = mail_settings(context.job, context.mail)
        self._known = _Delivery.of(context.recorded())
        if self._known.sending:
            context.log.warning("mail.in_doubt", recipients=len(self._known.sending))

    @property
    def earlier(self) -> JsonObject | None:
        """The result that an earlier attempt had recorded when everybody had the mail; None while somebody has not."""
        return self._known.result if self._known.is_finished else None

    def post(self, parcel: Parcel, result: JsonObject) -> JsonObject:
        """Send the mail to whom it has not reached yet; return `result` with what became of it under "mail".

        Raises JobError, with that result, when somebody does not have it: retryable while a server says "not now" or
        cannot be reached, not when it said no for good.
        """
        context, known = self._context, self._known
        left = tuple(each for each in parcel.recipients if each not in known.accepted and each not in known.refused)
        deferred: dict[str, str] = {}
        if left:
            outcome = _sent(context, known, replace(parcel, recipients=left), transport_of(self._settings).send)
            known, deferred = known.after(outcome), dict(outcome.deferred)
            whole: JsonObject = {**result, "mail": _facts(parcel, known, deferred)}
            is_over = not deferred
            known = replace(
                known, result=whole, is_finished=is_over and not known.refused, is_over=is_over and bool(known.refused)
            )
            _recorded(context, known)
            if outcome.accepted:
                context.log.info(
                    "mail.sent",
                    message_id=parcel.message_id,
                    recipients=len(outcome.accepted),
                    bytes=len(parcel.content),
                    receipt=outcome.receipt,
                )
        whole = {**result, "mail": _facts(parcel, known, deferred)}
        if deferred or known.refused:
            raise JobError(_complaint(known, deferred), retryable=bool(deferred), result=whole)
        return whole


def _sent(
    context: JobContext,
    known: _Delivery,
    parcel: Parcel,
    send: Callable[[Parcel, Callable[[], None]], Outcome],
) -> Outcome:
    """Return what became of one message, tried a few times: the run's own retries are for longer troubles."""
    announced = False

    def announce() -> None:
        nonlocal announced
        context.raise_if_stopping()
        context.record(replace(known, sending=parcel.recipients).as_json())
        announced = True

    def tell(state: RetryCallState) -> None:
        assert state.outcome
        context.log.warning("mail.retried", reason=str(state.outcome.exception()), try_number=state.attempt_number)

    try:
        for attempt in Retrying(
            # Not when in doubt: a server that always breaks off at the end would get one copy after the other.
            retry=retry_if_exception(lambda error: isinstance(error, MailUnavailable) and not error.in_doubt),
            wait=wait_exponential(multiplier=1, max=5),
            stop=stop_after_attempt(_TRIES),
            sleep=lambda seconds: context.wait(timedelta(seconds=seconds)),
            before_sleep=tell,
            reraise=True,
        ):
            with attempt:
                return send(parcel, announce)
    except (MailUnavailable, MailRefused) as error:
        if announced and not getattr(error, "in_doubt", False):
            _recorded(context, known)  # the server said no: nothing is in doubt
        raise JobError(error.message, hint=error.hint, retryable=isinstance(error, MailUnavailable)) from error
    raise AssertionError("tenacity either returns or raises")


def _recorded(context: JobContext, known: _Delivery) -> None:
    """Write down what is known, patiently: while it is not written, the next attempt would send again."""
    for number in range(1, _RECORD_TRIES + 1):
        try:
            context.record(known.as_json())
        except LeaseLost:
            raise
        except BatchdError as error:
            if number == _RECORD_TRIES:
                raise
            context.log.warning("mail.record_delayed", reason=error.message)
            context.wait(timedelta(seconds=min(2 ** (number - 1) / 4, 10)))
        else:
            return


def _facts(parcel: Parcel, known: _Delivery, deferred: dict[str, str]) -> JsonObject:
    result: JsonObject = {
        "message_id": parcel.message_id,
        "accepted": len(known.accepted),
        "bytes": len(parcel.content),
        "receipt": known.receipt,
    }
    if known.refused:
        result["refused"] = dict(known.refused)
    if deferred:
        result["deferred"] = dict(deferred)
    return result


def _complaint(known: _Delivery, deferred: dict[str, str]) -> str:
    parts = [f"{address} was refused ({said})" for address, said in known.refused.items()]
    parts += [f"{address} was put off ({said})" for address, said in deferred.items()]
    return f"{'; '.join(parts)}; {len(known.accepted)} recipients have the mail"
