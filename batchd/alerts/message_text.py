"""A message in words: the title, one paragraph an entry, and where to look."""

from __future__ import annotations

from datetime import datetime

from batchd.alerts.channel import Entry, Message
from batchd.domain.alert import AlertRule, Told, spoken

_MOST_ENTRIES = 20
_LONGEST_SUMMARY = 600
_LONGEST_TITLE = 150

_HEADLINES = {
    AlertRule.FAILED.value: "{subject} failed",
    AlertRule.FIRST_FAILURE.value: "{subject} failed for the first time",
    AlertRule.MISSED.value: "{subject} did not run in time",
    AlertRule.TOO_LONG.value: "{subject} takes too long",
    AlertRule.TOO_QUIET.value: "{subject} had nothing to do",
    AlertRule.QUARANTINED.value: "{subject}: a run is not understood",
    AlertRule.DAEMON_LOST.value: "daemon {subject} is gone",
    AlertRule.QUEUE_LATENCY.value: "queue {subject} is too slow",
}
_AGAIN = {Told.REMINDER: "still: ", Told.RECOVERED: "recovered: "}


def headline(entry: Entry) -> str:
    """Return what happened, on one line and without its reason."""
    if entry.told is Told.TEST:
        return "a test: alerts of batchd arrive here"
    if entry.told in {Told.START, Told.SUCCESS, Told.FAIL}:
        return f"{entry.subject}: {entry.told.value}"
    known = _HEADLINES.get(entry.rule, "{subject}: " + entry.rule.replace("{", "").replace("}", ""))
    return _AGAIN.get(entry.told, "") + known.replace("{subject}", entry.subject)


def title(message: Message) -> str:
    """Return the message on one line: what happened, or how much did."""
    first = headline(message.entries[0])
    if len(message.entries) == 1:
        return first[:_LONGEST_TITLE]
    well = sum(entry.told is Told.RECOVERED for entry in message.entries)
    wrong = len(message.entries) - well
    counts = [f"{wrong} alerts" if wrong != 1 else "1 alert"] if wrong else []
    counts += [f"{well} recovered"] if well else []
    return f"{', '.join(counts)}: {first}, …"[:_LONGEST_TITLE]


def lines_of(entry: Entry) -> list[str]:
    """Return what there is to say beyond the headline; the link is left to whoever shows it."""
    lines = []
    if entry.summary:
        lines.append(_short(entry.summary))
    closing = entry.details.get("closing")
    if entry.told is Told.RECOVERED and isinstance(closing, str) and closing:
        lines.append(_short(closing))
    if entry.opened_at is not None:
        lines.append(_when(entry))
    if entry.run_id is not None:
        lines.append(f"look: batchd show {entry.run_id}")
    elif entry.incident_id is not None:
        lines.append(f"look: batchd alerts show {entry.incident_id}")
    return lines


def text(message: Message) -> str:
    """Return the whole message as plain text."""
    shown = message.entries[:_MOST_ENTRIES]
    paragraphs = [
        "\n".join([headline(entry), *(f"  {line}" for line in (*lines_of(entry), *filter(None, [entry.link])))])
        for entry in shown
    ]
    left = len(message.entries) - len(shown)
    if left:
        paragraphs.append(f"… and {left} more; `batchd alerts` lists what is open")
    return "\n\n".join(paragraphs) + "\n"


def _when(entry: Entry) -> str:
    assert entry.opened_at is not None
    times = f", seen {entry.count} times" if entry.count > 1 else ""
    if entry.closed_at is not None:
        lasted = spoken(max(entry.closed_at - entry.opened_at, entry.closed_at - entry.closed_at))
        return f"from {_moment(entry.opened_at)} to {_moment(entry.closed_at)} ({lasted}){times}"
    return f"since {_moment(entry.opened_at)}{times}"


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _short(text_: str) -> str:
    one = " ".join(text_.split())
    return one if len(one) <= _LONGEST_SUMMARY else one[: _LONGEST_SUMMARY - 1] + "…"
