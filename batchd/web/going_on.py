"""The boundary of the server's own loops: nothing that a turn raises may end one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from batchd.errors import BatchdError
from batchd.telemetry.logs import get_logger

log = get_logger()


@contextlib.contextmanager
def going_on(loop: str) -> Iterator[None]:
    """Log what the block raises, under the loop's name. That the store is away is told by the daemon itself."""
    try:
        yield
    except BatchdError:
        pass
    except Exception as error:  # noqa: BLE001 (a loop's boundary)
        log.warning("loop.failed", loop=loop, failures=1, reason=f"{type(error).__name__}: {error}")
