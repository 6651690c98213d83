"""Bugs put into the planner and the claims on purpose: what proves that the simulation would find one.

Each is one change of one line of the source. `sown` exchanges the code of the functions that it is in, wherever they
have been imported to, for as long as the block lasts.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True)
class Mutation:
    """`text` becomes `instead` in the module; `shows_in` are seeds whose trial then breaks a rule."""

    name: str
    module: str
    text: str
    instead: str
    shows_in: int


MUTATIONS = (
    Mutation(
        "a fire is lost: the next one is looked for after too late a moment",
        "batchd.domain.catch_up",
        "rule.next_after(now))",
        "rule.next_after(now + (now - latest)))",
        2,
    ),
    Mutation(
        "a range of missed fires counts one too few",
        "batchd.domain.catch_up",
        "1 + rule.count_between(first, end)",
        "max(1, rule.count_between(first, end))",
        2,
    ),
    Mutation(
        "the oldest of the missed fires runs instead of the newest",
        "batchd.domain.catch_up",
        "kept = tuple(fire for fire in due if",
        "kept = tuple(fire for fire in due[:-1] or due if",
        2,
    ),
    Mutation(
        "one run more than the overlap policy allows",
        "batchd.store.planning",
        "limit is not None and before >= limit",
        "limit is not None and before > limit",
        0,
    ),
    Mutation(
        "one run more at once than the queue allows in all daemons",
        "batchd.store.limits",
        "name: limit - self._running(",
        "name: limit + 1 - self._running(",
        8,
    ),
    Mutation(
        "one start more within the period than the rate allows",
        "batchd.store.limits",
        "return rate.count - int(",
        "return rate.count + 1 - int(",
        0,
    ),
    Mutation(
        "an ending is written without looking at the fence",
        "batchd.store.finish",
        '["id", "fence"],\n        [_final_row',
        '["id"],\n        [_final_row',
        44,
    ),
    Mutation(
        "a run is claimed although its start deadline has passed",
        "batchd.store.claims",
        "func.coalesce(runs.c.start_deadline_at < dialect.now(), false())",
        "false()",
        2,
    ),
    Mutation(
        "a retry comes after half its back-off",
        "batchd.store.finish",
        'values["seconds"] = decision.retry_in.total_seconds()',
        'values["seconds"] = decision.retry_in.total_seconds() / 2',
        0,
    ),
    Mutation(
        "a lost attempt does not give its number back",
        "batchd.store.leases",
        "runs.c.attempt - (0 if final else 1)",
        "runs.c.attempt - 0",
        2,
    ),
)


@contextlib.contextmanager
def sown(mutation: Mutation) -> Iterator[None]:
    """Let the bug be there while the block lasts."""
    module = import_module(mutation.module)
    source = inspect.getsource(module)
    assert source.count(mutation.text) == 1, f"{mutation.module} holds {mutation.text!r} {source.count(mutation.text)}x"
    changed = ModuleType(module.__name__)
    changed.__file__ = module.__file__
    exec(
        compile(source.replace(mutation.text, mutation.instead), f"{module.__file__} (mutated)", "exec"), _own(changed)
    )
    swapped = []
    try:
        for old, new in _pairs(vars(module), vars(changed), module.__name__):
            if old.__code__.co_code != new.__code__.co_code or old.__code__.co_consts != new.__code__.co_consts:
                swapped.append((old, old.__code__))
                old.__code__ = new.__code__
        assert swapped
        yield
    finally:
        for function, code in swapped:
            function.__code__ = code


def _own(module: ModuleType) -> dict[str, Any]:
    namespace = vars(module)
    namespace["__name__"] = module.__name__
    return namespace


def _pairs(old: Any, new: Any, home: str) -> Iterator[tuple[FunctionType, FunctionType]]:
    for name, value in dict(old).items():
        other = new.get(name)
        if isinstance(value, FunctionType) and isinstance(other, FunctionType) and value.__module__ == home:
            if value.__code__.co_freevars == other.__code__.co_freevars:
                yield value, other
        elif isinstance(value, type) and value.__module__ == home and isinstance(other, type):
            yield from _pairs(vars(value), vars(other), home)
