"""The usual claim in one statement, for PostgreSQL: what `store.claims` does in six, where no limit is shared.

Each part that reads runs has an order that only one index has, or, in the UPDATE, the rows' places: else a plan that
was made on an empty table might go by any index, and read all of it when it has grown. A row that has moved since the
statement began is not at its place, and is left to the next claim.

It decides about nothing that needs the lock of shared limits, a draw, a look at what each run waits for or at what
somebody has made of its row: it takes no run then, and leaves all of them to `store.claims`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from batchd.db.engine import Database
from batchd.db.lock_number import lock_number
from batchd.domain.queue import NO_RULES, QueueOrder, strict_turn
from batchd.domain.run import CreatedBy
from batchd.store.claimed import CLAIM_COLUMNS, KEYS_LOCK, NONSENSE, Claim, ClaimRequest, claim_of
from batchd.store.release import release_unread

_TOLD = ", ".join((*CLAIM_COLUMNS, "priority"))
_MOMENTS = ("scheduled_for", "available_at")
_MAKERS = ", ".join(f"'{maker.value}'" for maker in CreatedBy)

_CLAIM = f"""
WITH RECURSIVE
each_queue (name) AS (
  SELECT (SELECT queue FROM batchd_runs WHERE state = 'queued' AND waits_for IS NULL ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (
    SELECT queue FROM batchd_runs
    WHERE state = 'queued' AND waits_for IS NULL AND queue > each_queue.name ORDER BY queue LIMIT 1
  )
  FROM each_queue WHERE name IS NOT NULL
),
served AS MATERIALIZED (
  SELECT
    name,
    coalesce((CAST(%(queues)s AS jsonb) -> name ->> 'priority')::integer, 0) AS precedence,
    coalesce((CAST(%(queues)s AS jsonb) -> name ->> 'room')::integer, %(most)s) AS room,
    coalesce((CAST(%(queues)s AS jsonb) -> name ->> 'is_shared')::boolean, false) AS is_shared
  FROM each_queue
  WHERE name IS NOT NULL
  AND NOT EXISTS (SELECT FROM batchd_queues WHERE batchd_queues.name = each_queue.name AND paused_at IS NOT NULL)
),
parked (name) AS MATERIALIZED (
  SELECT waits_for FROM batchd_runs WHERE state = 'queued' AND waits_for IS NOT NULL ORDER BY waits_for LIMIT 1
),
best AS MATERIALIZED (
  SELECT served.precedence, waiting.*
  FROM served CROSS JOIN LATERAL (
    SELECT
      id, ctid AS place, priority, available_at, concurrency_key,
      mutex IS NULL AND created_by IN ({_MAKERS}) AND coalesce(timeout_seconds BETWEEN 0 AND 1e9, true) AS is_usual
    FROM batchd_runs
    WHERE state = 'queued' AND waits_for IS NULL AND queue = served.name AND available_at <= (SELECT clock_timestamp())
    AND (
      concurrency_key IS NULL
      OR NOT EXISTS (
        SELECT FROM batchd_runs AS busy
        WHERE busy.concurrency_key = batchd_runs.concurrency_key AND busy.state = 'running'
      )
    )
    ORDER BY priority DESC, available_at, id LIMIT served.room FOR UPDATE SKIP LOCKED
  ) AS waiting
  WHERE served.room > 0
  AND NOT EXISTS (SELECT FROM served AS other WHERE other.is_shared)
  AND (%(is_strict)s OR (SELECT count(*) FROM served AS other WHERE other.room > 0) = 1)
  AND (SELECT name FROM parked) IS NULL
),
taken AS (
  UPDATE batchd_runs
  SET state = 'running', reason = NULL, attempt = attempt + 1, fence = fence + 1, worker = %(worker)s,
    lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
    started_at = coalesce(started_at, clock_timestamp())
  WHERE ctid = ANY (ARRAY(
    SELECT place FROM best
    WHERE NOT EXISTS (SELECT FROM best AS other WHERE other.is_usual IS NOT TRUE)
    AND (
      concurrency_key IS NULL
      OR (
        SELECT
          CASE WHEN count(concurrency_key) < 2 THEN true ELSE pg_try_advisory_xact_lock({lock_number(KEYS_LOCK)}) END
        FROM best
      )
      AND NOT EXISTS (
        SELECT FROM best AS other
        WHERE other.concurrency_key = best.concurrency_key
        AND (-other.precedence, -other.priority, other.available_at, other.id)
          < (-best.precedence, -best.priority, best.available_at, best.id)
      )
    )
    ORDER BY precedence DESC, priority DESC, available_at, id LIMIT %(most)s
  ))
  AND NOT (coalesce(start_deadline_at < clock_timestamp(), false) AND attempt = 0 AND fence = 0)
  RETURNING {_TOLD}
),
begun AS (
  INSERT INTO batchd_attempts (run_id, fence, number, worker, started_at)
  SELECT id, fence, attempt, %(worker)s, clock_timestamp() FROM taken
),
told AS (
  INSERT INTO batchd_outbox (created_at, event, run_id, schedule_id, payload)
  SELECT
    clock_timestamp(), 'run.started', id, schedule_id,
    jsonb_build_object(
      'job', schedule_id, 'kind', kind, 'queue', queue, 'state', 'running', 'attempt', attempt
    )
  FROM taken WHERE EXISTS (SELECT FROM batchd_listeners WHERE wants_started)
)
SELECT
  (SELECT coalesce(json_agg(taken), '[]') FROM taken)::text AS taken,
  (SELECT coalesce(json_agg(id), '[]') FROM taken)::text AS ids,
  EXISTS (
    SELECT FROM served CROSS JOIN LATERAL (
      SELECT FROM batchd_runs
      WHERE state = 'queued' AND waits_for IS NULL AND queue = served.name
      AND available_at <= (SELECT clock_timestamp()) AND id <> ALL (ARRAY(SELECT id FROM taken))
      ORDER BY priority DESC, available_at, id LIMIT 1
    ) AS other
  ) AS has_more,
  (
    SELECT available_at FROM batchd_runs
    WHERE state = 'queued' AND waits_for IS NULL AND available_at > (SELECT clock_timestamp())
    ORDER BY available_at LIMIT 1
  ) AS next_at,
  (SELECT name FROM parked) IS NOT NULL AS has_parked,
  clock_timestamp() AS now
"""  # noqa: S608 (our own names)


@dataclass(frozen=True, slots=True)
class TakenAtOnce:
    """What one statement claimed, in the order of `domain.queue.in_turn`, and how it is with the others.

    `next_in` says how long until another run may begin, zero for one that may but for a limit; None: none waits. Those
    of paused queues do not count: whoever resumes one wakes the daemons.
    """

    claims: tuple[Claim, ...]
    next_in: timedelta | None

    @property
    def is_all(self) -> bool:
        """Whether nobody need look again: none was claimed because none was there."""
        return bool(self.claims) or self.next_in != timedelta(0)


def take_at_once(store: Database, request: ClaimRequest) -> TakenAtOnce | None:
    """Claim up to `limit` runs, or none where something is not as usual; None: this is no place for it.

    Nothing can go wrong between the commit and the answer but the connection. An answer that cannot be read (a number
    of 5,000 digits, very deep nesting) has all of it given back, for the steps to find the run that is to blame.
    """
    given = {
        "queues": json.dumps({name: _told_of(request, name) for name in request.room.keys() | request.rules.keys()}),
        "most": request.limit,
        "is_strict": request.order is QueueOrder.STRICT,
        "worker": request.worker,
        "lease_seconds": request.lease.total_seconds(),
    }
    answer = store.by_itself(_CLAIM, given)
    if answer is None:
        return None
    told, ids, has_more, next_at, has_parked, now = answer
    try:
        taken = sorted(_rows_of(told), key=lambda row: strict_turn(row, request.rules))
        claims = tuple(claim_of(row) for row in taken)
    except NONSENSE:
        release_unread(store, request.worker, json.loads(ids))
        return None
    if has_more or has_parked:
        next_in: timedelta | None = timedelta(0)
    else:
        next_in = None if next_at is None else max(next_at - now, timedelta(0))
    return TakenAtOnce(claims, next_in)


def _told_of(request: ClaimRequest, name: str) -> dict[str, int | bool]:
    rules = request.rules.get(name, NO_RULES)
    room = max(0, min(request.room.get(name, request.limit), request.limit))
    return {"priority": rules.priority, "room": room, "is_shared": rules.is_shared}


def _rows_of(told: str) -> list[Any]:
    """Return the rows as `claim_of` and `strict_turn` read them."""
    from batchd.db.any_moment import moment_of  # noqa: PLC0415 (only the driver in use is imported)

    known: dict[str, Any] = {}  # most of a burst have one moment
    rows = []
    for row in json.loads(told):
        for name in _MOMENTS:
            text = row[name]
            if text is not None:
                if text not in known:
                    known[text] = moment_of(str(text))
                row[name] = known[text]
        rows.append(SimpleNamespace(**row, available=row["available_at"]))
    return rows
