"""Which answers are asked for again, and when: decisions only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_ASK_AGAIN = frozenset({408, 425, 429})
_SERVER_FAULT = 500
_FIRST_PAUSE = timedelta(milliseconds=500)
_LONGEST_PAUSE = timedelta(minutes=1)
_MOST_DOUBLINGS = 16


class AskAgain(Exception):
    """The request may do better in a moment; `asked` is how long the server asks to wait."""

    def __init__(self, reason: str, asked: timedelta | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


def is_asked_again(status: int) -> bool:
    """Whether the same request may do better later: 408, 425, 429 and every 5xx."""
    return status in _ASK_AGAIN or status >= _SERVER_FAULT


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """Return how long the server asks to wait, in seconds or until a date (RFC 9110, 10.2.3); None when it does not."""
    if header is None:
        return None
    text = header.strip()
    try:
        if text.isdecimal():
            return timedelta(seconds=int(text))
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(timedelta(0), moment - now)


def pause_before(attempt: int, *, dice: float, asked: timedelta | None) -> timedelta:
    """Return the pause before attempt number `attempt` + 1; `dice` is a random number from 0 to 1.

    Exponential from half a second to a minute, half of it jitter, so that many clients of a server that comes back do
    not come back together. Never less than the server asked for.
    """
    doubled: timedelta = _FIRST_PAUSE * 2 ** min(attempt - 1, _MOST_DOUBLINGS)
    longest = min(_LONGEST_PAUSE, doubled)
    pause = longest * (0.5 + dice / 2)
    return pause if asked is None else asked + min(pause, timedelta(seconds=1))
