"""The unit with every kind of job, on both systems: the sandbox holds and lets work through; credentials; instances."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tests.support.lab
from batchd.errors import ExitCode
from tests.support.lab.machine import Machine
from tests.support.lab.systems import System
from tests.support.postgres import PostgresServer, fresh_database

LAB = Path(tests.support.lab.__path__[0])
WORST_SCORE = 1.6
SERVER = "/srv/postgres"
ALLOWED = {"shares_memory", "writes_tmp", "resolves_names", "is_nicer", "reads_meminfo", "runs_made_code"}
EVERY_KIND = (LAB / "every_kind.toml").read_text()
ONE_JOB = """
[daemon]
state = "<state>"
[store]
url_file = "store-url"
[databases.app]
url_file = "app-url"
[jobs.last]
kind = "sql"
schedule = "@reboot"
database = "app"
statements = "CREATE TABLE seen (id INTEGER)"
"""
FOR_A_PERSON = {ExitCode.USAGE, ExitCode.SCHEMA_MISMATCH, ExitCode.NO_PERMISSION, ExitCode.CONFIG_INVALID}
MAY_HEAL = {
    *(ExitCode.OK, ExitCode.UNEXPECTED, ExitCode.STORE_UNREACHABLE, ExitCode.INTERNAL, ExitCode.CANNOT_CREATE),
    *(ExitCode.ALREADY_RUNNING, ExitCode.INTERRUPTED),
}
KINDS = {
    *("sql", "cleanup", "health_check", "csv_import", "sync", "each_row", "csv_export", "report", "email", "fan_out"),
    *("http", "python", "command"),
}


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Path:
    """The folder of the session's server, which a machine may see: a machine has a network of its own."""
    assert postgres_server.data, "the lab needs a server of its own: unset BATCHD_TEST_DATABASE_URL"
    folder = postgres_server.data.parent
    folder.chmod(0o755)
    return folder


def test_every_kind_works_in_the_sandbox_which_holds(
    system: System, postgres: Path, postgres_server: PostgresServer
) -> None:
    """All kinds on one unit and a job on the other: `batchd` on SQLite, the instance `batchd@pg` on PostgreSQL.

    The two units differ in names alone, so each system runs the kinds under one of them and on one of the databases.
    """
    whole, brief = ("batchd", "batchd@pg") if system.release.systemd < 254 else ("batchd@pg", "batchd")
    with (
        fresh_database(postgres_server) as store,
        fresh_database(postgres_server) as app,
        system.machine(binds=[f"{postgres}:{SERVER}"]) as machine,
    ):
        machine.run("systemctl", "stop", "batchd")
        machine.write("/srv/api/people.json", '[{"id": 1, "name": "Ann"}, {"id": 3, "name": "Cy"}]')
        machine.run(
            "systemd-run", "--unit=api", "-p", "WorkingDirectory=/srv/api", "python3", "-m", "http.server", "8000"
        )
        machine.write("/etc/batchd/lab_jobs.py", (LAB / "lab_jobs.py").read_text(), mode=0o640, group="batchd")
        urls = {
            "batchd": ("sqlite:////var/lib/batchd/batchd.db", "sqlite:////var/lib/batchd/app.db"),
            "batchd@pg": tuple(url.replace(str(postgres), SERVER) for url in (store, app)),
        }
        prepare(machine, whole, EVERY_KIND, *urls[whole])
        prepare(machine, brief, ONE_JOB, *urls[brief])
        machine.sh("touch /var/lib/batchd/app.db", user="batchd")
        machine.run("systemctl", "start", "batchd", "batchd@pg")
        for unit in ("batchd", "batchd@pg"):
            machine.wait_until(lambda unit=unit: is_done(machine, unit), unit=unit, seconds=300)
            scores_as_promised(machine, unit)
            keeps_credentials_to_itself(machine, unit)
        every_kind_left_what_it_makes(machine, whole)
        jobs_can_work_and_are_kept_in(machine, whole)
        commands_need_the_secrets_that_they_use(machine, brief)
        instances_share_nothing_but_the_user(machine)
        machine.run("systemctl", "stop", "batchd", "batchd@pg")
        restarts_what_may_heal_by_itself(machine, system)


def place(unit: str) -> tuple[str, str]:
    """Return the folder of the unit's state and its config."""
    name = unit.replace("@", "-")
    return f"/var/lib/{name}", f"/etc/batchd/{unit.partition('@')[2] or 'config'}.toml"


def prepare(machine: Machine, unit: str, jobs: str, store: str, app: str) -> None:
    """Write the unit's config, its credentials and what its jobs work on."""
    state, config = place(unit)
    machine.write(config, jobs.replace("<state>", state), mode=0o640, group="batchd")
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


def every_kind_left_what_it_makes(machine: Machine, unit: str) -> None:
    """See that what each makes is there: rows, files, mails, nobody's process."""
    succeeded = set(told(machine, unit, "run.finished"))
    jobs = re.findall(r"^\[jobs\.([\w-]+)\]", EVERY_KIND, re.MULTILINE)
    kinds = set(re.findall(r'^kind = "(\w+)"', EVERY_KIND, re.MULTILINE))
    assert kinds == KINDS | {"external"}
    assert succeeded == set(jobs) - {"outside"}
    state, _ = place(unit)
    assert machine.read(f"{state}/command.txt") == "batchd\n"
    assert "Dee" in machine.read(f"{state}/report.html")
    assert machine.exists(f"{state}/people.xlsx")
    assert len(machine.sh(f"ls {state}/mail").split()) >= 5
    assert machine.sh("pgrep -xc sleep || true").strip() == "0"


def jobs_can_work_and_are_kept_in(machine: Machine, unit: str) -> None:
    """See to both in the daemon's threads and in the processes of jobs."""
    results = machine.sh(f"grep -h . {place(unit)[0]}/look-*.json").splitlines()
    assert len(results) == 2
    for line in results:
        attempts = json.loads(line)
        assert {name for name, came_to in attempts.items() if came_to == "done"} == ALLOWED
        assert len(attempts) > len(ALLOWED) + 6


def scores_as_promised(machine: Machine, unit: str) -> None:
    """See to the score of the unit as it runs, and that there is no word of complaint about it or its socket."""
    said = machine.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", said)
    assert found
    assert float(found[1]) <= WORST_SCORE
    verified = machine.run("systemd-analyze", "verify", "--man=no", f"{unit}.service", "batchd.socket", check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def keeps_credentials_to_itself(machine: Machine, unit: str) -> None:
    """See that no other user, nor the service's own outside of it, nor `systemctl show`, nor the journal has them."""
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


def commands_need_the_secrets_that_they_use(machine: Machine, unit: str) -> None:
    """See that a terminal, which has no credential of the service, checks the config and is told how to go on."""
    config = place(unit)[1]
    checked = machine.run("batchd", "check", "--config", config, user="batchd")
    assert "app-url is a credential" in checked.stderr
    refused = machine.run("batchd", "status", "--config", config, user="batchd", check=False)
    assert refused.returncode == 77
    lent = [f"--property=LoadCredential={name}:/etc/credentials/{unit}/{name}" for name in ("store-url", "app-url")]
    run = ("systemd-run", "--quiet", "--pipe", "--wait", "--uid=batchd", "--gid=batchd", *lent)
    asked = machine.run(*run, "batchd", "--config", config, "check", "--connect")
    assert asked.stdout.count("answers in") == 2


def instances_share_nothing_but_the_user(machine: Machine) -> None:
    """See that each has state, cache and control socket of its own, and one that stops leaves the other's alone."""
    for name in ("batchd", "batchd-pg"):
        assert machine.run("stat", "-c", "%a %U:%G", f"/run/{name}").stdout == "750 batchd:batchd\n"
        assert machine.run("stat", "-c", "%a %U:%G", f"/var/cache/{name}").stdout == "750 batchd:batchd\n"
    machine.run("systemctl", "restart", "batchd")
    machine.run("systemctl", "reload", "batchd@pg")
    assert machine.show("batchd@pg", "ActiveState") == "active"
    assert {entry["SYSLOG_IDENTIFIER"] for entry in machine.journal("-u", "batchd@pg", "_TRANSPORT=stdout")} <= {
        "batchd-pg"
    }


def restarts_what_may_heal_by_itself(machine: Machine, system: System) -> None:
    """See what comes of each exit code: usage, schema, permission and config errors wait for a person, at once."""
    code = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit %i'\nRestartSec=100ms\n"
    machine.write("/etc/systemd/system/batchd@.service.d/code.conf", code)
    machine.run("systemctl", "daemon-reload")
    units = {code: f"batchd@{int(code)}.service" for code in (*FOR_A_PERSON, *MAY_HEAL)}
    machine.run("systemctl", "start", "--no-block", *units.values())
    for code in MAY_HEAL:
        unit = units[code]
        machine.wait_until(lambda unit=unit: int(machine.show(unit, "NRestarts")) > 1, unit=unit, what="two restarts")
    for code in FOR_A_PERSON:
        assert machine.show(units[code], "ActiveState") == "failed"
        assert machine.show(units[code], "NRestarts") == "0"
    if system.release.systemd >= 254:
        assert machine.show(units[ExitCode.UNEXPECTED], "RestartUSecNext") != "100ms"
    machine.run("systemctl", "stop", *units.values(), check=False)
