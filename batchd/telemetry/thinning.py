"""An error that repeats is told first, then ever more rarely with a count, then its end."""

from __future__ import annotations

_TELL_AFTER_SECONDS = (0.0, 60.0, 600.0, 3600.0)


class Thinning:
    """Decides which repeats of one condition to tell. For one thread; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self.count = 0
        self._since = 0.0
        self._told = 0
        self._last_told = 0.0

    def failed(self, now: float) -> bool:
        """Count a failure; return whether to tell of it: the first, then after 1 and 10 minutes, then each hour."""
        if self.count == 0:
            self._since, self._told = now, 0
        self.count += 1
        due = _TELL_AFTER_SECONDS[min(self._told, len(_TELL_AFTER_SECONDS) - 1)]
        is_due = now - self._since >= due if self._told < len(_TELL_AFTER_SECONDS) else now - self._last_told >= due
        if is_due:
            self._told += 1
            self._last_told = now
        return is_due

    def recovered(self, now: float) -> float | None:
        """Say that it is well; return how many seconds it was not, or None if it was."""
        if self.count == 0:
            return None
        self.count = 0
        return now - self._since
