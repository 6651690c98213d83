"""What a command writes: the first lines go into the run's log, the last into its result, none else into memory."""

from __future__ import annotations

from collections import deque

from batchd.jobs.contract import Log

_LONGEST_LINE = 4_000
_LAST_WORD = 500
_LONGEST_TOLD = 1_000


class Lines:
    """Takes both streams as they come. For one thread."""

    def __init__(self, log: Log, *, logged: int, kept: int) -> None:
        self.counts = {"stdout": 0, "stderr": 0}
        self._log = log
        self._left = logged
        self._kept: deque[tuple[str, str]] = deque(maxlen=kept)
        self._parts = {"stdout": b"", "stderr": b""}
        self._is_long = {"stdout": False, "stderr": False}

    def feed(self, stream: str, data: bytes) -> None:
        """Take what has come; a line counts when its end is there."""
        *ended, rest = data.split(b"\n")
        if not ended:
            self._add(stream, rest)
            return
        self._add(stream, ended[0])
        self._end(stream)
        whole = ended[1:]
        self.counts[stream] += len(whole)
        # Of a flood only what is shown is looked at.
        shown = whole if self._left else whole[max(0, len(whole) - (self._kept.maxlen or 0)) :]
        for line in shown:
            self._tell(stream, line[:_LONGEST_LINE], is_long=len(line) > _LONGEST_LINE)
        self._add(stream, rest)

    def close(self) -> None:
        """Count what had no line end, and say when not all was logged."""
        for stream, part in self._parts.items():
            if part or self._is_long[stream]:
                self._end(stream)
        logged = sum(self.counts.values())
        if not self._left and logged:
            self._log.info("command.output_cut", lines=logged)

    def last(self) -> list[str]:
        """Return the last lines of both streams."""
        return [line[:_LONGEST_TOLD] for _, line in self._kept]

    def last_of(self, stream: str) -> str | None:
        """Return the last line of a stream that is not blank, among those that are kept."""
        return next((line for of, line in reversed(self._kept) if of == stream and line.strip()), None)

    def _add(self, stream: str, part: bytes) -> None:
        room = _LONGEST_LINE - len(self._parts[stream])
        self._parts[stream] += part[:room]
        self._is_long[stream] |= len(part) > room

    def _end(self, stream: str) -> None:
        line, is_long = self._parts[stream], self._is_long[stream]
        self._parts[stream], self._is_long[stream] = b"", False
        self.counts[stream] += 1
        self._tell(stream, line, is_long=is_long)

    def _tell(self, stream: str, line: bytes, *, is_long: bool) -> None:
        text = (
            _without_torn_word(line).decode("utf-8", "replace") + " …" if is_long else line.decode("utf-8", "replace")
        )
        # As a terminal shows it: what a progress bar wrote last over its line.
        text = text.rstrip("\r").rpartition("\r")[2]
        self._kept.append((stream, text))
        if self._left and text:
            self._left -= 1
            self._log.info("command.output", stream=stream, line=text)


def _without_torn_word(line: bytes) -> bytes:
    """Return the line up to its last blank: half a secret would not be recognised and masked."""
    head, tail = line[:-_LAST_WORD], line[-_LAST_WORD:]
    return head + tail.rpartition(b" ")[0]
