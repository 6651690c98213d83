"""No file, however broken, gives anything but one clear list of what is wrong."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import batchd
from batchd.config.document import ConfigMissing
from batchd.config.load import load_config
from batchd.config.problems import ConfigInvalid
from batchd.errors import BatchdError, ExitCode, NoPermission
from tests.support.rights import without_root

EXAMPLE = Path(batchd.__file__).parent.parent / "config.example.toml"
JOB = '[databases.app]\nurl = "sqlite:///app.db"\n[jobs.a]\nkind = "health_check"\n'


def said_of(folder: Path, content: bytes) -> str:
    """Return what is wrong with the file, without its folder; "" for nothing."""
    file = folder / "config.toml"
    file.write_bytes(content)
    try:
        load_config(file, {})
    except ConfigInvalid as error:
        return str(error).replace(f"{folder}/", "")
    return ""


@pytest.mark.parametrize(
    "content",
    [EXAMPLE.read_bytes(), b"\xef\xbb\xbf" + EXAMPLE.read_bytes(), EXAMPLE.read_bytes().replace(b"\n", b"\r\n"), b""],
    ids=["as it is", "byte order mark", "CRLF", "empty"],
)
def test_what_editors_make_of_a_good_file_is_good(tmp_path: Path, content: bytes) -> None:
    """A byte order mark and Windows line ends do no harm."""
    assert said_of(tmp_path, content) == ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (EXAMPLE.read_text().encode("utf-16"), "config.toml:1: is not UTF-8 text"),
        (b'[daemon]\ntimezone = "\xe9"\n', "config.toml:2: is not UTF-8 text"),
        (b"\x00" * 100, "config.toml:1: is not TOML"),
        (random.Random(1).randbytes(100_000), "is not UTF-8 text"),
        (b"a = " + b"[" * 100_000, "config.toml: is nested too deeply"),
        (b"[" + b".".join([b"a"] * 5_000) + b"]", "config.toml: is nested too deeply"),
        (b"[jobs.a]\nwhere = " + b"{a=" * 40 + b"1" + b"}" * 40, "config.toml: is nested too deeply"),
        (b"#" + b"x" * (17 << 20), "config.toml: has more than 16 MiB"),
        (b'[daemon]\ntimezone = "' + b"x" * 1_000_000 + b'"', "unknown time zone 'xxx"),
        (b'[jobs."' + b"x" * 1_000_000 + b'"]\nkind = "cleanup"', "a name has up to 100"),
        (b"[daemon]\nworkers = 1\nworkers = 2", "config.toml:3: workers is written twice"),
        (b"[jobs.a]\n[jobs.a]\n", "config.toml:2: [jobs.a] is written twice; two jobs need two names"),
        (b"jobs.a.kind = 'x'\njobs.a.kind = 'y'\n", "config.toml:2: jobs.a.kind is written twice"),
        (b'[jobs."a\\nb\\u001b[31m"]\nkind = "x"', "[jobs.a\\nb\\x1b[31m] a name has up to 100"),
        (b'[daemon]\nstate = "\\u0000"', "[daemon] state: holds a NUL character"),
        (b'[store]\nurl_file = "\\u0000"', "[store] url_file: holds a NUL character"),
        (b"[jobs]\na = 1", "config.toml:2: [jobs.a] must be a table: write [jobs.a]"),
        (b'jobs = "x"', "config.toml:1: [jobs] must be a table: write [jobs]"),
        (b"[databases]\na = 1", "config.toml:2: [databases.a] must be a table"),
        (b"[[store]]\nurl = 1", "[store] must be a table"),
        (b'[databases."*"]\nurl = "sqlite:///x"', "[databases.*] a name has up to 100"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, content: bytes, expected: str) -> None:
    """On a line that a person can read, however long the input was, and without its control characters."""
    said = said_of(tmp_path, content)
    assert expected in said
    assert all(len(line) < 1000 for line in said.splitlines())
    assert all(line.isprintable() for line in said.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[log]\nlevel = "inof"', "[log] level: must be 'debug', 'info', 'warning' or 'error'; did you mean 'info'?"),
        ("[daemon]\nworkers = 0", "[daemon] workers: must be at least 1"),
        ('[daemon]\nworkers = "many"', "[daemon] workers: must be a whole number"),
        ("[daemon]\nworkers = 1.5", "[daemon] workers: must be a whole number"),
        ("[daemon]\nshutdown_grace = 25", "[daemon] shutdown_grace: not a duration: 25; write a number and a unit"),
        (JOB + "enabled = 3", "[jobs.a] enabled: must be true or false"),
        (JOB + "schedule = 5", "[jobs.a] schedule: must be text in quotes"),
        (JOB + 'databases = "app"', "[jobs.a] databases: must be a list"),
        (JOB + "latency = 1", "[jobs.a] latency: must be a table"),
        (JOB + 'size = { warn = "1XB" }', "[jobs.a] size.warn: not a size: '1XB'"),
        (JOB + 'catch_up = "al"', "[jobs.a] catch_up: must be 'once', 'skip' or 'all'; did you mean 'all'?"),
        (JOB + 'schedule = "0 0 31 2 *"', "none of its months has such a day"),
        (JOB + 'schedule = "0 0 32 2 *"', "bad day-of-month field"),
        (JOB + 'schedule = "every 0s"', "too often"),
        (JOB + "retry = { jitter = 2 }", "[jobs.a] retry.jitter: must be at most 1"),
        (JOB + "databses = []", "[jobs.a] databses: unknown key; did you mean 'databases'?"),
        ('[database.app]\nurl = "x"', "[database] unknown section; did you mean 'databases'?"),
        ('[databases.a]\nurl = "mysql://u:hunter2@h/d"', "mysql://u:***@h/d: batchd knows postgresql and sqlite"),
        ('[databases.a]\nurl = "sqlite://"', "must name a file"),
        ("[databases.a]\npool_size = 2", "[databases.a] has no `url` (or `url_file`)"),
        ('[databases.a]\nurl_file = "/dev/null"', "[databases.a] url_file: /dev/null is empty"),
        ('[databases.a]\nurl = "${A:-${B}}"', "holds another variable"),
    ],
)
def test_each_mistake_has_one_message_in_plain_words(tmp_path: Path, text: str, expected: str) -> None:
    """What is wrong, where, and what to write; one problem for one mistake, not its consequences as well."""
    (said,) = said_of(tmp_path, text.encode()).splitlines()
    assert expected in said


def test_a_line_is_found_behind_long_texts_and_odd_separators(tmp_path: Path) -> None:
    """Lines are counted as TOML and editors count them, and a text that looks like TOML is none."""
    text = '# \u2028 \x85\n[databases.app]\nurl = "sqlite:///a"\n[jobs.b]\nkind = "cleanup"\ndatabase = "app"\n'
    text += 'table = "t"\ncolumn = "c"\nexpired = true\nwhere = \'\'\'\n[jobs.a]\nkind = "x"\nqueue = "y"\n\'\'\'\n'
    said = said_of(tmp_path, (text + '[jobs.a]\nkind = "nope"\n').encode())
    assert said.startswith("config.toml:16: [jobs.a] kind: there is no kind 'nope'")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, an endless device, a name with a NUL."""
    with pytest.raises(ConfigMissing, match="directory"):
        load_config(tmp_path, {})
    with pytest.raises(ConfigInvalid, match="more than 16 MiB"):
        load_config(Path("/dev/zero"), {})
    with pytest.raises(ConfigMissing, match="cannot read"):
        load_config(Path("a\x00b"), {})


def test_a_config_that_may_not_be_read_is_a_matter_of_permission(tmp_path: Path) -> None:
    """With the exit code that says so."""
    file = tmp_path / "config.toml"
    file.touch(mode=0o000)
    with without_root(), pytest.raises(NoPermission) as raised:
        load_config(file, {})
    assert raised.value.exit_code is ExitCode.NO_PERMISSION


_WORDS = (
    "jobs databases store daemon log queues defaults url url_file kind schedule timezone retry state workers level"
    " latency older_than a"
)
_KEYS = st.sampled_from(_WORDS.split()) | st.text(max_size=8)
_VALUES = st.recursive(
    st.none()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.booleans()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.sampled_from(["cleanup", "health_check", "${A}", "${A:-x}", "every 5m", "sqlite:///x", "postgresql://h:1/d"])
    | st.sampled_from(["~nobody-at-all/x", "0 0 31 2 *", "99999999999d", "9" * 500 + "GB", "/", "at 9999-12-31T23:59"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, bool) or value is None:
        return "true" if value else "false"
    return str(value)


_FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_FUZZ
@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_no_document_at_all_ends_in_a_traceback(tmp_path: Path, document: dict[str, object]) -> None:
    """Whatever stands under the known names: it is right, or a list of problems comes back."""
    file = tmp_path / "config.toml"
    file.write_text("".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in document.items()), encoding="utf-8")
    with contextlib.suppress(BatchdError):
        load_config(file, {"A": "b\x01"})


@_FUZZ
@given(st.binary(max_size=300) | st.integers(0, 2_500).map(lambda cut: EXAMPLE.read_bytes()[:cut]))
@example(EXAMPLE.read_bytes()[:700] + b"\xff")
def test_no_bytes_at_all_end_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    """Also a file that was cut off in the middle."""
    (tmp_path / "config.toml").write_bytes(content)
    with contextlib.suppress(BatchdError):
        load_config(tmp_path / "config.toml", {})
