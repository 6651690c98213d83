"""The golden conversions: each folder of tests/golden/moving is one, with its files and what must come of them.

`python -m tests.unit.moving.golden` writes them anew; a person reads the difference before it is committed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from batchd.moving.convert import convert
from batchd.moving.detect import System
from batchd.moving.explain import as_text
from batchd.moving.found import Findings, Machine, Options, Source
from batchd.moving.toml_text import toml_document

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "moving"
MACHINE = Machine(
    home_of={"root": "/", "daemon": "/usr/sbin"}.get,
    has_folder=lambda folder: folder in {"/", "/tmp", "/usr/sbin"},
    has_program=lambda name: name in {"/bin/sh", "/bin/echo", "/bin/bash"} and Path(name).exists(),
)
OPTIONS = Options(timezone="Europe/Berlin", machine=MACHINE)


@dataclass(frozen=True, slots=True)
class Golden:
    """One conversion: its folder, its files in their order, and what `batchd convert` was told."""

    name: str
    files: tuple[str, ...]
    options: Options = OPTIONS
    system: System | None = None

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    def findings(self) -> Findings:
        sources = [Source(file, (self.folder / file).read_bytes()) for file in self.files]
        return convert(sources, self.options, system=self.system, rows_of=_no_rows)

    def toml(self) -> str:
        return toml_document(self.findings(), version="VERSION")

    def explanation(self) -> str:
        return "\n".join(as_text(self.findings())) + "\n"


def _no_rows(_url: str) -> list[tuple[str, float | None, bytes]]:
    return []


GOLDEN = (
    Golden("crontab", ("crontab",)),
    Golden("system-crontab", ("etc/crontab", "etc/cron.d/shop.app")),
    Golden(
        "systemd",
        (
            "backup.timer.d/override.conf",
            "backup.timer",
            "backup.service",
            "poll@eu.timer",
            "poll@.service",
            "report.timer",
        ),
    ),
    Golden("whenever", ("config/schedule.rb",)),
    Golden("sidekiq", ("config/sidekiq.yml", "config/schedule.yml")),
    Golden("solid-queue", ("config/recurring.yml",), replace(OPTIONS, app_dir="/")),
    Golden("good-job", ("config/good_job.yml",)),
    Golden("vercel", ("vercel.json",)),
    Golden("bullmq", ("src/queues.ts",)),
    Golden("node-cron", ("src/cron.js",)),
    Golden("celery", ("shop/celery.py",)),
    Golden("apscheduler", ("shop/jobs.py",)),
    Golden("several", ("a.crontab", "b.crontab", "vercel.json"), replace(OPTIONS, base_url="https://shop.example.com")),
)


def write_all() -> None:
    """Write what each conversion gives now; a person reads the difference before it is committed."""
    for golden in GOLDEN:
        (golden.folder / "expected.toml").write_text(golden.toml(), encoding="utf-8")
        (golden.folder / "expected.explain").write_text(golden.explanation(), encoding="utf-8")


if __name__ == "__main__":
    write_all()
