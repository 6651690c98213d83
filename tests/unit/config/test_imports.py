"""Jobs of a team's own modules: what the decorator says is read as a table of the config would be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from batchd.config.imports import with_imports
from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid
from batchd.domain.job import Backoff

_SHOP = "tests.support.shop_jobs"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Modules that a test writes are imported anew by the next one, and found nowhere any more."""
    path, modules = [*sys.path], {*sys.modules}
    yield
    sys.path[:] = path
    for name in {*sys.modules} - modules:
        del sys.modules[name]


def config(folder: Path, text: str) -> Config:
    """Write the config and load it."""
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, {})


def problems(folder: Path, code: str, text: str = "[queues.critical]\n") -> list[str]:
    """Return what is wrong with a module of that code."""
    (folder / "shop.py").write_text(f"import batchd\n{code}\n")
    with pytest.raises(ConfigInvalid) as raised:
        with_imports(config(folder, text), ["shop"])
    return [str(problem).replace(f"{folder}/", "") for problem in raised.value.problems]


def test_decorated_functions_become_jobs(tmp_path: Path) -> None:
    """With the settings of the decorator, then of [defaults], then the usual ones."""
    text = f'[daemon]\nimport = ["{_SHOP}"]\n[queues.critical]\n[defaults]\ntimeout = "7m"\n'
    jobs = {job.name: job for job in with_imports(config(tmp_path, text)).jobs}
    assert set(jobs) == {"sync_user", "send_mail", "nightly"}
    sync, nightly = jobs["sync_user"], jobs["nightly"]
    assert (sync.kind, sync.queue, sync.priority, sync.schedule) == ("python", "critical", 5, None)
    assert (sync.retry.max_attempts, sync.retry.delay, sync.retry.jitter) == (3, timedelta(seconds=2), 0)
    assert (sync.retry.backoff, sync.timeout) == (Backoff.EXPONENTIAL, timedelta(minutes=7))
    assert sync.params == {"target": f"{_SHOP}:sync_user"}
    assert (nightly.schedule, nightly.timeout) == ("every day at 03:00", timedelta(minutes=5))
    assert nightly.params == {"target": f"{_SHOP}:prune", "isolation": "process"}


def test_a_package_brings_the_jobs_of_the_modules_that_it_imports(tmp_path: Path) -> None:
    """And not those of others that happen to be imported."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text(f"from shop import mail\nimport {_SHOP}\n")
    (package / "mail.py").write_text("import batchd\n@batchd.job\ndef greet(): ...\n")
    found = with_imports(config(tmp_path, ""), ["shop"])
    assert [job.name for job in found.jobs] == ["greet"]
    assert found.params["greet"] == {"target": "shop.mail:greet"}


def test_what_is_wrong_is_told_with_the_functions_own_line(tmp_path: Path) -> None:
    """A queue, a schedule, a setting: as in the config, but with file and line of the function."""
    (line,) = problems(tmp_path, "@batchd.job(queue='critcal')\ndef a(): ...", "[queues.critical]\n")
    assert line.startswith("shop.py:2: [jobs.a] queue: there is no [queues.critcal]; there are: critical, default; did")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("@batchd.job(schedul='@daily')\ndef a(): ...", "[jobs.a] schedul: unknown key; did you mean 'schedule'?"),
        ("@batchd.job(max_attempts=0)\ndef a(): ...", "[jobs.a] retry.max_attempts: must be at least 1"),
        ("@batchd.job(schedule='@daily')\ndef a(x): ...", "[jobs.a] has a schedule, and nobody gives it x"),
        ("@batchd.job(name='a b')\ndef a(): ...", "a name has up to 100 letters"),
        ("@batchd.job\ndef a(x: 'Nope'): ...", "the annotation of x cannot be read"),
        ("@batchd.job\ndef a(): ...\n@batchd.job(name='a')\ndef b(): ...", "shop:a has that name too"),
        ("@batchd.job(max_memory='1GB')\ndef a(): ...", "`max_memory` needs `isolation"),
        ("1 / 0", "importing shop failed: ZeroDivisionError"),
    ],
)
def test_a_module_with_problems_is_refused(tmp_path: Path, code: str, said: str) -> None:
    """Each is told in plain words."""
    (problem,) = problems(tmp_path, code)
    assert said in problem


def test_a_name_that_the_config_has_is_refused(tmp_path: Path) -> None:
    """Nobody could say which of both is meant."""
    text = '[jobs.a]\nkind = "python"\ntarget = "shop:a"\n'
    assert problems(tmp_path, "@batchd.job\ndef a(): ...", text) == [
        "shop.py:2: [jobs.a] the config has a job of that name; give this one another with `name=`"
    ]


def test_a_module_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the line of the config that names it."""
    with pytest.raises(ConfigInvalid, match=r"config.toml:2: \[daemon\] import: .*there is no module shoop"):
        with_imports(config(tmp_path, '[daemon]\nimport = ["shoop"]\n'))
    with pytest.raises(ConfigInvalid, match="is not a module"):
        with_imports(config(tmp_path, ""), ["shop/jobs.py"])
