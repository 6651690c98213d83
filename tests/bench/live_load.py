"""The load of `tests.bench.bench_live`, in a process of its own: listeners that read, and requests at an even pace.

Prints what it did as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time

_PATHS = ("/api/v1/runs?limit=20", "/api/v1/jobs", "/api/v1/queues", "/api/v1/runs/1", "/healthz")
_CONNECTIONS = 20


class Load:
    """Both sorts of clients on one server."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self.events = 0
        self.connected = 0
        self.took: list[float] = []
        self.statuses: dict[int, int] = {}

    async def listen(self, until: float) -> None:
        """Follow everything and count the events."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._request("/api/v1/events"))
        await reader.readuntil(b"\r\n\r\n")
        self.connected += 1
        while (left := until - time.monotonic()) > 0:
            try:
                line = await asyncio.wait_for(reader.readline(), left)
            except TimeoutError:
                break
            if not line:
                self.connected -= 1
                break
            self.events += line.startswith(b"event:")
        writer.close()

    async def ask(self, number: int, rate: float, until: float) -> None:
        """Send every twentieth request of the whole, each on time or as soon as the one before is answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        began = time.monotonic()
        count = 0
        while True:
            due = began + (count * _CONNECTIONS + number) / rate
            if due >= until:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sent = time.monotonic()
            writer.write(self._request(_PATHS[count % len(_PATHS)]))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
            self.took.append(time.monotonic() - sent)
            status = int(head.split()[1])
            self.statuses[status] = self.statuses.get(status, 0) + 1
            count += 1
        writer.close()

    def _request(self, path: str) -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: localhost:{self._port}\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        ).encode()


async def run(port: int, token: str, listeners: int, rate: float, seconds: float) -> Load:
    """Put the load on the server for so long."""
    load = Load(port, token)
    until = time.monotonic() + seconds
    following = [asyncio.create_task(load.listen(until)) for _ in range(listeners)]
    asking = [asyncio.create_task(load.ask(number, rate, until)) for number in range(_CONNECTIONS)]
    await asyncio.gather(*following, *asking)
    return load


def main() -> None:
    """Read the arguments, and the token from the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--listeners", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    began = time.monotonic()
    load = asyncio.run(run(given.port, os.environ["TOKEN"], given.listeners, given.rate, given.seconds))
    took = sorted(load.took) or [given.seconds]
    said = {
        "listeners": load.connected,
        "events": load.events,
        "requests_per_second": round(len(took) / (time.monotonic() - began), 1),
        "statuses": load.statuses,
        "answer_p50_ms": round(took[len(took) // 2] * 1000, 1),
        "answer_p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1),
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
