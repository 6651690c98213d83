"""The control socket: who may ask, what is understood, and where it may lie."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from batchd.errors import NoPermission
from batchd.service import control_server
from batchd.service.answer import JobAnswer, ReloadAnswer, answer_from
from batchd.service.control_client import NoDaemon, ask_reload
from batchd.service.control_server import ControlServer
from batchd.service.control_socket import address_of, read_line

SECONDS = timedelta(seconds=10)
ANSWER = ReloadAnswer(ok=True, exit_code=0, message="done", added=(JobAnswer("a", None, ("x",)),), removed=("b",))


def test_a_daemon_answers_for_its_own_config_alone(tmp_path: Path) -> None:
    """Also over a path that is longer than a socket's may be; nonsense is refused and ends nothing."""
    folder = tmp_path / ("x" * 120)
    config = tmp_path / "config.toml"
    config.write_text(f'[daemon]\nstate = "{folder}"\n')
    asked: list[str] = []
    server = ControlServer(folder, config, lambda by: asked.append(by) or ANSWER)  # type: ignore[func-returns-value]
    server.start()
    path = folder / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    for question in (
        b"nonsense\n",
        b"[" * 100_000 + b"\n",
        b"[]\n",
        b'{"command": "stop"}\n',
        b'{"command": "reload", "config": 3}\n',
    ):
        with socket.socket(socket.AF_UNIX) as connection, address_of(path) as address:
            connection.connect(address)
            connection.sendall(question)
            assert "error" in read_line(connection)
    assert ask_reload(config, {}, SECONDS) == [ANSWER]
    other = tmp_path / "other.toml"
    other.write_text(config.read_text())
    with pytest.raises(NoDaemon):
        ask_reload(other, {}, SECONDS)
    server.ask()
    server.stop()
    assert asked[0] == f"uid {os.getuid()}, pid {os.getpid()}"
    assert not path.exists()


def test_somebody_without_the_right_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the socket's mode has become: the kernel says who asks."""
    monkeypatch.setattr(control_server, "_peer", lambda _connection: None)
    config = tmp_path / "config.toml"
    config.write_text(f'[daemon]\nstate = "{tmp_path}"\n')
    server = ControlServer(tmp_path, config, lambda _by: ANSWER)
    server.start()
    with pytest.raises(NoPermission):
        ask_reload(config, {}, SECONDS)
    server.stop()


def test_a_second_daemon_takes_no_socket_from_the_first(tmp_path: Path) -> None:
    """What a dead one left behind is taken; a living one keeps its own."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    config = tmp_path / "config.toml"
    config.write_text(f'[daemon]\nstate = "{tmp_path}"\n')
    first, second = (ControlServer(tmp_path, config, lambda _by: ANSWER) for _ in range(2))
    first.start()
    second.start()
    assert {path.name for path in tmp_path.glob("*.sock")} == {"control.sock", f"control-{os.getpid()}.sock"}
    assert ask_reload(config, {}, SECONDS) == [ANSWER, ANSWER]
    first.stop()
    second.stop()


def test_an_answer_survives_the_way() -> None:
    """And what is none is refused."""
    assert answer_from(ANSWER.as_json()) == ANSWER
    with pytest.raises(ValueError, match="ready"):
        answer_from('"ready"')
