"""A secret in every server URL of the suite, and the check that none of the suite's output ever shows it.

The servers trust everybody on their socket, so the password opens nothing. Every process that a test starts is checked
when it ends, everything that a test printed or logged in this process when the test is over.
"""

from __future__ import annotations

CANARY = "canary-9d41c7-in-every-url"


def assert_no_canary(output: str, source: str) -> None:
    """Fail when the output shows the planted secret."""
    found = [line for line in output.splitlines() if CANARY in line]
    assert not found, f"{source} shows a secret: {found[0].replace(CANARY, '<the secret>')[:500]}"
