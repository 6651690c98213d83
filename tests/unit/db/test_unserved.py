"""Which conditions no index serves, by the plan that PostgreSQL prints."""

from __future__ import annotations

from batchd.db.explained import unserved_in

PLAN = """\
Delete on cart_items  (cost=3166.00..7022.00 rows=0 width=0)
  ->  Hash Join  (cost=3166.00..7022.00 rows=754 width=12)
        Hash Cond: (cart_items.cart_id = carts.id)
        ->  Seq Scan on cart_items  (cost=0.00..3260.00 rows=226000 width=10)
        ->  Hash  (cost=2695.00..2695.00 rows=377 width=10)
              ->  Seq Scan on "Carts"  (cost=0.00..2695.00 rows=377 width=10)
                    Filter: (("expiresAt" < now()) AND ((state)::text = 'open'::text))
        ->  Seq Scan on small  (cost=0.00..26.95 rows=377 width=10)
              Filter: (expires_at < now())"""


def test_a_condition_belongs_to_the_table_that_is_scanned_for_it() -> None:
    """Not to the one that is joined without a condition; and a small table is read as a whole for good reason."""
    assert unserved_in(PLAN) == (('"Carts"', '"expiresAt"'),)
    assert unserved_in(PLAN.replace('("expiresAt" < now())', "((state)::text = 'x'::text)")) == (('"Carts"', "state"),)
