"""cleanup keeps the contract of a kind, with its archive."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.app_table import CLEANUP, GOES, STAYS, count_victims, make_victims
from tests.support.kind_contract import Blows, Place, Trial, assert_dry_run_changes_nothing, assert_survives, disturbed

pytestmark = pytest.mark.timeout(600)

_GOING = 3_000


def _prepare(place: Place) -> None:
    make_victims(place.app_url, staying=500, going=_GOING)


def _outcome(place: Place) -> Any:
    archive = place.folder / "gone.jsonl.gz"
    lines = gzip.decompress(archive.read_bytes()).splitlines() if archive.exists() else []
    left = (count_victims(place.app_url, GOES), count_victims(place.app_url, STAYS))
    return *left, len(lines), len(set(lines))


TRIAL = Trial(CLEANUP | {"archive_to": "gone.jsonl.gz"}, _prepare, _outcome, results=("rows_deleted",))


@disturbed
def test_cleanup_ends_as_if_nothing_had_happened(places: Callable[[], Place], blows: Blows) -> None:
    """Daemons ended at random moments lose no row, delete none twice and archive each once."""
    assert_survives(TRIAL, places, blows=blows, seed=3)


def test_a_dry_run_of_cleanup_changes_nothing(places: Callable[[], Place]) -> None:
    """It counts, and neither deletes nor writes a file."""
    assert_dry_run_changes_nothing(TRIAL, places())
