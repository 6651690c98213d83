"""The HTTP surface as the daemon starts it: what of the config goes into the server's process, and how it gets there.

The server is forked from the daemon, which has read the config already, so no secret stands in a command line or in an
environment. Only when it has died, its successor is a program (`python -m batchd.surface`), since the daemon has
threads by then; that one reads the config file, as the server does at a reload.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from batchd.clock import Clock, SystemClock
from batchd.config.http import listening_on
from batchd.config.load import Config, load_config
from batchd.db.engine import Database
from batchd.domain.job import JobDefinition, JsonObject
from batchd.domain.surface import HttpSettings
from batchd.errors import BatchdError
from batchd.telemetry.logs import configure_logging, get_logger
from batchd.telemetry.masking import Masker
from batchd.web.pulse import Pulse
from batchd.web.sockets import open_listener
from batchd.web.supervisor import Ends, Supervisor, leave_signals

if TYPE_CHECKING:
    from batchd.web.desk import Desk

_CONNECTIONS = 4
_NICENESS = 10
"""Planning and running come first: about ten parts of the processor to one, where there is not enough for both."""

_LONGEST_STATEMENT = timedelta(seconds=8)

log = get_logger()


def start(config: Config, http: HttpSettings, clock: Clock, modules: Sequence[str] = ()) -> Supervisor:
    """Listen, and start the server's process; main thread only, before any thread is made.

    `modules` are those that the command line imports beside the config's. Raises CannotCreate when the address cannot
    be had.
    """
    again = [sys.executable, "-m", "batchd.surface", str(config.folder / config.path.name), ",".join(modules)]
    again.append(str(http.listen))
    listener = open_listener(http.listen)
    supervisor = Supervisor(http.listen, listener, _Serving(config, http, modules), again, clock)
    gc.freeze()  # pages that the collector does not write to stay shared
    supervisor.start()
    return supervisor


class ConfigJobs:
    """The config's jobs, as an endpoint sees them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._definitions = {job.name: job for job in config.jobs}

    def definitions(self) -> Mapping[str, JobDefinition]:
        """Return every job of the config; params hold references in place of secrets."""
        return self._definitions

    def check_overrides(self, job: str, overrides: JsonObject) -> None:
        """Raise ParamsInvalid when a run of the job may not have these params, or one of them is a secret."""
        self._config.check_overrides(job, overrides)

    def queues(self) -> tuple[str, ...]:
        """Return the names of the config's queues, `default` among them."""
        return tuple(sorted({"default", *self._config.settings.queues}))


class _Serving:
    """What the server's process does."""

    def __init__(self, config: Config, http: HttpSettings, modules: Sequence[str]) -> None:
        self._config = config
        self._http = http
        self._modules = modules

    def __call__(self, ends: Ends) -> None:
        """Serve until the control socket ends, behind the daemon whenever both want the processor."""
        os.nice(_NICENESS)
        gc.enable()
        _configure_logging(self._config)
        try:
            self._serve(ends)
        except Exception as error:
            log.critical("http.failed", route="", status=0, exc_info=error)
            raise

    def _serve(self, ends: Ends) -> None:
        # The web's libraries are imported here and nowhere else, in the server's process.
        from batchd.web.desk import Desk  # noqa: PLC0415
        from batchd.web.health import Health  # noqa: PLC0415
        from batchd.web.link import Link  # noqa: PLC0415
        from batchd.web.server import serve  # noqa: PLC0415

        config, clock = self._config, SystemClock()
        os.chdir(config.folder)
        store = replace(
            config.store, pool_size=min(_CONNECTIONS, config.store.pool_size), statement_timeout=_LONGEST_STATEMENT
        )
        desk = Desk(
            store=Database(store),
            settings=self._http,
            jobs=ConfigJobs(config),
            daemon=Link(ends.questions, clock),
            health=Health(ends.pulse, clock),
            clock=clock,
            mask=Masker(config.secrets).masked,
            exports=config.exports,
        )
        serve(desk, ends.listener, ends.control, self._reread)

    def _reread(self, desk: Desk) -> None:
        """Give the desk what the config file says now; where it listens, and what is bound to that, stays."""
        config = read_again(self._config.folder / self._config.path.name, self._modules)
        _configure_logging(config)
        desk.jobs = ConfigJobs(config)
        desk.exports = config.exports
        desk.mask = Masker(config.secrets).masked
        if config.http is not None:
            desk.settings = replace(config.http, listen=desk.settings.listen)


def read_again(path: Path, modules: Sequence[str]) -> Config:
    """Return the config as it is in its file now, with the jobs of the modules that it imports."""
    config = load_config(path, os.environ)
    if not modules and not config.settings.daemon.imports:
        return config
    from batchd.config.imports import with_imports  # noqa: PLC0415 (most configs import nothing)

    return with_imports(config, modules)


def _configure_logging(config: Config) -> None:
    settings = config.settings.log
    configure_logging(level=settings.level, log_format=settings.format, secrets=config.secrets)


def main(arguments: Sequence[str]) -> int:
    """Be the server that takes a dead one's place; the arguments are those of `start` and four descriptors."""
    path, modules, listen, *numbers = arguments
    control, questions, pulse, listener = map(int, numbers)
    ends = Ends(
        socket.socket(fileno=control), socket.socket(fileno=questions), Pulse(pulse), socket.socket(fileno=listener)
    )
    for part in (ends.control, ends.questions, ends.listener):
        part.set_inheritable(False)
    os.set_inheritable(pulse, False)
    try:
        names = tuple(filter(None, modules.split(",")))
        config = read_again(Path(path), names)
    except BatchdError as error:
        sys.stderr.write(f"the HTTP surface cannot start again: {error.message}\n")
        return int(error.exit_code)
    leave_signals()
    _Serving(config, config.http or listening_on(listen), names)(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
