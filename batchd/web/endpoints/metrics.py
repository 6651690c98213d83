"""/metrics: what Prometheus scrapes."""

from __future__ import annotations

import os

from starlette.responses import Response

from batchd.web.call import Call, Endpoint
from batchd.web.exposition import CONTENT_TYPE, written
from batchd.web.measures import Sources, families
from batchd.web.principal import Access
from batchd.web.scrapes import Scrapes


async def metrics(call: Call) -> Response:
    """Show the metrics in Prometheus' text format."""
    desk = call.desk
    scrapes: Scrapes = call.request.app.state.scrapes
    sources = Sources(
        store_name=desk.store.dialect.name,
        gauges=await scrapes.gauges(desk),
        counted=await desk.in_thread(desk.daemon.counted),
        beat=desk.health.beat(),
        checks=desk.health.checks(),
        counts=desk.counts,
        intervals=await scrapes.intervals(desk),
        daemon_pid=os.getppid(),
        now=desk.clock.now().timestamp(),
        monotonic=desk.clock.monotonic(),
    )
    return Response(written(families(sources)), media_type=None, headers={"Content-Type": CONTENT_TYPE})


def routes() -> list[Endpoint]:
    """Return the routes of this module."""
    return [Endpoint("GET", "/metrics", metrics, Access.METRICS, "What Prometheus scrapes")]
