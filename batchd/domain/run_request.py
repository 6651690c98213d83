"""What somebody outside the daemon asks for: a run, checked as far as that needs no store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict

from batchd.domain.job import Backoff, JsonObject, JsonValue
from batchd.domain.quantities import parse_duration
from batchd.errors import EnqueueRefused

Span: TypeAlias = timedelta | str | float
"""A length of time: a timedelta, a text such as "5m", or a number of seconds."""

LARGEST_PRIORITY = 1_000
MOST_ATTEMPTS = 1_000
LONGEST_UNIQUE_KEY = 200
MOST_TAGS = 50
LONGEST_TAG = 100

_LONGEST_SPAN = timedelta(days=3650).total_seconds()
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Options(TypedDict, total=False):
    """The options of `Client.enqueue`; see `RunRequest`."""

    queue: str | None
    priority: int | None
    at: datetime | str | None
    delay: Span | None
    max_attempts: int | None
    backoff: str | None
    retry_delay: Span | None
    max_retry_delay: Span | None
    jitter: float | None
    timeout: Span | None
    unique_key: str | None
    unique_period: Span | None
    on_conflict: Literal["keep", "replace"]
    tags: Sequence[str]
    metadata: Mapping[str, JsonValue] | None
    mutex: str | None
    limit_key: str | None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to queue: of a job of the config or, where there is no such job, of a kind.

    `params` replace the job's, one by one. What is left None is the job's own setting, or batchd's default.

    - `queue`, `priority` (higher first), `timeout` of an attempt.
    - `at` (aware) or `delay`: when it may start; at once by default.
    - `max_attempts`, `backoff` ("exponential", "linear", "fixed"), `retry_delay`, `max_retry_delay`, `jitter` (0 to 1).
    - `unique_key`: nothing is queued while an unfinished run has it, nor within `unique_period` after one was queued
      that succeeded. `on_conflict="replace"` then gives a run that has not begun the new params, time and settings.
    - `mutex`, `limit_key`: what the run holds while it runs, and whose limit it counts for, instead of the job's.
    - `tags` and `metadata` are kept with the run and mean nothing to batchd.

    Raises EnqueueRefused at once for a value that cannot be.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    at: datetime | str | None = None
    delay: Span | None = None
    max_attempts: int | None = None
    backoff: str | None = None
    retry_delay: Span | None = None
    max_retry_delay: Span | None = None
    jitter: float | None = None
    timeout: Span | None = None
    unique_key: str | None = None
    unique_period: Span | None = None
    on_conflict: Literal["keep", "replace"] = "keep"
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    mutex: str | None = None
    limit_key: str | None = None
    document: str = field(init=False, repr=False)
    """The request as `batchd_enqueue_many` takes it."""

    def __post_init__(self) -> None:
        _text(self.name, "name")
        if self.at is not None and self.delay is not None:
            raise EnqueueRefused("give either at or delay, not both")
        if self.unique_key is None and (self.unique_period is not None or self.on_conflict != "keep"):
            raise EnqueueRefused("unique_period and on_conflict need a unique_key")
        written = f'{{"name": {_encode(self.name)}, "params": {_json_object(self.params, "params")}'
        for key, checked in _CHECKS.items():
            value = getattr(self, key)
            if value is not None:
                written += f', "{key}": {_encode(checked(value, key))}'
        if retry := self._retry():
            written += f', "retry": {_encode(retry)}'
        if self.unique_key is not None:
            written += f', "on_conflict": {_encode(_one_of(self.on_conflict, "on_conflict", ("keep", "replace")))}'
        if self.tags:
            written += f', "tags": {_encode(list(_tags(self.tags)))}'
        if self.metadata:
            written += f', "metadata": {_json_object(self.metadata, "metadata")}'
        object.__setattr__(self, "document", written + "}")

    def _retry(self) -> JsonObject:
        if self.backoff is None and self.retry_delay is None and self.max_retry_delay is None and self.jitter is None:
            return {}
        given: JsonObject = {
            "backoff": None if self.backoff is None else _one_of(self.backoff, "backoff", tuple(Backoff)),
            "delay_seconds": None if self.retry_delay is None else _seconds(self.retry_delay, "retry_delay"),
            "max_delay_seconds": (
                None if self.max_retry_delay is None else _seconds(self.max_retry_delay, "max_retry_delay")
            ),
            "jitter": None if self.jitter is None else _fraction(self.jitter, "jitter"),
        }
        return {key: value for key, value in given.items() if value is not None}


def require_storable(params: Mapping[str, object]) -> None:
    """Raise EnqueueRefused when the params hold what no store can: NUL, half a character, what is not JSON."""
    _json_object(params, "params")


def _text(value: object, what: str, longest: int | None = None) -> str:
    if not isinstance(value, str) or not value or "\x00" in value:
        raise EnqueueRefused(f"{what} must be a text that is not empty, and is {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EnqueueRefused(f"{what} is no text that can be stored: {value!r}") from None
    if longest is not None and len(value) > longest:
        raise EnqueueRefused(f"{what} has {len(value)} characters; {longest} is the most")
    return value


def _whole(value: object, what: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise EnqueueRefused(f"{what} must be a whole number from {least} to {most}, and is {value!r}")
    return value


def _fraction(value: object, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise EnqueueRefused(f"{what} must be a number from 0 to 1, and is {value!r}")
    return float(value)


def _seconds(value: object, what: str, *, may_be_zero: bool = True) -> float:
    match value:
        case timedelta():
            seconds = value.total_seconds()
        case str():
            try:
                seconds = parse_duration(value).total_seconds()
            except ValueError as error:
                raise EnqueueRefused(f"{what}: {error}") from None
        case int() | float() if not isinstance(value, bool):
            seconds = float(value)
        case _:
            raise EnqueueRefused(f"{what} must be a timedelta, a text such as '5m' or a number of seconds")
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not may_be_zero) or seconds > _LONGEST_SPAN:
        raise EnqueueRefused(f"{what} must be {'from 0' if may_be_zero else 'more than 0'} to 10 years long")
    return seconds


def _moment(value: object, _what: str = "at") -> str:
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise EnqueueRefused(f"at: {value!r} is not ISO 8601, such as '2027-01-01T09:00:00+01:00'") from None
    if not isinstance(moment, datetime):
        raise EnqueueRefused("at must be a datetime or a text in ISO 8601")
    if moment.tzinfo is None:
        raise EnqueueRefused(f"at: {value!s} has no time zone, so nobody can say when it is")
    try:
        return moment.astimezone(UTC).isoformat()
    except OverflowError:
        raise EnqueueRefused(f"at: {value!s} is beyond the calendar") from None


def _one_of(value: str, what: str, words: Sequence[str]) -> str:
    if value not in words:
        raise EnqueueRefused(f"{what} must be one of {', '.join(words)}, and is {value!r}")
    return str(value)


def _tags(value: Sequence[str]) -> Sequence[str]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset) or len(value) > MOST_TAGS:
        raise EnqueueRefused(f"tags must be a list of at most {MOST_TAGS} texts")
    for tag in value:
        _text(tag, "a tag", LONGEST_TAG)
    return value


def _json_object(value: object, what: str) -> str:
    if not isinstance(value, dict | Mapping):  # a dict is found out quickly, any other mapping is not
        raise EnqueueRefused(f"{what} must be a mapping, and is {type(value).__name__}")
    try:
        written = _encode(value if isinstance(value, dict) else dict(value))
        written.encode()
    except (TypeError, ValueError, RecursionError) as error:
        hint = "write moments and amounts as texts, sets as lists"
        raise EnqueueRefused(f"{what} hold what is not JSON: {error}", hint=hint) from None
    if "\\u0000" in written and _NUL.search(written):
        raise EnqueueRefused(f"{what} hold the character NUL, which no database stores in JSON")
    return written


_CHECKS: Mapping[str, Callable[[Any, str], JsonValue]] = {
    "queue": _text,
    "priority": lambda value, what: _whole(value, what, -LARGEST_PRIORITY, LARGEST_PRIORITY),
    "at": _moment,
    "delay": _seconds,
    "max_attempts": lambda value, what: _whole(value, what, 1, MOST_ATTEMPTS),
    "timeout": lambda value, what: _seconds(value, what, may_be_zero=False),
    "unique_key": lambda value, what: _text(value, what, LONGEST_UNIQUE_KEY),
    "mutex": lambda value, what: _text(value, what, LONGEST_UNIQUE_KEY),
    "limit_key": lambda value, what: _text(value, what, LONGEST_UNIQUE_KEY),
    "unique_period": lambda value, what: _seconds(value, what, may_be_zero=False),
}
"""How each option is checked, and what it becomes in the document."""
