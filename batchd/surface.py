"""The HTTP surface as the daemon starts it: what of the config goes into the server's process, and how it gets there.

The server is forked from the daemon, which has read the config already, so no secret stands in a command line or in an
environment. Only when it has died, or the store has the start wait, it is a program (`python -m batchd.successor`),
since the daemon has threads by then; that one reads the config file, as the server does at a reload.
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
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from batchd.clock import Clock, SystemClock
from batchd.config.http import listening_on
from batchd.config.load import Config
from batchd.config.queue_words import limits_text
from batchd.config.source import ConfigSource
from batchd.db.dialect import DatabaseSettings
from batchd.db.engine import Database
from batchd.domain.job import JobDefinition, JsonObject
from batchd.domain.queue import QueueLimits
from batchd.domain.surface import HttpSettings, Listen, own_hosts
from batchd.errors import BatchdError, ParamsInvalid
from batchd.jobs.contract import Kind
from batchd.systemd import CREDENTIALS, HANDED_OVER, HandedSocket
from batchd.telemetry.logs import configure_logging, get_logger
from batchd.telemetry.masking import Masker
from batchd.web.pulse import Pulse
from batchd.web.sockets import open_listener
from batchd.web.supervisor import Again, Ends, Serve, Supervisor

if TYPE_CHECKING:
    from batchd.web.desk import Desk

_CONNECTIONS = 4
_NICENESS = 10
"""Planning and running come first: about ten parts of the processor to one, where there is not enough for both."""

_LONGEST_STATEMENT = timedelta(seconds=8)

log = get_logger()


def listen(
    config: Config, http: HttpSettings, clock: Clock, source: ConfigSource, handed: Sequence[HandedSocket]
) -> Supervisor:
    """Listen, and return who starts the server.

    `source` is where the config came from, `handed` are the sockets that systemd gave to the daemon. Raises
    CannotCreate when the address cannot be had.
    """
    successor = [sys.executable, "-P", "-m", "batchd.successor"]
    again = [*successor, str(source.path), ",".join(source.modules), str(http.listen)]
    # Of what systemd gave to the daemon, its server needs the credentials alone, to read the config again.
    environ = {name: value for name, value in source.environ.items() if name not in HANDED_OVER}
    if CREDENTIALS in source.environ:
        environ[CREDENTIALS] = source.environ[CREDENTIALS]
    listener = open_listener(http.listen, handed)
    return Supervisor(http.listen, listener, _Serving(config, http, source).build, Again(again, environ), clock)


class ConfigJobs:
    """The config's jobs, as an endpoint sees them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._definitions = {job.name: job for job in config.jobs}

    def definitions(self) -> Mapping[str, JobDefinition]:
        """Return every job of the config; params hold references in place of secrets."""
        return self._definitions

    def check_overrides(self, job: str, overrides: JsonObject) -> None:
        """Raise ParamsInvalid when a run of the job may not have these params, or not from here."""
        self._config.check_overrides(job, overrides)
        adjustable = self._config.kinds[self._definitions[job].kind].adjustable
        for key in sorted(overrides.keys() - adjustable):
            may = f"may set: {', '.join(sorted(adjustable))}" if adjustable else "may set none"
            raise ParamsInvalid(
                f"{key} of job {job!r} cannot be set over HTTP; a run {may}",
                hint="set it in the config, or use `batchd trigger` where the daemon runs",
            )

    def queues(self) -> tuple[str, ...]:
        """Return the names of the config's queues, `default` among them."""
        return tuple(sorted({"default", *self._config.settings.queues}))

    @property
    def timezone(self) -> str:
        """The time zone in which pages show moments."""
        return self._config.settings.daemon.timezone

    def limits(self, queue: str) -> str:
        """Return the queue's limits in words; empty when it has none."""
        settings = self._config.settings.queues.get(queue)
        return "" if settings is None else limits_text(settings)

    def queue_limits(self) -> QueueLimits:
        """Return them as they hold runs back."""
        return self._config.settings.queue_limits()

    def kind(self, name: str) -> Kind[Any] | None:
        """Return the kind, imported when it was not yet; None when there is none of that name."""
        return self._config.kinds.get(name)

    def databases_of(self, kind: str, job: str | None, params: JsonObject) -> tuple[DatabaseSettings, ...]:
        """Return the databases that a run of these stored params works on; none when that cannot be told."""
        known = self.kind(kind)
        if known is None:
            return ()
        try:
            whole = known.params.model_validate(self._config.resolve_params(job, params))
        except (ValidationError, BatchdError):
            return ()
        databases = self._config.databases
        return tuple(databases[name] for name in dict.fromkeys(known.databases(whole)) if name in databases)


class _Serving:
    """What the server's process does."""

    def __init__(self, config: Config, http: HttpSettings, source: ConfigSource) -> None:
        self._config = config
        self._http = http
        self._source = source

    def build(self, ends: Ends) -> Serve:
        """Return what `serve` does, made already as far as that goes without a thread."""
        serve = self._server(ends)
        return lambda: self._run(serve)

    def serve(self, ends: Ends) -> None:
        """Make and serve it, until the control socket ends, behind the daemon whenever both want the processor."""

        def make_and_serve() -> None:
            self._server(ends)()

        self._run(make_and_serve)

    def _run(self, serve: Serve) -> None:
        os.nice(_NICENESS)
        gc.enable()
        _configure_logging(self._config)
        try:
            serve()
        except Exception as error:
            log.critical("http.failed", route="", status=0, exc_info=error)
            raise

    def _server(self, ends: Ends) -> Serve:
        # The web's libraries are imported here and nowhere else, where there is an HTTP surface.
        from batchd.web.desk import Desk  # noqa: PLC0415
        from batchd.web.health import Health  # noqa: PLC0415
        from batchd.web.link import Link  # noqa: PLC0415
        from batchd.web.server import make_server, serve  # noqa: PLC0415

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
        server = make_server(desk)
        return lambda: serve(server, desk, ends.listener, ends.control, self._reread)

    def _reread(self, desk: Desk) -> None:
        """Give the desk what the config file says now; where it listens, and what is bound to that, stays."""
        config = self._source.read()
        _configure_logging(config)
        desk.jobs = ConfigJobs(config)
        desk.exports = config.exports
        desk.mask = Masker(config.secrets).masked
        if config.http is not None:
            desk.settings = staying(desk.settings.listen, config.http)


def staying(listen: Listen, after: HttpSettings) -> HttpSettings:
    """Return the settings of a config that is taken over where the server listens already."""
    return replace(after, listen=listen, hosts=after.hosts | own_hosts(listen))


def _configure_logging(config: Config) -> None:
    settings = config.settings.log
    configure_logging(level=settings.level, log_format=settings.format, secrets=config.secrets)


def succeed(arguments: Sequence[str]) -> int:
    """Be the server that takes a dead one's place; the arguments are those of `start` and four descriptors."""
    path, modules, address, *numbers = arguments
    control, questions, pulse, listener = map(int, numbers)
    ends = Ends(
        socket.socket(fileno=control), socket.socket(fileno=questions), Pulse(pulse), socket.socket(fileno=listener)
    )
    for part in (ends.control, ends.questions, ends.listener):
        part.set_inheritable(False)
    os.set_inheritable(pulse, False)
    try:
        names = tuple(filter(None, modules.split(",")))
        source = ConfigSource(Path(path), dict(os.environ), names)
        config = source.read()
    except BatchdError as error:
        sys.stderr.write(f"the HTTP surface cannot start again: {error.message}\n")
        return int(error.exit_code)
    _Serving(config, config.http or listening_on(address), source).serve(ends)
    return 0
