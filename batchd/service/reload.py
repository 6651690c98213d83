"""Reads the config again and goes over to it, or says why not and goes on as before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from batchd.config.code import code_problems
from batchd.config.difference import ConfigDifference, difference, needs_restart, refusals
from batchd.config.load import Config
from batchd.config.problems import ConfigInvalid
from batchd.config.source import ConfigSource
from batchd.errors import BatchdError, DatabaseUnavailable
from batchd.listeners import registered
from batchd.service.answer import JobAnswer, ReloadAnswer, refused
from batchd.telemetry.logs import get_logger


class Daemon(Protocol):
    """What a reload needs of the running daemon."""

    def reloading(self) -> None:
        """Say that a reload begins."""
        ...

    def reloaded(self) -> None:
        """Say that it is over, whatever came of it."""
        ...

    def take_over(self, config: Config) -> None:
        """Go over to the config, all of it or nothing; raises BatchdError when nothing has changed."""
        ...

    def next_runs(self, jobs: tuple[str, ...]) -> Mapping[str, datetime | None]:
        """Return when each of the jobs fires next."""
        ...

    def say_config_error(self, error: str | None) -> None:
        """Have the store know why the config was refused; None: it was not."""
        ...


class Stopping(BatchdError):
    """The daemon stops, and takes over no other config."""


class Reloader:
    """One reload at a time; any thread may ask. `config` is the config that holds, one reference to a frozen value."""

    def __init__(self, source: ConfigSource, config: Config, daemon: Daemon, name: str) -> None:
        self.config = config
        self.rejected: str | None = None
        self._started = config
        self._listeners = registered()
        self._source = source
        self._daemon = daemon
        self._name = name
        self._lock = threading.Lock()
        self._is_closed = False
        self._log = get_logger()

    def close(self) -> None:
        """Take over no config any more: the daemon stops."""
        self._is_closed = True

    def reload(self, asked_by: str) -> ReloadAnswer:
        """Read the config and go over to it; never raises. A bad one changes nothing, and the answer says why."""
        with self._lock:
            if self._is_closed:
                return refused(Stopping("the daemon is stopping", hint="start it again"), (), self._name)
            self._daemon.reloading()
            try:
                return self._reload(asked_by)
            except BatchdError as error:
                return self._reject(asked_by, error)
            except Exception as error:  # noqa: BLE001 (a bug in reading a config must not end the daemon that reads)
                self._log.exception("config.rejected", asked_by=asked_by, reason=f"unexpected: {error}")
                return self._reject(asked_by, BatchdError(f"unexpected error: {type(error).__name__}: {error}"))
            finally:
                self._daemon.reloaded()

    def _reload(self, asked_by: str) -> ReloadAnswer:
        before = self.config
        after = self._source.read_again(before)
        refusing = refusals(self._started, after)
        if refusing:
            raise ConfigInvalid(refusing)
        if self._is_closed:
            raise Stopping("the daemon is stopping", hint="start it again")
        found = difference(before, after)
        self._daemon.take_over(after)
        self.config = after
        self.rejected = None
        self._daemon.say_config_error(None)
        restart = needs_restart(self._started, after)
        if registered() != self._listeners:
            restart = (*restart, "daemon.import (its listeners)")
        self._tell(asked_by, found, restart)
        return self._answer(after, found, restart)

    def _tell(self, asked_by: str, found: ConfigDifference, restart: tuple[str, ...]) -> None:
        self._log.info(
            "config.reloaded",
            asked_by=asked_by,
            added=found.added,
            changed=[change.name for change in found.changed],
            removed=found.removed,
            settings=found.settings,
        )
        if restart:
            self._log.warning("config.needs_restart", keys=restart)

    def _answer(self, after: Config, found: ConfigDifference, restart: tuple[str, ...]) -> ReloadAnswer:
        names = (*found.added, *(change.name for change in found.changed))
        warnings = [*after.warnings, *code_problems(after)]
        for problem in warnings:
            self._log.warning("config.warning", problem=str(problem))
        fires = self._next_runs(names)
        return ReloadAnswer(
            ok=True,
            exit_code=0,
            message=f"{self._source.path} is taken over" if not found.is_empty else "nothing is different",
            warnings=tuple(map(str, warnings)),
            added=tuple(JobAnswer(name, fires.get(name)) for name in found.added),
            changed=tuple(JobAnswer(each.name, fires.get(each.name), each.keys) for each in found.changed),
            removed=found.removed,
            unchanged=found.unchanged,
            settings=found.settings,
            restart=restart,
            daemon=self._name,
        )

    def _next_runs(self, names: tuple[str, ...]) -> dict[str, str | None]:
        try:
            fires = self._daemon.next_runs(names)
        except BatchdError:
            return {}  # the config holds all the same
        return {name: at.isoformat().replace("+00:00", "Z") if at else None for name, at in fires.items()}

    def _reject(self, asked_by: str, error: BatchdError) -> ReloadAnswer:
        problems = tuple(map(str, error.problems)) if isinstance(error, ConfigInvalid) else ()
        if isinstance(error, DatabaseUnavailable):
            error = DatabaseUnavailable(error.message, hint="the config is right; reload again when the store is back")
        self._log.error("config.rejected", asked_by=asked_by, reason=error.message, exit_code=int(error.exit_code))
        self.rejected = error.message
        self._daemon.say_config_error(error.message)
        return refused(error, problems, self._name)


Reload = Callable[[str], ReloadAnswer]
