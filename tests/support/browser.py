"""A real headless Chromium for the tests, and axe-core to judge pages by.

Both come from the machine's package registries: Chromium as Debian's package, axe-core through npm, kept in a cache
outside of the checkout. `.ci/setup dev` installs them where it may; a test that finds them missing fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from playwright.sync_api import Browser, Page, sync_playwright

AXE_VERSION = "4.14.1"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SERIOUS = frozenset({"serious", "critical"})
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Yield the browser; fails when there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    assert found, "no Chromium here; install it (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def axe_source() -> str:
    """Return axe-core's script, from the cache; npm brings it there the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "batchd-tests" / f"axe-{AXE_VERSION}"
    script = cache / "package" / "axe.min.js"
    if not script.exists():
        assert shutil.which("npm"), "no npm here; install it (Debian, Ubuntu: apt-get install npm)"
        cache.mkdir(parents=True, exist_ok=True)
        packed = ["npm", "pack", "--silent", f"axe-core@{AXE_VERSION}", "--pack-destination", str(cache)]
        subprocess.run(packed, check=True, timeout=100, capture_output=True)
        archive = cache / f"axe-core-{AXE_VERSION}.tgz"
        subprocess.run(["tar", "xzf", archive, "-C", cache, "package/axe.min.js"], check=True, timeout=20)
    return script.read_text()


def serious_violations(page: Page, source: str, *rules: str) -> list[str]:
    """Return what axe finds on the page that keeps somebody from using it; `rules` are all unless some are named.

    The page's context must bypass the CSP.
    """
    wanted = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": _RULES}
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(source)
    found = page.evaluate(f"axe.run({json.dumps({'runOnly': wanted})})")["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in _SERIOUS]


class Wire:
    """A TCP proxy on loopback that can be cut: connections break, and new ones are refused until it is mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self.cut()
        self._listener.close()

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._open.clear()
        for each in self._pairs:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self._open.set()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._pairs += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
