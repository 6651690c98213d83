"""When so many rows are missing that the source is more likely to be wrong than the table: a decision only."""

from __future__ import annotations

_WHOLE = 100.0


def refusal(*, missing: int, present: int, fetched: int, most: str | int, removes: bool, job: str) -> str | None:
    """Return why the run must not go on, or None when it may.

    `most` is a share such as "10%" or a number of rows. `removes` says whether missing rows are marked or deleted; an
    empty list for a table that holds rows is refused in any case.
    """
    share = missing / present * _WHOLE if present else 0.0
    once = f"to let it through once: batchd trigger {job} --param max_missing=100%"
    if fetched == 0 and present and not _is_within(present, present, most):
        return f"the source answered with no record at all, but the table holds {present:,} rows; {once}"
    if not removes or _is_within(missing, present, most):
        return None
    allowed = most if isinstance(most, str) else f"{most:,} rows"
    return (
        f"{missing:,} of {present:,} rows ({share:.1f} %) are missing in the {fetched:,} records that the source "
        f"answered with, more than `max_missing` allows ({allowed}); nothing was written; {once}"
    )


def _is_within(missing: int, present: int, most: str | int) -> bool:
    if isinstance(most, int):
        return missing <= most
    return missing * _WHOLE <= float(most.rstrip("%")) * present
