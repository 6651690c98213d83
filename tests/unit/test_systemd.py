"""What is said to systemd, and what is taken from it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from batchd.systemd import HANDED_OVER, Journal, Notifier, take_over
from tests.support.launcher import PROJECT
from tests.support.notify_socket import NotifySocket
from tests.support.waiting import wait_until


@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_said_arrives(tmp_path: Path, abstract: bool) -> None:
    """Over a socket with a name in the file system, and over an abstract one; a status only when it changes."""
    with NotifySocket(tmp_path, abstract=abstract) as systemd:
        notifier = Notifier(systemd.address)
        notifier.status("waiting for\nthe store")
        notifier.status("waiting for\nthe store")
        notifier.ready("1 job")
        notifier.reloading("again")
        notifier.stopping("bye " + "x" * 1000)
        notifier.extend(timedelta(seconds=2))
        notifier.feed()
        wait_until(lambda: "WATCHDOG=1" in systemd.lines, what="the last message")
    said = systemd.messages
    assert said[:2] == [["STATUS=waiting for the store"], ["READY=1", "STATUS=1 job"]]
    assert said[2][0] == "RELOADING=1"
    assert int(said[2][1].removeprefix("MONOTONIC_USEC=")) > 0
    assert said[3][0] == "READY=1", "a stop ends the reload first"
    assert said[4][0] == "STOPPING=1"
    assert len(said[4][1]) < 450
    assert said[5:] == [["EXTEND_TIMEOUT_USEC=2000000"], ["WATCHDOG=1"]]


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/at/all", "@nobody-listens"])
def test_nobody_to_tell_is_no_error(address: str | None) -> None:
    """Nothing raises."""
    notifier = Notifier(address)
    notifier.ready("1 job")
    notifier.feed()


def test_what_is_handed_over_leaves_the_environment() -> None:
    """No child of a job speaks for the daemon, feeds its watchdog or finds its credentials."""
    me = str(os.getpid())
    environ = dict.fromkeys(HANDED_OVER, "x") | {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": me,
        "LISTEN_FDS": "0",
        "LISTEN_PID": me,
        "PATH": "/bin",
    }
    manager = take_over(environ)
    assert environ == {"PATH": "/bin"}
    assert (manager.watchdog, manager.sockets) == (timedelta(seconds=3), ())


@pytest.mark.parametrize("given", [{"WATCHDOG_PID": "1", "WATCHDOG_USEC": "5"}, {"WATCHDOG_USEC": "-5"}, {}])
def test_a_watchdog_for_another_process_or_of_nonsense_is_none(given: dict[str, str]) -> None:
    """As sd_watchdog_enabled(3) has it."""
    assert take_over(dict(given)).watchdog is None


def test_sockets_are_taken_by_the_process_that_they_are_for() -> None:
    """Their names come along, and no child inherits them."""
    code = (
        "import os, socket; from batchd.systemd import take_over\n"
        "given = socket.socket()\n"
        "given.detach() if given.fileno() == 3 else os.dup2(given.fileno(), 3)\n"
        "os.set_inheritable(3, True)\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "print([(each.fd, each.name, os.get_inheritable(each.fd)) for each in take_over().sockets])\n"
        "print(take_over({'LISTEN_PID': '1', 'LISTEN_FDS': '1'}).sockets)\n"
    )
    # All of it in a process of its own: here, descriptor 3 may well be how pytest-xdist speaks to its worker.
    environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[(3, 'http', False)]", "()"]


def test_an_entry_of_the_journal_keeps_lines_apart(tmp_path: Path) -> None:
    """A value with a newline goes by its length; without a journal the caller is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        sound, broken = Journal(str(tmp_path / "journal")), Journal(str(tmp_path / "nobody"))
        assert sound.send({"MESSAGE": "a\nb", "PRIORITY": 3})
        assert journal.recv(1000) == b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\n"
    assert not broken.send({"MESSAGE": "a"})
    sound.close()
    broken.close()


def test_a_fork_that_has_closed_what_it_inherited_speaks_to_the_journal_and_into_no_connection(tmp_path: Path) -> None:
    """The journal's descriptor is closed in the HTTP server; its number may be that of a connection by then."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as journald:
        journald.bind(str(tmp_path / "journal"))
        journald.settimeout(5)
        journal = Journal(str(tmp_path / "journal"))
        pid = os.fork()
        if pid == 0:
            _take_the_number_and_log(journal, journal._socket.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert (status, journald.recv(100)) == (0, b"MESSAGE=from the fork\n")
        journal.close()


def _take_the_number_and_log(journal: Journal, number: int) -> None:
    code = 1
    try:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
            os.dup2(here.fileno(), number)
            sent = journal.send({"MESSAGE": "from the fork"})
            there.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                code = 2 if there.recv(100) else 3
            if code == 1 and sent:
                code = 0
    finally:
        os._exit(code)


def test_signals_are_taken_over_before_anything_heavy_is_imported() -> None:
    """A SIGHUP that found no handler would end the process, and look like a clean stop."""
    code = (
        "import signal, sys\n"
        "from batchd.__main__ import is_daemon\n"
        "from batchd.signals import process_signals\n"
        "process_signals()\n"
        "heavy = {'sqlalchemy', 'pydantic', 'structlog', 'click', 'apscheduler'} & set(sys.modules)\n"
        "print(callable(signal.getsignal(signal.SIGHUP)), heavy, is_daemon(['-c', 'run', 'jobs']), "
        "is_daemon(['--config', 'x', 'run']), is_daemon(['trigger', 'run']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set() False True False"
