"""What the demo's jobs read from outside: an HTTP API with 5,000 people, and a CSV file in an inbox."""

from __future__ import annotations

import contextlib
import csv
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_PEOPLE = 5_000
_PER_PAGE = 500
_CUSTOMERS = 20_000
_WRONG = frozenset({4_711, 12_345, 19_999})
_CITIES = ("Zürich", "São Paulo", "Kraków", "Malmö", "New York", "大阪")


@contextlib.contextmanager
def demo_api() -> Iterator[str]:
    """Serve the API on 127.0.0.1, on a port that the system picks, until the block ends; yield its URL."""
    api = _Api(("127.0.0.1", 0), _ApiRequest)
    threading.Thread(target=api.serve_forever, name="demo-api", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{api.server_port}/people"
    finally:
        api.shutdown()
        api.server_close()


def fill_inbox(folder: Path) -> Path:
    """Write a CSV file of 20,000 customers, three of whom cannot be right, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "customers.csv"
    unfinished = file.with_suffix(".csv.part")
    with unfinished.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(("Customer No", "Company", "City", "Revenue"))
        for number in range(1, _CUSTOMERS + 1):
            revenue = "unknown" if number in _WRONG else f"{number * 7919 % 1_000_000 / 100:.2f}"
            rows.writerow((number, f"Company {number}, Ltd.", _CITIES[number % len(_CITIES)], revenue))
    return unfinished.replace(file)


class _Api(ThreadingHTTPServer):
    """Each time that somebody has read the last page, some people change, some come and some go."""

    daemon_threads = True
    generation = 0

    def page(self, number: int) -> tuple[list[dict[str, object]], bool]:
        """Return the people of a page, from 1, and whether there is another."""
        first = self.generation * 5 + (number - 1) * _PER_PAGE
        last = self.generation * 5 + _PEOPLE
        people = [self._person(id_) for id_ in range(first + 1, min(first + _PER_PAGE, last) + 1)]
        has_more = first + _PER_PAGE < last
        if not has_more:
            self.generation += 1
        return people, has_more

    def _person(self, id_: int) -> dict[str, object]:
        plan = ("free", "team", "business")[(id_ + self.generation * (id_ % 100 == 0)) % 3]
        return {
            "id": id_,
            "name": f"Person {id_}",
            "contact": {"email": f"person{id_}@example.org"},
            "plan": plan,
            "seats": id_ * 31 % 40,
        }


class _ApiRequest(BaseHTTPRequestHandler):
    server: _Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        page = parse_qs(asked.query).get("page", ["1"])[0]
        if asked.path != "/people" or not page.isdigit():
            self.send_error(404)
            return
        people, has_more = self.server.page(int(page))
        body = json.dumps({"people": people}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if has_more:
            host, port = self.server.server_address[:2]
            self.send_header("Link", f'<http://{host!s}:{port}/people?page={int(page) + 1}>; rel="next"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: the daemon's log is what the demo shows."""
