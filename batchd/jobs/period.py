"""`:since` and `:until` in a query that somebody wrote: the bounds of the period that it is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

NAMED = re.compile(r"(?<![:\w]):(since|until)\b(?!:)|:")
"""Finds every colon of a query; those of `:since` and `:until` with the name as group 1, but not `::since`."""

_SQLITE_MOMENT = "%Y-%m-%d %H:%M:%S"


def uses_period(query: str) -> bool:
    """Return whether a query speaks of `:since` or `:until`."""
    return any(found[1] for found in NAMED.finditer(query))


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` (included) to `until` (excluded), both aware."""

    since: datetime
    until: datetime

    def values(self, dialect: str) -> dict[str, datetime | str]:
        """Return the bounds by name, as a statement of the dialect takes them; SQLite's as CURRENT_TIMESTAMP is."""
        bounds = {"since": self.since, "until": self.until}
        if dialect != "sqlite":
            return dict(bounds)
        return {name: at.astimezone(UTC).strftime(_SQLITE_MOMENT) for name, at in bounds.items()}

    def written_into(self, query: str, dialect: str) -> str:
        """Return the query with the bounds in it as literals, for where no parameter can go (COPY, EXPLAIN)."""
        kind = "" if dialect == "sqlite" else "timestamptz "
        literals = {name: f"{kind}'{value}'" for name, value in self.values(dialect).items()}
        return NAMED.sub(lambda found: literals[found[1]] if found[1] else found[0], query)
