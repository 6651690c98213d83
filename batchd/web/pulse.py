"""What the daemon says about itself through shared memory: it can be read while the daemon is stopped or hangs.

The daemon's main thread writes once a second, and the server counts up a number beside it. Moments are those of
`SystemClock.monotonic`, which all processes of the machine share. A reader that finds an old `written_at` knows that
the rest is old as well.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

from batchd.domain.surface import Phase

_LAYOUT = struct.Struct("<Qddd")
_SERVED = struct.Struct("<Q")
_SERVED_AT = 64
_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Beat:
    """One reading. Moments are monotonic seconds, 0 for never."""

    phase: Phase
    written_at: float
    planned_at: float
    renewed_at: float


class Pulse:
    """A page of memory that both processes share; each writes its own part of it."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("batchd-pulse") if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)

    def write(self, beat: Beat) -> None:
        """Publish the beat; for the daemon's main thread."""
        _LAYOUT.pack_into(
            self._memory,
            0,
            beat.phase,
            beat.written_at,
            beat.planned_at,
            beat.renewed_at,
        )

    def read(self) -> Beat:
        """Return the last beat."""
        phase, *moments = _LAYOUT.unpack_from(self._memory, 0)
        return Beat(Phase(phase), *moments)

    def move(self) -> None:
        """Show that the server moves; for its event loop."""
        _SERVED.pack_into(self._memory, _SERVED_AT, (self.served() + 1) % 2**64)

    def served(self) -> int:
        """Return the number that the server counts up."""
        return int(_SERVED.unpack_from(self._memory, _SERVED_AT)[0])
