"""How alerts leave: one turn of one channel, a thread for each channel, and a few threads for all pings."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from batchd.alerts.channel import Channel, Entry, Handover, Message, NotOurs, Undelivered
from batchd.alerts.keeping import kept
from batchd.alerts.links import page_of
from batchd.alerts.settings import ChannelPlan
from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.domain.alert import Told, pause_after
from batchd.domain.quantities import format_duration
from batchd.errors import BatchdError
from batchd.loop import Loop
from batchd.store import deliveries
from batchd.store.deliveries import HeldChannel, Prepared, WaitingAlert
from batchd.store.leased import LEASE
from batchd.telemetry.logs import get_logger

_TRY_TO_TAKE = timedelta(seconds=5)
_RENEW_EVERY = LEASE / 3
_POLL = timedelta(seconds=2)
_PING_POLL = timedelta(seconds=1)
_SEEN_EVERY = timedelta(seconds=30)
_MOST_ALERTS = 200
_PINGS_AT_ONCE = 4
_PINGS_A_TURN = 20
_STALE_PING = timedelta(minutes=1)
_LONGEST_ASKED = timedelta(hours=1)
_RECORD_TRIES = 8

log = get_logger()


class Post:
    """Sends what one channel has to send. For one thread at a time.

    `store_id` is asked for when the first message goes, for the store may not be there when this is made.
    """

    def __init__(
        self,
        store: Database,
        plan: ChannelPlan,
        channel: Channel,
        *,
        store_id: Callable[[], str],
        keep_trying: timedelta,
        mask: Callable[[str], str],
        clock: Clock,
        site: str | None = None,
        is_ping: bool = False,
    ) -> None:
        self.plan = plan
        self._store = store
        self._channel = channel
        self._store_id = store_id
        self._keep_trying = keep_trying
        self._mask = mask
        self._clock = clock
        self._site = site
        self._is_ping = is_ping

    def turn(self, held: HeldChannel) -> timedelta:
        """Send one message if it is time to; return how long nothing else can be sent, at most two seconds."""
        waits = self._waits(held)
        if waits is not None:
            return min(waits, _POLL)
        self._drop_old(held)
        prepared = deliveries.next_message(
            self._store, held, uuid.uuid4().hex, most=1 if self._is_ping else _MOST_ALERTS
        )
        if prepared is None:
            return _POLL
        self._send(held, prepared)
        return timedelta(0)

    def _waits(self, held: HeldChannel) -> timedelta | None:
        """Return how long the channel must wait, or None when something is to be sent now."""
        if held.rest > timedelta(0):
            return held.rest
        due_in = deliveries.due_in(self._store, held.name)
        if due_in is None or due_in > timedelta(0):
            return due_in or _POLL
        now = self._clock.now()
        quiet_until = self.plan.quiet.end_after(now) if self.plan.quiet is not None else None
        if quiet_until is not None:
            return max(quiet_until - now, timedelta(milliseconds=100))
        if self.plan.rate is not None and deliveries.sent_within(self._store, held.name, self.plan.rate):
            return _POLL
        return None

    def _drop_old(self, held: HeldChannel) -> None:
        if self._is_ping:
            deliveries.drop_superseded(self._store, held, _STALE_PING)
        why = f"not delivered within {format_duration(self._keep_trying)}"
        dropped = deliveries.drop(self._store, held, self._keep_trying, why)
        if dropped:
            log.error("alert.dropped", channel=held.name, alerts=dropped, reason=why)

    def _send(self, held: HeldChannel, prepared: Prepared) -> None:
        message = message_of(prepared, self._store_id(), self._site)
        try:
            with kept(lambda: deliveries.still_holds(self._store, held), _RENEW_EVERY):
                said = self._channel.send(message, Handover(frozenset(held.reached), lambda: self._confirm(held)))
        except NotOurs:
            return
        except Exception as error:  # noqa: BLE001 (a channel's trouble is told, and in nobody's way)
            self._failed(held, message, error)
            return
        if not self._recorded(held, message):
            return
        facts = {"channel": held.name, "message_id": message.id, "alerts": len(message.entries)}
        log.info("alert.sent", **facts, answer=self._mask(said))
        if held.failures:
            log.info("alert.recovered", channel=held.name, failures=held.failures)

    def _recorded(self, held: HeldChannel, message: Message) -> bool:
        """Write down that it was sent, patiently: while it is not written, it would go again after a crash."""
        for number in range(1, _RECORD_TRIES + 1):
            try:
                return deliveries.mark_sent(self._store, held, message.id)
            except BatchdError:
                if number == _RECORD_TRIES:
                    raise
                threading.Event().wait(min(2 ** (number - 1) / 4, 10))
        raise AssertionError("the last try either returns or raises")

    def _confirm(self, held: HeldChannel) -> None:
        if not deliveries.still_holds(self._store, held):
            raise NotOurs(f"another daemon serves channel {held.name!r} by now")

    def _failed(self, held: HeldChannel, message: Message, error: Exception) -> None:
        known = error if isinstance(error, Undelivered) else Undelivered(f"{type(error).__name__}: {error}")
        rest = pause_after(held.failures + 1)
        if known.retry_after is not None:
            rest = max(rest, min(known.retry_after, _LONGEST_ASKED))
        reason = self._mask(known.message)
        deliveries.note_failure(
            self._store,
            held,
            message.id,
            reason,
            rest,
            may_have_gone=known.may_have_gone,
            reached=known.reached,
        )
        log.warning(
            "alert.failed",
            channel=held.name,
            message_id=message.id,
            failures=held.failures + 1,
            reason=reason,
            retry_in_s=rest.total_seconds(),
            exc_info=None if isinstance(error, BatchdError) else error,
        )


class ChannelLoop(Loop):
    """One thread for one channel; nothing that the channel does ends it, or reaches another."""

    def __init__(self, store: Database, post: Post, worker_id: str, clock: Clock) -> None:
        super().__init__(f"channel {post.plan.name}", clock)
        self._store = store
        self._post = post
        self._worker_id = worker_id
        self._held: HeldChannel | None = None
        self._renew_at = 0.0

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Send one message if there is one."""
        held = self._take()
        if held is None:
            deliveries.register(self._store, {self._post.plan.name: self._post.plan.type})
            return _TRY_TO_TAKE
        pause = self._post.turn(held)
        if pause == timedelta(0):
            self._renew_at = 0.0  # what is known of the channel has changed
        return pause

    def close(self) -> None:
        """Let another daemon have the channel at once; call it when the thread has ended."""
        if self._held is not None:
            deliveries.give_up(self._store, self._held)
            self._held = None

    def _take(self) -> HeldChannel | None:
        """Return the channel if it is ours; its row is looked at again when a rest or a third of the lease is over."""
        now = self._clock.monotonic()
        if self._held is None or now >= self._renew_at:
            self._held = deliveries.take(self._store, self._post.plan.name, self._worker_id)
            rest = self._held.rest if self._held is not None else timedelta(0)
            self._renew_at = now + min(rest or _RENEW_EVERY, _RENEW_EVERY).total_seconds()
        return self._held


class PingLoop(Loop):
    """All pings, a few at a time: a URL that hangs holds up itself, and for a while one of the threads."""

    def __init__(self, store: Database, posts: Mapping[str, Post], worker_id: str, clock: Clock) -> None:
        super().__init__("pings", clock)
        self._store = store
        self._posts = posts
        self._worker_id = worker_id
        self._threads = ThreadPoolExecutor(_PINGS_AT_ONCE, thread_name_prefix="batchd-ping")
        self._busy: set[str] = set()
        self._seen_at = 0.0

    def run_once(self, now: datetime) -> timedelta:  # noqa: ARG002
        """Have the pings that are due sent, without waiting for them."""
        if self._clock.monotonic() >= self._seen_at:
            self._seen_at = self._clock.monotonic() + _SEEN_EVERY.total_seconds()
            deliveries.register(self._store, {name: post.plan.type for name, post in self._posts.items()})
        for name in deliveries.due_channels(self._store, self._posts.keys() - self._busy):
            self._busy.add(name)
            self._threads.submit(self._serve, name)
        return _PING_POLL

    def close(self) -> None:
        """Begin nothing new; what is at work ends by its own time limit, and gives up what it holds."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _serve(self, name: str) -> None:
        held: HeldChannel | None = None
        try:
            for _ in range(_PINGS_A_TURN):
                held = deliveries.take(self._store, name, self._worker_id)
                if held is None or self.is_stopping or self._posts[name].turn(held) > timedelta(0):
                    break
        except BatchdError as error:
            self._log.warning("loop.failed", failures=1, reason=str(error))
        except Exception as error:  # noqa: BLE001 (a thread of a pool would swallow it)
            self._log.error("loop.failed", failures=1, exc_info=error)
        finally:
            if held is not None:
                with contextlib.suppress(BatchdError):  # the store is away: the lease ends by itself
                    deliveries.give_up(self._store, held)
            self._busy.discard(name)


def message_of(prepared: Prepared, store_id: str, site: str | None = None) -> Message:
    """Return the message; made again from the same alerts it is the same."""
    entries = tuple(_entry(each, site) for each in prepared.alerts)
    return Message(prepared.id, store_id, max(each.created_at for each in prepared.alerts), entries)


def _entry(alert: WaitingAlert, site: str | None) -> Entry:
    said = alert.payload
    details = dict(said.get("details") or {})
    details |= {name: said[name] for name in ("closing", "closing_run_id") if said.get(name)}
    job, run_id = said.get("job"), said.get("run_id")
    return Entry(
        told=Told(alert.event),
        rule=str(said.get("rule") or ""),
        subject=str(said.get("subject") or ""),
        job=job,
        run_id=run_id,
        incident_id=alert.incident_id,
        summary=str(said.get("summary") or ""),
        details=details,
        count=int(said.get("count") or 1),
        opened_at=_moment(said.get("opened_at")),
        closed_at=_moment(said.get("closed_at")),
        link=page_of(site, run_id=run_id, job=job, incident_id=alert.incident_id),
    )


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def trial_message(clock: Clock, store_id: str, site: str | None = None) -> Message:
    """Return what `batchd alerts test` sends."""
    now = clock.now()
    link = page_of(site, run_id=None, job=None, incident_id=None)
    entry = Entry(Told.TEST, "", "batchd", None, None, None, "Nothing is wrong.", {}, 1, None, None, link)
    return Message(uuid.uuid4().hex, store_id, now, (entry,))
