"""Whatever is fed to a reader, it answers with a config that batchd takes, or with one clear message."""

from __future__ import annotations

import builtins
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchd.config.load import load_config
from batchd.errors import UsageError
from batchd.moving.convert import convert
from batchd.moving.detect import System
from batchd.moving.explain import as_text
from batchd.moving.found import Findings, Source
from batchd.moving.toml_text import toml_document
from tests.unit.moving.golden import GOLDEN, OPTIONS

_READERS = [system for system in System if system is not System.JOB_STORE]
_PIECES = [
    line
    for golden in GOLDEN
    for file in golden.files
    for line in (golden.folder / file).read_text(encoding="utf-8").split("\n")
]
_ODD = st.sampled_from(
    ["${X}", "$$", "'''", '"""', "\\", "#{", "<%= x", "%>", "*", "&a", "<<: *a", "{", "}", "[", "]", "do", "end",
     "\x00", "\x1b", "\u2028", "every ", "at: ", "cron: ", "* * * * *", "99", "OnCalendar=", "[Timer]", "`${", "=>",
     "@", "%", "~", "é", "\ud7ff"]
)  # fmt: skip
_TEXTS = st.lists(st.one_of(st.sampled_from(_PIECES), _ODD, st.text(max_size=12)), max_size=14)
_JOINERS = st.sampled_from(["\n", "", " ", "\r\n"])


@pytest.mark.parametrize("system", _READERS)
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(pieces=_TEXTS, joiner=_JOINERS)
def test_any_text_becomes_a_config_or_a_message(system: System, pieces: list[str], joiner: str) -> None:
    """No input of any form ends in a traceback, and what comes out is always a config without a problem."""
    name = {System.SYSTEMD: "a.timer", System.VERCEL: "vercel.json"}.get(system, "file")
    source = Source(name, joiner.join(pieces).encode())
    findings = _converted(source, system)
    if findings is None:
        return
    list(as_text(findings))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "jobs.toml"
        config.write_text(toml_document(findings, version="VERSION"), encoding="utf-8")
        load_config(config, {})


@pytest.mark.parametrize("data", [b"\xff\xfe\x00a", b"", b"\n" * 50, b"[" * 5000, b"- " * 3000, b'{"a":' * 3000])
@pytest.mark.parametrize("system", _READERS)
def test_bytes_that_are_no_text_are_borne(system: System, data: bytes) -> None:
    """Bytes that are no UTF-8, nothing at all, and brackets without end are answered like any other input."""
    _converted(Source("file", data), system)


def _converted(source: Source, system: System) -> Findings | None:
    """Return the findings, or None when the source was refused with a message that names it."""
    refused: list[str] = []
    try:
        return convert([source], OPTIONS, system=system, rows_of=lambda _url: [])
    except UsageError as error:
        refused.append(error.message)
    assert source.name in refused[0]
    return None


@pytest.mark.parametrize(
    ("system", "text"),
    [
        (System.WHENEVER, 'system("touch PATH")\nevery 1.day do\n  runner "#{`touch PATH`}"\nend\n'),
        (
            System.SIDEKIQ_CRON,
            'a: {cron: "<%= `touch PATH` %>", class: "A"}\nb: !!python/object/apply:os.system ["touch PATH"]\n',
        ),
        (
            System.CELERY,
            'import os\nos.system("touch PATH")\nbeat_schedule = {"a": {"task": os.system("touch PATH")}}\n',
        ),
        (System.APSCHEDULER, 's.add_job(open("PATH", "w"), "cron", hour=__import__("os").system("touch PATH"))\n'),
        (System.BULLMQ, 'require("fs").writeFileSync("PATH"); cron.schedule(`${fs.x("PATH")}`, () => 1);\n'),
        (System.CRONTAB, "* * * * * $(touch PATH)\nA=`touch PATH`\n"),
    ],
)
def test_nothing_in_a_source_is_run(system: System, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that would make a file makes none, and neither eval, exec, a process nor an import of it happens."""

    def refuse(*_args: object, **_named: object) -> None:
        raise AssertionError("something was run")

    for owner, name in ((builtins, "eval"), (os, "system"), (subprocess, "Popen")):
        monkeypatch.setattr(owner, name, refuse)
    mark = tmp_path / "made"
    source = Source("file", text.replace("PATH", str(mark)).encode())
    convert([source], OPTIONS, system=system, rows_of=lambda _url: [])
    assert not mark.exists()


def test_aliases_that_unfold_without_end_are_refused() -> None:
    """YAML that grows tenfold with each line is refused with a message, and quickly."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(UsageError, match="too many values"):
        convert([Source("x.yml", "\n".join(lines).encode())], OPTIONS, system=System.SIDEKIQ, rows_of=lambda _url: [])
