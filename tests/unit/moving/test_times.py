"""Times of other systems, one table each; the rows are what systemd-analyze and the tests of fugit and Whenever say."""

from __future__ import annotations

import tomllib

import pytest

from batchd.moving.cron_fields import Days, Dialect, Untranslatable, translate
from batchd.moving.rails.fugit import fugit_timing
from batchd.moving.ruby.syntax import Duration, Span, Symbol
from batchd.moving.ruby.times import cron_of
from batchd.moving.systemd.calendar import calendar_timing
from batchd.moving.toml_text import dollars_escaped, toml_value

_BOTH = Dialect("both", Days.BOTH)
_EITHER = Dialect("either", Days.EITHER)
_FROM_MONDAY = Dialect("from Monday", Days.BOTH, monday_is_zero=True)


@pytest.mark.parametrize(
    ("dialect", "written", "meant"),
    [
        (_BOTH, "0 0 1-7 * 1", "0 0 * * 1#1"),
        (_BOTH, "0 0 8-14 * tue", "0 0 * * 2#2"),
        (_BOTH, "0 0 1,15 * 1", "0 0 */31,15 * 1"),
        (_BOTH, "0 0 13 * 0", "0 0 13 * */7"),
        (_BOTH, "0 0 13 * *", "0 0 13 * *"),
        (_EITHER, "0 0 13 * 5", "0 0 13 * 5"),
        (_EITHER, "0 0 */2 * 1", "0 0 1-31/2 * 1"),
        (_EITHER, "0 22-2 * * fri-mon", "0 0-2,22,23 * * 0,1,5,6"),
        (_EITHER, "0 24 ? * 7", "0 0 * * 7"),
        (_EITHER, "*/10 * * * * *", "*/10 * * * * *"),
        (_EITHER, "5/20 * * * *", "5,25,45 * * * *"),
        (_EITHER, "0 9 * January Monday-Friday", "0 9 * 1 1-5"),
        (_EITHER, "0 0 last * mon#-1", "0 0 L * 1L"),
        (_FROM_MONDAY, "0 9 * * 0-4", "0 9 * * 1-5"),
        (_FROM_MONDAY, "0 9 * * 5,6", "0 9 * * 6,0"),
        (_FROM_MONDAY, "0 9 * * mon-fri", "0 9 * * mon-fri"),
    ],
)
def test_fields_keep_their_meaning(dialect: Dialect, written: str, meant: str) -> None:
    """AND and OR of days, numbers of weekdays, wrapping ranges and names become what batchd understands by them."""
    assert translate(written, dialect, "UTC").schedule == meant


def test_what_fields_cannot_say_becomes_a_guard() -> None:
    """A Friday the 13th is the 13th, and a test of the weekday."""
    timing = translate("0 0 13 * 5", _BOTH, "UTC")
    assert (timing.schedule, timing.guard) == ("0 0 13 * *", frozenset({5}))


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "* * * * 8", "0 0 31 2 *", "a b c d e", "*/0 * * * *"])
def test_what_never_fires_is_refused(text: str) -> None:
    """Fields that mean nothing, or no day at all, are refused."""
    with pytest.raises(Untranslatable):
        translate(text, _EITHER, "UTC")


@pytest.mark.parametrize(
    ("expression", "schedule", "zone"),
    [
        ("Mon..Fri 10:00", "0 10 * * 1-5", "Europe/Berlin"),
        ("*:0/15", "*/15 * * * *", "Europe/Berlin"),
        ("Mon *-*-1..7 04:00", "0 4 * * 1#1", "Europe/Berlin"),
        ("Mon *-05~07/1", "0 0 * 5 1L", "Europe/Berlin"),
        ("*-*~1 3:00", "0 3 L * *", "Europe/Berlin"),
        ("weekly", "0 0 * * 1", "Europe/Berlin"),
        ("2026-12-24 18:00", "at 2026-12-24T18:00:00", "Europe/Berlin"),
        ("*-*-* 00/2:00:00", "0 */2 * * *", "Europe/Berlin"),
        ("*:*:0/10", "*/10 * * * * *", "Europe/Berlin"),
        ("Mon,Wed..Fri 8..18:00", "0 8-18 * * 1,3-5", "Europe/Berlin"),
        ("*-1,7-1 3:30 Europe/London", "30 3 1 1,7 *", "Europe/London"),
        ("daily UTC", "0 0 * * *", "UTC"),
        ("12-24", "0 0 24 12 *", "Europe/Berlin"),
        ("Sat..Sun 12:05", "5 12 * * 0,6", "Europe/Berlin"),
        ("quarterly", "0 0 1 1,4,7,10 *", "Europe/Berlin"),
        ("*-*-1/2", "0 0 */2 * *", "Europe/Berlin"),
    ],
)
def test_calendar_expressions(expression: str, schedule: str, zone: str) -> None:
    """OnCalendar in its grammar: weekdays, dates, the end of a month, repetitions, zones, shorthands."""
    timing = calendar_timing(expression, "Europe/Berlin")
    assert (timing.schedule, timing.timezone, timing.guard) == (schedule, zone, None)


@pytest.mark.parametrize(
    "expression", ["", "Thu 2012-*-1 11:12", "*-*~3", "Sun..Mon 0:0", "nonsense", "*:61", "1:2:3:4"]
)
def test_calendar_expressions_that_batchd_lacks(expression: str) -> None:
    """What has no match is refused, never bent."""
    with pytest.raises(Untranslatable):
        calendar_timing(expression, "UTC")


@pytest.mark.parametrize(
    ("words", "schedule"),
    [
        ("every day at five", "0 5 * * *"),
        ("every weekday at five pm", "0 17 * * 1-5"),
        ("every 3h", "0 */3 * * *"),
        ("every 4M", "0 0 1 */4 *"),
        ("every 15 seconds", "*/15 * * * * *"),
        ("every 12 hours at minute 50", "50 */12 * * *"),
        ("every first of the month at midnight", "0 0 1 * *"),
        ("every month on the 1st and last at 12:00 pm", "0 12 1,L * *"),
        ("every day at 6pm and 8pm", "0 18,20 * * *"),
        ("every Mon,Tue,Wed,Thu,Fri at 18:00", "0 18 * * 1,2,3,4,5"),
        ("from Monday through Friday at 19:21", "21 19 * * 1-5"),
        ("every minute at second 10 and 40", "10,40 * * * * *"),
        ("every year at 20:10", "10 20 1 1 *"),
        ("every weekday 8am to 5pm on the minute", "* 8-16 * * 1-5"),
        ("at noon", "0 12 * * *"),
        ("at 5am every day", "0 5 * * *"),
        ("0 5 * * * *", "0 5 * * * *"),
        ("90s", "every 1m30s"),
    ],
)
def test_fugit_words(words: str, schedule: str) -> None:
    """Words of fugit, as fugit's own tests have them."""
    assert fugit_timing(words, "UTC").schedule == schedule


@pytest.mark.parametrize(
    "words", ["every blue moon", "every 2 weeks", "every day at 18:15 and 20:45", "every day at 25"]
)
def test_fugit_words_that_are_not_guessed(words: str) -> None:
    """A word that is not understood is refused, not left out."""
    with pytest.raises(Untranslatable):
        fugit_timing(words, "UTC")


@pytest.mark.parametrize(
    ("words", "zone"), [("every day at 5 pm in Asia/Tokyo", "Asia/Tokyo"), ("0 5 * * * Etc/GMT+5", "Etc/GMT+5")]
)
def test_fugit_zones(words: str, zone: str) -> None:
    """A zone at the end counts."""
    assert fugit_timing(words, "UTC").timezone == zone


@pytest.mark.parametrize(
    ("time", "at", "schedule"),
    [
        (Duration(2 * 3600), None, "0 0,2,4,6,8,10,12,14,16,18,20,22 * * *"),
        (Duration(5 * 3600), None, "0 5,10,15,20 * * *"),
        (Duration(300), 1, "1,6,11,16,21,26,31,36,41,46,51,56 * * * *"),
        (Duration(86_400), "4:30 am", "30 4 * * *"),
        (Duration(86_400), "noon", "0 12 * * *"),
        (Duration(86_400), Span(1, 3), "0 1-3 * * *"),
        (Duration(604_800), None, "0 0 1,8,15,22 * *"),
        (Duration(2_592_000), "3am", "0 3 1 * *"),
        (Symbol("hour"), None, "0 * * * *"),
        (Symbol("weekend"), "5:30pm", "30 17 * * 6,0"),
        (Symbol("reboot"), None, "@reboot"),
        ("0 0 27-31 * *", None, "0 0 27-31 * *"),
        ("sunday", "12pm", "0 12 * * 0"),
    ],
)
def test_whenever_times(time: object, at: object, schedule: str) -> None:
    """`every … at:` becomes the fields that Whenever would write."""
    assert cron_of(time, at) == (schedule, "")


def test_a_bare_clock_is_said_to_be_in_the_afternoon() -> None:
    """Chronic takes 4:30 for half past four in the afternoon; so does the conversion, and says so."""
    schedule, doubt = cron_of(Duration(86_400), "4:30")
    assert schedule == "30 16 * * *"
    assert "16:30" in doubt


@pytest.mark.parametrize(
    ("text", "escaped"), [("$HOME $5", "$HOME $5"), ("$$ ${A}", "$$$$ $${A}"), ("$${A}", "$$$${A}")]
)
def test_dollars_mean_the_same_after_the_config_is_read(text: str, escaped: str) -> None:
    """What batchd would replace is escaped, and nothing else."""
    assert dollars_escaped(text) == escaped


@pytest.mark.parametrize("value", ["a\"b'c\\d\te\n", "'", 'say "hi"', "\x1b[0m", {"a b": [1, True, {"c": "d"}]}, []])
def test_values_survive_toml(value: object) -> None:
    """Quotes, backslashes, control characters and nested values come back as they went in."""
    assert tomllib.loads(f"v = {toml_value(value)}") == {"v": value}
