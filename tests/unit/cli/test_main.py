"""The door: help without imports, one message an error, the right exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from batchd.cli import commands
from batchd.cli.commands import ENTRIES
from batchd.cli.main import main
from batchd.errors import ExitCode, SchemaMismatch

HEAVY = ("sqlalchemy", "pydantic", "rich", "apscheduler", "alembic", "psycopg", "structlog")


def test_help_lists_every_command_and_imports_none() -> None:
    """Help and version are answered without anything heavy."""
    script = (
        "import sys; from batchd.cli.main import main; code = main(['--help']) or main(['--version']);"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules)); sys.exit(str(loaded) if loaded else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, entry in ENTRIES.items():
        assert f"  {name} " in done.stdout
        assert entry.summary.split()[0] in done.stdout


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """As bad usage."""
    assert main(["trigr"]) == ExitCode.USAGE
    assert "Did you mean 'trigger'?" in capsys.readouterr().err


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def get_command(*_: object) -> None:
        raise error

    monkeypatch.setattr(commands.Commands, "get_command", get_command)


def test_an_error_is_one_message_with_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, with the error's own exit code and no escape character from whatever it quotes."""
    _fail_with(monkeypatch, SchemaMismatch("no \x1b[31mtables", hint="migrate"))
    assert main(["jobs"]) == ExitCode.SCHEMA_MISMATCH
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: no [31mtables\nhint: migrate\n")


def test_an_error_for_a_program_is_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a code to match on."""
    _fail_with(monkeypatch, SchemaMismatch("no tables", hint="migrate"))
    assert main(["jobs", "--json"]) == ExitCode.SCHEMA_MISMATCH
    said = capsys.readouterr()
    expected = {"error": {"code": "schema_mismatch", "message": "no tables", "hint": "migrate"}}
    assert (said.out, json.loads(said.err)) == ("", expected)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("surprise\nsecond line"), ExitCode.UNEXPECTED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_nothing_ends_in_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: ExitCode
) -> None:
    """An unexpected error is one line with the way to its traceback; Ctrl-C says nothing."""
    _fail_with(monkeypatch, error)
    assert main(["jobs"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "second line" not in said


def test_a_debugger_gets_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """BATCHD_DEBUG lets the error through."""
    monkeypatch.setenv("BATCHD_DEBUG", "1")
    _fail_with(monkeypatch, ValueError("surprise"))
    with pytest.raises(ValueError, match="surprise"):
        main(["jobs"])


def test_a_reader_who_leaves_is_no_error() -> None:
    """`batchd --help | head -c 0` ends silently."""
    reader = subprocess.Popen(["head", "-c", "0"], stdin=subprocess.PIPE)
    assert reader.stdin
    reader.wait(10)
    script = "import sys; from batchd.cli.main import main; sys.exit(main(['--help']))"
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=reader.stdin, stderr=subprocess.PIPE, text=True, check=False
    )
    reader.stdin.close()
    assert (done.returncode, done.stderr) == (0, "")
