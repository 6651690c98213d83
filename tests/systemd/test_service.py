"""The unit with every kind of job, on both systems: the sandbox holds and lets work through; credentials; instances."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.support.lab
from tests.support.lab.machine import Machine
from tests.support.lab.systems import System
from tests.support.postgres import PostgresServer, fresh_database, start_server

pytestmark = pytest.mark.timeout(900)  # the first test of a new machine makes what all later ones find

LAB = Path(tests.support.lab.__path__[0])
WORST_SCORE = 1.6
SERVER = "/srv/postgres"
ALLOWED = {"shares_memory", "writes_tmp", "resolves_names", "is_nicer", "reads_meminfo"}
KINDS = {
    *("sql", "cleanup", "health_check", "csv_import", "sync", "each_row", "csv_export", "report", "email", "fan_out"),
    *("http", "python", "command"),
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server whose socket a machine may see: a machine has a network of its own."""
    with start_server(tmp_path_factory.mktemp("postgres"), "older") as server:
        assert server.data
        server.data.parent.chmod(0o755)
        yield server


@pytest.fixture(scope="module")
def machine(system: System, postgres: PostgresServer) -> Iterator[Machine]:
    """A machine that is done with every job, `batchd` on SQLite and the instance `batchd@pg` on PostgreSQL."""
    assert postgres.data
    folder = str(postgres.data.parent)
    with (
        fresh_database(postgres) as store,
        fresh_database(postgres) as app,
        system.machine(binds=[f"{folder}:{SERVER}"]) as booted,
    ):
        booted.run("systemctl", "stop", "batchd")
        booted.write("/srv/api/people.json", '[{"id": 1, "name": "Ann"}, {"id": 3, "name": "Cy"}]')
        booted.run(
            "systemd-run", "--unit=api", "-p", "WorkingDirectory=/srv/api", "python3", "-m", "http.server", "8000"
        )
        booted.write("/etc/batchd/lab_jobs.py", (LAB / "lab_jobs.py").read_text(), mode=0o640, group="batchd")
        prepare(booted, "batchd", "sqlite:////var/lib/batchd/batchd.db", "sqlite:////var/lib/batchd/app.db")
        booted.sh("touch /var/lib/batchd/app.db", user="batchd")
        prepare(booted, "batchd@pg", *(url.replace(folder, SERVER) for url in (store, app)))
        booted.run("systemctl", "start", "batchd", "batchd@pg")
        for unit in ("batchd", "batchd@pg"):
            booted.wait_until(lambda unit=unit: is_done(booted, unit), unit=unit, seconds=180)
        yield booted
        booted.run("systemctl", "stop", "batchd", "batchd@pg")


def place(unit: str) -> tuple[str, str]:
    """Return the folder of the unit's state and its config."""
    name = unit.replace("@", "-")
    return f"/var/lib/{name}", f"/etc/batchd/{unit.partition('@')[2] or 'config'}.toml"


def prepare(machine: Machine, unit: str, store: str, app: str) -> None:
    """Write the unit's config, its credentials and what its jobs work on."""
    state, config = place(unit)
    text = (LAB / "every_kind.toml").read_text().replace("<state>", state)
    machine.write(config, text, mode=0o640, group="batchd")
    machine.sh(f"install -d -o batchd -g batchd -m 0750 {state} {state}/inbox")
    machine.write(f"{state}/inbox/a.csv", "id,name\n5,Dee\n", owner="batchd", group="batchd")
    drop_in = "[Service]\n"
    for name, url in (("store-url", store), ("app-url", app)):
        machine.write(f"/etc/credentials/{unit}/{name}", url, mode=0o600)
        drop_in += f"LoadCredential={name}:/etc/credentials/{unit}/{name}\n"
    machine.write(f"/etc/systemd/system/{unit}.service.d/credentials.conf", drop_in)
    machine.run("systemctl", "daemon-reload")


def told(machine: Machine, unit: str, event: str) -> dict[str, dict[str, object]]:
    """Return the last such line of each job in the journal."""
    last: dict[str, dict[str, object]] = {}
    for entry in machine.journal("-u", unit, "-b"):
        message = entry["MESSAGE"]
        line = json.loads(message) if isinstance(message, str) and message.startswith("{") else {}
        if line.get("event") == event and "job" in line:
            last[line["job"]] = line
    return last


def is_done(machine: Machine, unit: str) -> bool:
    """Return whether the last job is over; fails as soon as another one has failed."""
    failed = told(machine, unit, "run.failed")
    assert not failed, failed
    return "last" in told(machine, unit, "run.finished")


@pytest.fixture(params=["batchd", "batchd@pg"])
def unit(request: pytest.FixtureRequest) -> str:
    """The service on SQLite and the instance on PostgreSQL."""
    name: str = request.param
    return name


def test_every_kind_of_job_works_under_the_unit(machine: Machine, unit: str) -> None:
    """What each left behind is there: rows, files, mails, nobody's process."""
    succeeded = set(told(machine, unit, "run.finished"))
    jobs = re.findall(r"^\[jobs\.([\w-]+)\]", (LAB / "every_kind.toml").read_text(), re.MULTILINE)
    kinds = set(re.findall(r'^kind = "(\w+)"', (LAB / "every_kind.toml").read_text(), re.MULTILINE))
    assert kinds == KINDS | {"external"}
    assert succeeded == set(jobs) - {"outside"}
    state, _ = place(unit)
    assert machine.read(f"{state}/command.txt") == "batchd\n"
    assert "Dee" in machine.read(f"{state}/report.html")
    assert machine.exists(f"{state}/people.xlsx")
    assert len(machine.sh(f"ls {state}/mail").split()) >= 5
    assert machine.sh("pgrep -xc sleep || true").strip() == "0"


def test_the_sandbox_lets_jobs_work_and_keeps_them_in(machine: Machine, unit: str) -> None:
    """Both in the daemon's threads and in the processes of jobs."""
    results = machine.sh(f"grep -h . {place(unit)[0]}/look-*.json").splitlines()
    assert len(results) == 2
    for line in results:
        attempts = json.loads(line)
        assert {name for name, came_to in attempts.items() if came_to == "done"} == ALLOWED
        assert len(attempts) > len(ALLOWED) + 6


def test_the_running_service_scores_as_promised(machine: Machine, unit: str) -> None:
    """The score of the unit as it runs, and not a word of complaint about it or its socket."""
    said = machine.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", said)
    assert found
    assert float(found[1]) <= WORST_SCORE
    verified = machine.run("systemd-analyze", "verify", "--man=no", f"{unit}.service", "batchd.socket", check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_credentials_are_for_the_service_alone(machine: Machine, unit: str) -> None:
    """Neither another user, nor the service's own user outside of it, nor `systemctl show` nor the journal has them."""
    folder = f"/run/credentials/{unit}.service"
    secret = machine.read(f"/etc/credentials/{unit}/app-url")
    for user, path in (("nobody", f"{folder}/app-url"), ("batchd", f"/etc/credentials/{unit}/app-url")):
        refused = machine.run("cat", path, user=user, check=False)
        assert refused.returncode == 1
        assert "Permission denied" in refused.stderr
    assert secret not in machine.run("systemctl", "show", unit).stdout
    environment = machine.sh(f"tr '\\0' '\\n' </proc/{machine.show(unit, 'MainPID')}/environ")
    assert secret not in environment
    assert "canary" not in secret.lower() or secret not in json.dumps(machine.journal("-u", unit))


def test_instances_share_nothing_but_the_user(machine: Machine) -> None:
    """Each has state, cache and control socket of its own, and one that stops leaves the other's alone."""
    for name in ("batchd", "batchd-pg"):
        assert machine.run("stat", "-c", "%a %U:%G", f"/run/{name}").stdout == "750 batchd:batchd\n"
        assert machine.run("stat", "-c", "%a %U:%G", f"/var/cache/{name}").stdout == "750 batchd:batchd\n"
    machine.run("systemctl", "restart", "batchd")
    machine.run("systemctl", "reload", "batchd@pg")
    assert machine.show("batchd@pg", "ActiveState") == "active"
    assert {entry["SYSLOG_IDENTIFIER"] for entry in machine.journal("-u", "batchd@pg", "_TRANSPORT=stdout")} <= {
        "batchd-pg"
    }
