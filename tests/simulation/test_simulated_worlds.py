"""The real planner, dispatcher, finisher, lease keeper and reaper in simulated worlds full of misfortune.

A failing seed is lived through again with `python -m tests.simulation --seed N`.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from batchd.db.dialect import DatabaseSettings
from tests.simulation.mutations import MUTATIONS, Mutation, sown
from tests.simulation.scenario import trial_of
from tests.simulation.trial import live_through

_SEEDS = (*range(100, 107), 20071)
"""In the last one two daemons, one with a clock that is wrong, plan in the same instant."""
_ON_POSTGRES = (2, 44)


@pytest.mark.parametrize("seed", _SEEDS)
def test_every_rule_of_the_ledger_is_kept(seed: int) -> None:
    """Whatever happens, each fire has one record, no limit is exceeded, and all comes to an end."""
    assert live_through(trial_of(seed)).problems == []


@pytest.mark.parametrize("seed", _ON_POSTGRES)
def test_every_rule_is_kept_on_postgresql(seed: int, postgres_url: str) -> None:
    """The same world over a real server, whose clock is simulated too."""
    settings = DatabaseSettings("trial", postgres_url, 4, timedelta(seconds=5), None, None)
    assert live_through(trial_of(seed), settings).problems == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_bug_is_found(mutation: Mutation) -> None:
    """A bug put into the planner or the claims on purpose breaks a rule in the world of its seed."""
    with sown(mutation):
        assert live_through(trial_of(mutation.shows_in)).problems


@pytest.mark.parametrize("seed", sorted({mutation.shows_in for mutation in MUTATIONS}))
def test_the_bug_is_gone_with_the_mutation(seed: int) -> None:
    """The same worlds keep every rule without the bug: it is the bug that was found."""
    assert live_through(trial_of(seed)).problems == []


def test_a_seed_always_comes_to_the_same_ledger() -> None:
    """A failure can be looked at again: nothing but the seed decides."""
    assert live_through(trial_of(2)).ledger == live_through(trial_of(2)).ledger
