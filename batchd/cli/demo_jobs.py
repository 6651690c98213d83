"""What a team's own code looks like: the demo's functions, one called with batches of customers, one with arguments."""

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


def find_primes(below: int) -> dict[str, int]:
    """Count the prime numbers below a number: something that keeps a processor busy for a moment."""
    is_prime = bytearray([1]) * below
    is_prime[:2] = bytes(min(2, below))
    for number in range(2, int(below**0.5) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, below, number)))
    return {"primes": sum(is_prime)}


def _rating(revenue: float) -> str:
    return "A" if revenue >= _BEST else "B" if revenue >= _GOOD else "C"
