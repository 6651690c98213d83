"""What a team's own code looks like to `each_row`: the demo's function, called with batches of customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

_GOOD, _BEST = 4_000, 8_000


def rate_customers(rows: Sequence[Mapping[str, Any]], connection: Connection) -> dict[str, int]:
    """Write each customer's rating, in the batch's own transaction, and return how many of each there were."""
    ratings = [{"no": row["no"], "rating": _rating(row["revenue"] or 0)} for row in rows]
    connection.execute(text("UPDATE customers SET rating = :rating WHERE no = :no"), ratings)
    return {rating: sum(each["rating"] == rating for each in ratings) for rating in ("A", "B", "C")}


def _rating(revenue: float) -> str:
    return "A" if revenue >= _BEST else "B" if revenue >= _GOOD else "C"
