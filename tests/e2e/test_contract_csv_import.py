"""csv_import keeps the contract of a kind: from a plain file without any key, and from packed ones with an inbox."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.app_table import opened
from tests.support.importing import HEADER, lines, rows, users_table
from tests.support.kind_contract import (
    Blows,
    Place,
    Trial,
    assert_dry_run_changes_nothing,
    assert_survives,
    disturbed,
    kills_of,
)

pytestmark = pytest.mark.timeout(900)

_RECORDS = 4_000
_COUNTS = ("records", "inserted", "updated", "skipped", "rejected", "bytes", "files")
_JOB = {"kind": "csv_import", "database": "app", "table": "users", "batch_size": 40, "pause": "4ms"}


def _bad(number: int) -> str:
    return f"b{number}@example.org,Bad,old,\n"


def _text(first: int, count: int) -> str:
    halves = range(first, first + count // 2), range(first + count // 2, first + count)
    return HEADER + lines(halves[0]) + _bad(first) + '"q@x","two\nlines",1,\n' + lines(halves[1])


def _prepare_plain(place: Place) -> None:
    with opened(place.app_url) as app:
        users_table(app, key=False)
    (place.folder / "users.csv").write_text(_text(0, _RECORDS))


def _prepare_inbox(place: Place) -> None:
    with opened(place.app_url) as app:
        users_table(app)
    inbox = place.folder / "inbox"
    inbox.mkdir(exist_ok=True)
    for number in range(4):
        text = _text(number * _RECORDS // 4, _RECORDS // 4).replace("q@x", f"q{number}@x")
        (inbox / f"{number}.csv.gz").write_bytes(gzip.compress(text.encode()))


def _outcome(place: Place) -> Any:
    with opened(place.app_url) as app:
        found = rows(app)
    files = sorted(str(path.relative_to(place.folder)) for path in place.folder.rglob("*.csv*"))
    rejects = [path.read_text() for path in sorted(place.folder.glob("rejects/*"))]
    return len(found), hash(tuple(found)), [name for name in files if "rejects" not in name], rejects


PLAIN = Trial(_JOB | {"path": "users.csv", "rejects_to": "rejects"}, _prepare_plain, _outcome, _COUNTS)
INBOX = Trial(
    _JOB | {"path": "inbox/*.csv.gz", "settle": "0s", "on_conflict": "update"}, _prepare_inbox, _outcome, _COUNTS
)


@disturbed
def test_a_file_without_a_key_is_imported_exactly_once(places: Callable[[], Place], blows: Blows) -> None:
    """Daemons ended at random moments lose no record, import none twice, and tell each bad one once."""
    assert_survives(PLAIN, places, blows=blows, seed=11)


def test_packed_files_in_an_inbox_are_imported_exactly_once(places: Callable[[], Place]) -> None:
    """Also where resuming means unpacking from the beginning, and where files are moved in between."""
    assert_survives(INBOX, places, blows=kills_of(8), seed=12)


@pytest.mark.parametrize("trial", [PLAIN, INBOX], ids=["file", "inbox"])
def test_a_dry_run_of_csv_import_changes_nothing(places: Callable[[], Place], trial: Trial) -> None:
    """It reads and checks everything; neither a row nor a file is different afterwards."""
    assert_dry_run_changes_nothing(trial, places())
