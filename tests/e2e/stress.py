"""`make stress`: the storms of tests/e2e in full length.

python -m tests.e2e.stress --kills 200 --seed 1 [--dialect sqlite|postgresql|postgresql-18]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.mixed_storm import MixedField, mixed_storm
from tests.e2e.storm import Battlefield, Verdict, kill_storm, outage_storm, pair_storm, pooled_storm
from tests.support.pooler import missing_pooler, pooler_before
from tests.support.postgres import PostgresServer, fresh_database, start_server

_POOLED_SECONDS = 60.0
_DIALECTS = ("sqlite", "postgresql", "postgresql-18")


def main() -> int:
    """Run the storms and return 0 when every promise was kept."""
    arguments = _arguments()
    print(f"seed {arguments.seed}, {arguments.kills} kills, {arguments.outages} outages", flush=True)
    verdicts: list[Verdict] = []
    for dialect in [arguments.dialect] if arguments.dialect else _DIALECTS:
        verdicts += _storms(dialect, arguments)
    broken = sum(bool(verdict.problems) for verdict in verdicts)
    print("verdict: " + (f"{broken} of {len(verdicts)} storms broke a promise" if broken else "every promise kept"))
    return bool(broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kill -9 of a single daemon (default 200)")
    parser.add_argument(
        "--pair-kills",
        type=int,
        help="kill -9 of one of two daemons, and blows of the mixed storm (default: a tenth of --kills)",
    )
    parser.add_argument("--outages", type=int, default=20, help="stops of the database under load (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="where and when the blows fall")
    parser.add_argument("--dialect", choices=_DIALECTS, help="only this one (default: all)")
    parser.add_argument("--only", choices=("kills", "pair", "pooled", "outages", "mixed"), help="only this storm")
    given = parser.parse_args()
    if given.pair_kills is None:
        given.pair_kills = max(1, given.kills // 10)
    return given


def _storms(dialect: str, arguments: argparse.Namespace) -> list[Verdict]:
    verdicts = []
    seed = arguments.seed
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchd-storm")))
        base.chmod(0o755)
        version = "18" if dialect.endswith("18") else "older"
        server = None
        if dialect != "sqlite":
            server = stack.enter_context(start_server(_folder(base, "server"), version, synced=True))

        def place(name: str) -> Battlefield:
            folder = _folder(base, name)
            if server is None:
                return Battlefield(folder, f"sqlite:///{folder}/batchd.db", f"sqlite:///{folder}/app.db")
            urls = [stack.enter_context(fresh_database(server)) for _ in range(2)]
            return Battlefield(folder, *urls)

        def field(name: str) -> MixedField:
            folder = _folder(base, name)
            if server is None:
                return MixedField(folder, f"sqlite:///{folder}/batchd.db", f"sqlite:///{folder}/app.db", None)
            other = stack.enter_context(start_server(_folder(base, f"{name}-server"), version, synced=True))
            urls = [stack.enter_context(fresh_database(each)) for each in (server, other)]
            return MixedField(folder, *urls, other)

        storms: dict[str, Callable[[], Verdict]] = {
            "kills": lambda: kill_storm(place("kills"), kills=arguments.kills, seed=seed)
        }
        if server is not None:
            storms["pair"] = lambda: pair_storm(place("pair"), kills=arguments.pair_kills, seed=seed)
            storms["pooled"] = lambda: _pooled(server, _folder(base, "pooled"), seed)
            storms["outages"] = lambda: outage_storm(place("outages"), server, outages=arguments.outages, seed=seed)
        storms["mixed"] = lambda: mixed_storm(field("mixed"), blows=arguments.pair_kills, seed=seed)
        for name, storm in storms.items():
            if arguments.only in (None, name):
                began = time.monotonic()
                verdicts.append(storm())
                print(f"{dialect} {name} ({time.monotonic() - began:.0f} s): {verdicts[-1]}", flush=True)
    return verdicts


def _pooled(server: PostgresServer, folder: Path, seed: int) -> Verdict:
    """Return what comes of a daemon before whose databases a PgBouncer in transaction mode stands."""
    missing = missing_pooler()
    if missing is not None:
        return Verdict(0, Counter(), 0, 0, [missing])
    with ExitStack() as stack:
        behind = [stack.enter_context(fresh_database(server)) for _ in range(2)]
        urls = [stack.enter_context(pooler_before(url, "transaction")) for url in behind]
        return pooled_storm(Battlefield(folder, *urls), seconds=_POOLED_SECONDS, seed=seed)


def _folder(base: Path, name: str) -> Path:
    folder = base / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
