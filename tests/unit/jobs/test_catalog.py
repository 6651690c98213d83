"""Kinds are found by name, imported when needed, and a broken one is told of in one sentence."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from batchd.errors import BatchdError
from batchd.jobs.catalog import ENTRY_POINTS, Kinds, kinds


def of(value: str, name: str = "mine") -> Kinds:
    """Return a catalog of one foreign kind."""
    return Kinds({}, {name: EntryPoint(name, value, ENTRY_POINTS)})


def test_every_kind_is_named_as_it_calls_itself() -> None:
    """The name in the config, the module and the record agree; all of them load."""
    assert {name: kind.name for name, kind in kinds().items()} == {name: name for name in kinds()}
    assert "cleanup" in kinds()
    assert len(kinds()) == len(list(kinds()))


def test_a_kind_is_imported_when_somebody_asks_for_it() -> None:
    """A daemon that only cleans up does not pay for reports."""
    asked = (
        "import sys; from batchd.jobs.catalog import kinds; 'report' in kinds(); kinds()['cleanup'];"
        "print([name for name in sys.modules if name.startswith('batchd.jobs.kinds.')])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['batchd.jobs.kinds.cleanup']"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module_at_all:KIND", "the kind 'mine' of no_such_module_at_all:KIND cannot be loaded: No module"),
        ("batchd.jobs.kinds.cleanup:run", "batchd.jobs.kinds.cleanup:run is not a Kind"),
        ("batchd.jobs.kinds.cleanup:KIND", "calls itself 'cleanup', and is registered as 'mine'"),
    ],
)
def test_a_broken_kind_is_told_of(value: str, said: str) -> None:
    """Which one, and what is wrong with it."""
    with pytest.raises(BatchdError, match=said):
        of(value)["mine"]


def test_what_is_no_kind_is_a_missing_key() -> None:
    """As with every mapping."""
    with pytest.raises(KeyError):
        of("batchd.jobs.kinds.cleanup:KIND")["yours"]
    assert of("batchd.jobs.kinds.cleanup:KIND").get("yours") is None


def test_the_fingerprint_changes_with_what_there_is() -> None:
    """A daemon need not import the kinds to know that the store has heard of them."""
    assert kinds().fingerprint() == kinds().fingerprint()
    assert of("a:KIND").fingerprint() != of("b:KIND").fingerprint() != of("b:KIND", "other").fingerprint()
