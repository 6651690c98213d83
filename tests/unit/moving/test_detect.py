"""Which system a file is of."""

from __future__ import annotations

import pytest

from batchd.errors import UsageError
from batchd.moving.detect import System, detect
from batchd.moving.found import Source
from tests.unit.moving.golden import GOLDEN

_EXPECTED = {
    "crontab": {System.CRONTAB},
    "system-crontab": {System.CRONTAB},
    "systemd": {System.SYSTEMD},
    "whenever": {System.WHENEVER},
    "sidekiq": {System.SIDEKIQ, System.SIDEKIQ_CRON},
    "solid-queue": {System.SOLID_QUEUE},
    "good-job": {System.GOOD_JOB},
    "vercel": {System.VERCEL},
    "bullmq": {System.BULLMQ},
    "node-cron": {System.BULLMQ},
    "celery": {System.CELERY},
    "apscheduler": {System.APSCHEDULER},
    "several": {System.CRONTAB, System.VERCEL},
}


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_files_are_known_by_their_names(golden: object) -> None:
    """Each file of the golden conversions is what it is."""
    found = {detect(Source(file, (golden.folder / file).read_bytes())) for file in golden.files}  # type: ignore[attr-defined]
    assert found == _EXPECTED[golden.name]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("crontab", "crontab"),
        ("vercel", "vercel.json"),
        ("whenever", "config/schedule.rb"),
        ("celery", "shop/celery.py"),
    ],
)
def test_what_comes_through_a_pipe_is_known_by_its_content(name: str, file: str) -> None:
    """`crontab -l | batchd convert -` needs no --from."""
    golden = next(each for each in GOLDEN if each.name == name)
    assert detect(Source("-", (golden.folder / file).read_bytes())) in _EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "data"), [("notes.txt", b"buy milk"), ("a.py", b"print(1)"), ("b.yml", b"a: 1\n"), ("-", b"")]
)
def test_what_is_unclear_is_asked_for(name: str, data: bytes) -> None:
    """A file that could be anything is answered with the names that --from takes."""
    with pytest.raises(UsageError, match="cannot tell what this is") as caught:
        detect(Source(name, data))
    assert "crontab" in str(caught.value.hint)
    assert "solid-queue" in str(caught.value.hint)
