"""Takes secrets out of log lines, last of all: by the name of the field, by known values, and out of URLs."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

MASK = "***"

_HARMLESS = frozenset({int, bool, type(None)})
"""What is no secret under any name. Most fields are such; to look no further makes a line cheaper by half."""

_NUMBERS = (int, float)
_LISTS = (list, tuple, set, frozenset)
"""Tuples, since `int | float` would be made anew with each look."""

_KEYS = re.compile(r"password|passwd|secret|token|authorization|cookie|dsn|api_?key", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(@)", re.IGNORECASE)
_QUERY = re.compile(r"([?&][^=&\s]*(?:password|secret|token|key)[^=&\s]*=)[^&\s\"']+", re.IGNORECASE)


@functools.lru_cache(maxsize=4_096)
def _is_secret(key: str) -> bool:
    return _KEYS.search(key) is not None


@functools.lru_cache(maxsize=1_024)
def _has_secret(keys: tuple[str, ...]) -> bool:
    return any(map(_is_secret, keys))


def _is_plain(kind: type, value: Any) -> bool:
    """Return whether it is a number that JSON has, or an empty object: an empty result is in most runs' last line."""
    return math.isfinite(value) if kind is float else kind is dict and not value


class Masker:
    """Masks any JSON-like value. Any thread may call it."""

    def __init__(self, secrets: Collection[str]) -> None:
        longest_first = sorted((secret for secret in secrets if secret), key=len, reverse=True)
        self._values = re.compile("|".join(re.escape(secret) for secret in longest_first)) if longest_first else None

    def masked_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields without secrets: as they are where one look at all of their texts together finds none."""
        if _has_secret(tuple(fields)):
            return self._masked_dict(fields)
        texts = []
        for value in fields.values():
            kind = type(value)
            if kind is str:
                texts.append(value)
            elif kind not in _HARMLESS and not _is_plain(kind, value):
                return self._masked_dict(fields)
        text = "\n".join(texts)
        return fields if self.text(text) == text else self._masked_dict(fields)

    def masked(self, value: Any) -> Any:
        """Return the value without secrets, however deep they stand."""
        kind = type(value)
        if kind in _HARMLESS:
            return value
        if kind is str or isinstance(value, str):
            return self.text(value)
        if kind is dict or isinstance(value, Mapping):
            return self._masked_dict(value)
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no word for it
        if isinstance(value, _NUMBERS):
            return value
        if isinstance(value, _LISTS):
            return [self.masked(inner) for inner in value]
        return self.text(str(value))

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._values is not None:
            text = self._values.sub(MASK, text)
        if "://" in text or "=" in text:
            text = _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}\2", text))
        return text

    def _masked_dict(self, value: Mapping[Any, Any]) -> dict[Any, Any]:
        return {key: inner if type(inner) in _HARMLESS else self._field(key, inner) for key, inner in value.items()}

    def _field(self, key: Any, value: Any) -> Any:
        if isinstance(key, str) and _is_secret(key) and not isinstance(value, _NUMBERS):
            return MASK
        return self.text(value) if type(value) is str else self.masked(value)
