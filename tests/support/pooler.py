"""A real PgBouncer between the tests and their PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url

from tests.support.waiting import wait_until

_UNPACKED = Path(sys.prefix) / "pgbouncer"
"""Where `.ci/setup dev` puts it, with the libraries that the machine lacks, unless there is one already."""

_PORT = 6432
_ACCOUNT = "nobody"
_CONFIG = """
[databases]
{database} = host={host} port={port} user={user} pool_size=3
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = {listen}
auth_type = any
pool_mode = {mode}
logfile = {folder}/log
pidfile = {folder}/pid
"""


def missing_pooler() -> str | None:
    """Return why no pooler can be started, or None."""
    return None if _program() else "there is no pgbouncer here; .ci/setup dev fetches it"


@contextlib.contextmanager
def pooler_before(url: str, mode: str) -> Iterator[str]:
    """Yield the URL by which the database is reached through a PgBouncer in that mode."""
    behind = make_url(url)
    program = _program()
    assert program is not None
    surroundings = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="pgb") as made:
        folder = Path(made)
        config = folder / "pgbouncer.ini"
        host = behind.query.get("host", behind.host)
        config.write_text(
            _CONFIG.format(
                database=behind.database,
                host=host,
                port=behind.port or 5432,
                user=behind.username,
                folder=folder,
                listen=_PORT,
                mode=mode,
            )
        )
        if program.parent == _UNPACKED:  # it refuses to be root, and the account may not look into the checkout
            program = shutil.copytree(_UNPACKED, folder / "program") / program.name
            surroundings["LD_LIBRARY_PATH"] = str(program.parent)
        if os.geteuid() == 0:
            for path in (folder, config):
                shutil.chown(path, _ACCOUNT)
        as_account = {"user": _ACCOUNT} if os.geteuid() == 0 else {}
        process = subprocess.Popen(
            [program, "-q", str(config)],
            cwd="/",
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **as_account,
        )
        try:
            wait_until((folder / f".s.PGSQL.{_PORT}").exists, what="PgBouncer listens")
            yield f"postgresql://{behind.username}@/{behind.database}?host={folder}&port={_PORT}"
        finally:
            process.kill()
            process.wait()


def _program() -> Path | None:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{_UNPACKED}")
    return Path(found) if found else None
