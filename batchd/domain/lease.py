"""A lease: for how long an attempt may believe that its run is its own.

The database's clock says when a lease ends for others (`lease_until`). The attempt itself must never compare its own
wall clock with that: it trusts its lease by the monotonic clock, from the moment *before* it asked for the renewal,
and a margin less than the lease lasts. So it stops believing before anybody else may claim the run:

    ask for renewal      answer arrives                      trusted until     lease_until (database)
    ──┼──────────────────────┼───────────────────────────────────┼─────────────────┼──────────────► time
      └───────────────────── lease minus margin ─────────────────┘
      (the database dated the lease later than this)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MARGIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a lease lasts and how often it is renewed; `length` is at least three heartbeats."""

    length: timedelta
    heartbeat: timedelta

    def trusted_until(self, asked_at: float) -> float:
        """Return the monotonic second until which a lease asked for at `asked_at` may be trusted."""
        margin = min(MARGIN, self.length / 6)
        return asked_at + (self.length - margin).total_seconds()
