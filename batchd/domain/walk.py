"""How far a walk over rows has come when several batches are at work at once and end in any order.

                 reached            ahead               ahead                     last
    ├──── done ────┤╌╌╌ a gap ╌╌╌├─ done ─┤╌╌╌ a gap ╌╌╌├─ done ─┤╌╌╌╌ a gap ╌╌╌╌╌╌╌┤

`reached` is the low-water mark: every batch up to it is done. A batch that ends before an earlier one is kept in
`ahead`, and is taken into `reached` when the earlier ones have ended. So a walk that stops anywhere goes on with the
gaps: nothing twice, nothing left out. Batches ahead that follow each other are kept as one, so that there are never
more of them than batches were at work when attempts stopped.

Keys are never compared here, only the database knows their order; `order` says how batches follow each other. The
batches of a gap behind the batch [4] are [4, 1], [4, 2], and so on, so that they come before [5] when lists are
compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from batchd.domain.job import JsonObject, JsonValue

StoredKey: TypeAlias = list[JsonValue]
"""A key as a checkpoint holds it; None stands for "before the first row"."""

Order: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The rows beyond `after` up to and including `up_to`."""

    order: Order
    after: StoredKey | None
    up_to: StoredKey


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that nobody has done yet, beyond `after` up to `up_to`; the `number`-th batch in it has `order(number)`."""

    after: StoredKey | None
    up_to: StoredKey
    behind: Order
    is_last: bool

    def order(self, number: int) -> Order:
        """Return where the batch number `number` (from 1) of this gap stands among all batches."""
        if self.is_last and self.behind:
            return (*self.behind[:-1], self.behind[-1] + number)
        return (*self.behind, number)


@dataclass(frozen=True, slots=True)
class WalkState:
    """How far a walk is. `last` is the largest key when the walk began; rows beyond it are not walked."""

    last: StoredKey
    reached: StoredKey | None = None
    order: Order = ()
    ahead: tuple[Span, ...] = ()
    rows: int = 0
    batches: int = 0

    def with_done(self, span: Span, rows: int) -> WalkState:
        """Return the state after a batch of `rows` rows."""
        reached, order = self.reached, self.order
        ahead = _joined(sorted((*self.ahead, span), key=lambda each: each.order))
        if ahead[0].after == reached:
            first, *ahead = ahead
            reached, order = first.up_to, first.order
        return replace(
            self, reached=reached, order=order, ahead=tuple(ahead), rows=self.rows + rows, batches=self.batches + 1
        )

    def gaps(self) -> Iterator[Gap]:
        """Return what is left to do, in order."""
        after, behind = self.reached, self.order
        for span in self.ahead:
            if span.after is not None and span.after != after:
                yield Gap(after, span.after, behind, is_last=False)
            after, behind = span.up_to, span.order
        if after != self.last:
            yield Gap(after, self.last, behind, is_last=True)

    def as_json(self) -> JsonObject:
        """Return the state for a checkpoint."""
        return {
            "last": self.last,
            "reached": self.reached,
            "order": list(self.order),
            "ahead": [[list(span.order), span.after, span.up_to] for span in self.ahead],
            "rows": self.rows,
            "batches": self.batches,
        }


def walk_state(stored: JsonObject) -> WalkState:
    """Return the state that `as_json` wrote."""
    rows, batches = stored["rows"], stored["batches"]
    assert isinstance(rows, int)
    assert isinstance(batches, int)
    last = _key(stored["last"])
    assert last is not None
    return WalkState(
        last, _key(stored["reached"]), _order(stored["order"]), tuple(_spans(stored["ahead"])), rows, batches
    )


def _joined(spans: list[Span]) -> list[Span]:
    """Return the spans with those that follow each other made one, which stands where its last one stood."""
    joined = spans[:1]
    for span in spans[1:]:
        before = joined[-1]
        if before.up_to == span.after:
            joined[-1] = Span(span.order, before.after, span.up_to)
        else:
            joined.append(span)
    return joined


def _spans(stored: JsonValue) -> Iterator[Span]:
    assert isinstance(stored, list)
    for each in stored:
        assert isinstance(each, list)
        order, after, up_to = each
        key = _key(up_to)
        assert key is not None
        yield Span(_order(order), _key(after), key)


def _key(stored: JsonValue) -> StoredKey | None:
    assert stored is None or isinstance(stored, list)
    return stored


def _order(stored: JsonValue) -> Order:
    assert isinstance(stored, list)
    return tuple(number for number in stored if isinstance(number, int))
