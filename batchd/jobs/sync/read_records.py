"""Records whose texts were read without reading the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from batchd.db.staging import Texts


class ReadRecords(Sequence[Any]):
    """Records whose texts are known. `moments` holds their moments of change, when somebody asked for these.

    The records themselves are parsed when somebody looks at one, to say what is wrong with it.
    """

    def __init__(self, texts: Sequence[Texts], moments: Sequence[Any], parse: Callable[[], Sequence[Any]]) -> None:
        self.texts = texts
        self.moments = moments
        self._parse = parse
        self._parsed: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if self._parsed is None:
            self._parsed = self._parse()
        return self._parsed[index]


def joined(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Return the records of several pages as one, read if all of them are."""
    if len(parts) == 1:
        return parts[0]
    read = [part for part in parts if isinstance(part, ReadRecords)]
    if len(read) < len(parts):
        return [record for part in parts for record in part]
    return ReadRecords(
        [texts for part in read for texts in part.texts],
        [moment for part in read for moment in part.moments],
        lambda: [record for part in read for record in part],
    )
