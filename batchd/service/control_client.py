"""Asks a running daemon to read its config again, and waits for what came of it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from batchd.errors import BatchdError, NoPermission
from batchd.service.answer import ReloadAnswer, answer_from
from batchd.service.control_socket import address_of, candidates, read_line

_CONNECT_WITHIN_SECONDS = 5.0


class NoDaemon(BatchdError):
    """No daemon of this machine answers for the config."""


class NoAnswer(BatchdError):
    """The daemon did not answer in time, or broke off; what became of the reload stands in its log."""


def ask_reload(config: Path, environ: Mapping[str, str], within: timedelta) -> list[ReloadAnswer]:
    """Return the answer of each daemon of this machine that runs the config; there is at least one.

    Raises NoDaemon, NoPermission where a socket may not be used, NoAnswer.
    """
    answers, denied = [], []
    for path in candidates(config, environ):
        try:
            answer = _ask(path, config, within)
        except PermissionError:
            denied.append(path)
            continue
        except (FileNotFoundError, ConnectionRefusedError):
            continue  # what a daemon left behind that is gone
        except (OSError, ValueError) as error:
            raise NoAnswer(f"no answer over {path}: {error}", hint="its log says what became of it") from error
        if answer is not None:
            answers.append(answer)
    if answers:
        return answers
    if denied:
        raise NoPermission(
            f"{denied[0]} may not be used by this user", hint="be root, or of the group that the daemon runs as"
        )
    raise NoDaemon(
        f"no daemon that runs {config} answers on this machine",
        hint="start it with `batchd run`; a changed config is read at each start",
    )


def _ask(path: Path, config: Path, within: timedelta) -> ReloadAnswer | None:
    """Return the answer, None when the daemon there has another config."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, address_of(path) as address:
        connection.settimeout(_CONNECT_WITHIN_SECONDS)
        connection.connect(address)
        question = {"command": "reload", "config": str(config.absolute())}
        with contextlib.suppress(BrokenPipeError):  # whoever is turned away is told so before being listened to
            connection.sendall(json.dumps(question).encode() + b"\n")
        connection.settimeout(within.total_seconds())
        text = read_line(connection)
    said = json.loads(text)
    if isinstance(said, dict) and "error" in said:
        if said["error"].get("code") == "denied":
            raise PermissionError
        return None
    return answer_from(text)
