"""Where the daemon's config comes from, so that it can be read again, whole, just as it was read at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from batchd.config.http import listening_on
from batchd.config.load import Config, load_config
from batchd.config.problems import ConfigInvalid, Problem


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A file, the environment of the start (credentials included), and what the command line says beside them.

    `modules` are imported too, `listen` is where the HTTP surface listens whatever the file says.

    The environment is kept, not looked up again: systemd's part of it is taken away from what jobs start.
    """

    path: Path
    environ: Mapping[str, str]
    modules: tuple[str, ...] = ()
    allow_empty: bool = False
    listen: str | None = None

    def read(self) -> Config:
        """Return the checked config; raises BatchdError with everything that is wrong with it.

        Modules that it imports for the first time are imported.
        """
        config = load_config(self.path, self.environ)
        if self.modules or config.settings.daemon.imports:
            from batchd.config.imports import with_imports  # noqa: PLC0415 (most configs import nothing)

            config = with_imports(config, self.modules)
        return config if self.listen is None else _listening(config, self.listen)

    def read_again(self, before: Config) -> Config:
        """Return the config for a reload; raises BatchdError also where only a restart could take it over."""
        folder = self.path.resolve().parent
        if folder != before.folder:
            # The process works in the config's folder, and so do the jobs that run.
            said = f"lies in {folder} now, and relative paths still mean {before.folder}: this needs a restart"
            raise ConfigInvalid([Problem(str(self.path), None, "", None, said)])
        config = self.read()
        config.require_jobs(allow_empty=self.allow_empty)
        return config


def _listening(config: Config, listen: str) -> Config:
    asked = listening_on(listen)
    if config.http is not None:
        asked = replace(config.http, listen=asked.listen, hosts=config.http.hosts | asked.hosts)
    return replace(config, http=asked)
