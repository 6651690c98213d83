"""A channel stays ours while its message is on its way: a mail server may take ten minutes over its answer.

A lease as long as the longest wait would be simpler, and would leave the channel of a daemon that was killed unserved
for as long. So the lease stays short, and is made new meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

from batchd.errors import BatchdError


@contextlib.contextmanager
def kept(renew: Callable[[], bool], every: timedelta) -> Iterator[None]:
    """Call `renew` that often, in a thread of its own, until the block is left or it says that nothing is left to keep.

    A store that is away for a moment is asked again; the lease ends by itself when it stays away.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=_renew, args=(renew, every, is_over), name="batchd-channel-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(every.total_seconds())


def _renew(renew: Callable[[], bool], every: timedelta, is_over: threading.Event) -> None:
    while not is_over.wait(every.total_seconds()):
        with contextlib.suppress(BatchdError):
            if not renew():
                return
