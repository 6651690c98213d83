"""All of alerts in a daemon, behind one door; `start`, `stop` and `is_alive` as of one loop."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from batchd.alerts.catalog import channel_types
from batchd.alerts.channel import Channel, Surroundings
from batchd.alerts.delivery import ChannelLoop, PingLoop, Post
from batchd.alerts.detector import Detector
from batchd.alerts.settings import AlertSettings, ChannelPlan
from batchd.clock import Clock
from batchd.db.engine import Database
from batchd.loop import Leaseholders
from batchd.store import deliveries, listeners, meta


class Alerting(Leaseholders):
    """Judges and delivers from `start` until `stop`. With no rule and no ping at all it does nothing."""

    name = "alerts"

    def __init__(
        self, store: Database, settings: AlertSettings, worker_id: str, clock: Clock, around: Surroundings
    ) -> None:
        self._store = store
        self._settings = settings
        store_id = functools.cache(lambda: meta.store_id(store))

        def posts(plans: Mapping[str, ChannelPlan], *, is_ping: bool) -> dict[str, Post]:
            return {
                name: Post(
                    store,
                    plan,
                    build(plan, around),
                    store_id=store_id,
                    keep_trying=settings.keep_trying,
                    site=settings.site,
                    mask=around.mask,
                    clock=clock,
                    is_ping=is_ping,
                )
                for name, plan in plans.items()
            }

        pings = {plan.name: plan for plan in settings.pings.values()}
        self._channels = [
            ChannelLoop(store, post, worker_id, clock) for post in posts(settings.channels, is_ping=False).values()
        ]
        self._pings = [PingLoop(store, posts(pings, is_ping=True), worker_id, clock)] if pings else []
        is_needed = bool(settings.rules or pings)
        self._detectors = [Detector(store, settings, worker_id, clock, self._wake)] if is_needed else []

    @property
    def _loops(self) -> list[Detector | ChannelLoop | PingLoop]:
        return [*self._detectors, *self._channels, *self._pings]

    def prepare(self) -> None:
        """Make channels and the place in the outbox known to the store; may be called again when that failed."""
        listeners.register(self._store, [detector.registration() for detector in self._detectors])
        plans = [*self._settings.channels.values(), *self._settings.pings.values()]
        deliveries.register(self._store, {plan.name: plan.type for plan in plans})

    def _wake(self) -> None:
        for loop in (*self._channels, *self._pings):
            loop.wake()


def build(plan: ChannelPlan, around: Surroundings) -> Channel:
    """Return the channel that a plan means."""
    return channel_types()[plan.type].build(plan.own, around)
