"""What `batchd status` complains about."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchd.cli.text import span
from batchd.store.queries import StoreStatus
from batchd.store.schema import SCHEMA_VERSION


def complaints_of(found: StoreStatus, max_lag: timedelta) -> list[str]:
    """Return what is not as it should be, a sentence each; `max_lag` is how late fires and runs may be."""
    complaints = []
    if not found.alive:
        complaints.append("no daemon is alive")
    complaints.extend(
        f"daemon {worker.id} was asked to read a changed config, and refused it: {worker.config_error}"
        for worker in found.alive
        if worker.config_error is not None
    )
    complaints.extend(
        f"daemon {worker.id} is batchd {worker.version}, and a newer one has changed the store: restart it with that"
        for worker in found.alive
        if worker.state == "running" and (worker.schema_version or 0) < SCHEMA_VERSION
    )
    for what, since in (("a fire has not been planned", found.oldest_due), ("a run waits", found.oldest_ready)):
        late = age_seconds(since, found.now)
        if late > max_lag.total_seconds():
            complaints.append(f"{what} for {span(timedelta(seconds=late))}")
    for each in found.listeners:
        if each.failures:
            complaints.append(f"listener {each.name!r} has failed {each.failures} times with {each.error}")
        if not each.is_served:
            complaints.append(f"no daemon serves listener {each.name!r}, which is {each.behind:,} events behind")
    complaints.extend(f"job {name!r} cannot be planned; see `batchd jobs`" for name in found.broken_jobs)
    return complaints


def age_seconds(since: datetime | None, now: datetime) -> float:
    """Return for how long something has been so; 0 when it is not, or only will be."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
