"""What people write on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from batchd.cli.types import Duration, IsoMoment, Override, RunId, Since


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("dry_run=true", ("dry_run", True)),
        ("batch_size=500", ("batch_size", 500)),
        ("older_than=7d", ("older_than", "7d")),
        ("where=a = 'b'", ("where", "a = 'b'")),
        ('code="5"', ("code", "5")),
        ("note=", ("note", "")),
        ("names=[1, 2]", ("names", [1, 2])),
    ],
)
def test_an_override_is_json_where_it_is_json(written: str, value: tuple[str, object]) -> None:
    """Else the text as it stands, equals signs and all."""
    assert Override().convert(written, None, None) == value


@pytest.mark.parametrize("written", ["dry_run", "=5", ""])
def test_an_override_needs_a_key_and_an_equals_sign(written: str) -> None:
    """Anything else is bad usage."""
    with pytest.raises(click.BadParameter, match="KEY=VALUE"):
        Override().convert(written, None, None)


def test_since_is_a_moment_or_how_long_ago() -> None:
    """With an offset, or as an age."""
    assert Since().convert("2026-11-24T03:15+01:00", None, None) == datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
    age = datetime.now(UTC) - Since().convert("90m", None, None)
    assert timedelta(minutes=89) < age < timedelta(minutes=91)
    with pytest.raises(click.BadParameter):
        Since().convert("yesterday", None, None)


def test_a_bare_moment_stays_naive_for_the_command_to_place() -> None:
    """The command knows whose local time is meant."""
    assert IsoMoment().convert("2026-10-24", None, None) == datetime(2026, 10, 24)  # noqa: DTZ001 (the point)
    with pytest.raises(click.BadParameter):
        IsoMoment().convert("soon", None, None)


def test_a_duration_is_written_as_everywhere() -> None:
    """And refused with advice."""
    assert Duration().convert("90s", None, None) == timedelta(seconds=90)
    with pytest.raises(click.BadParameter, match="unit"):
        Duration().convert("90", None, None)


@pytest.mark.parametrize("written", ["0", "-5", "abc", "9" * 30, "1.5", ""])
def test_a_run_is_a_number_that_a_store_can_hold(written: str) -> None:
    """Anything else is bad usage, and the message says where to find one."""
    assert RunId().convert("42", None, None) == 42
    with pytest.raises(click.BadParameter, match="batchd runs"):
        RunId().convert(written, None, None)


@pytest.mark.parametrize("written", ["0001-01-01", "9999-12-31T23:59"])
def test_a_moment_lies_where_every_zone_has_one(written: str) -> None:
    """At the ends of the calendar an offset leads out of it."""
    with pytest.raises(click.BadParameter, match="1970"):
        IsoMoment().convert(written, None, None)
