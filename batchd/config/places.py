"""Where the config is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from batchd.errors import BatchdError, ExitCode

CONFIG_VARIABLE = "BATCHD_CONFIG"
CONFIG_PLACES = (Path("config.toml"), Path("/etc/batchd/config.toml"))


class ConfigNotFound(BatchdError):
    """There is no config where one is looked for."""

    exit_code = ExitCode.CONFIG_INVALID


def config_path(given: str | None, environ: Mapping[str, str]) -> Path:
    """Return where the config is: what was given, else $BATCHD_CONFIG, else the first usual place that has one."""
    named = given or environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    for place in CONFIG_PLACES:
        if _is_there(place):
            return place
    looked = " and ".join(str(place if place.is_absolute() else Path.cwd() / place) for place in CONFIG_PLACES)
    raise ConfigNotFound(
        f"no config found; looked for {looked}", hint=f"name one with --config FILE or ${CONFIG_VARIABLE}"
    )


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work in the folder of a config, where its relative paths mean what they mean to the daemon, and go back.

    There is no way back to a folder that this user cannot see (`sudo -u batchd` in somebody's home) or that is gone:
    then the process stays, and names on its command line meant nothing there either.
    """
    before = None
    with contextlib.suppress(OSError):
        before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.chdir(before)


def _is_there(place: Path) -> bool:
    """Return whether to read the place; what cannot be looked into is no config of the working directory.

    `sudo -u batchd` leaves the command in somebody's home, which the user batchd cannot see. The config in /etc is told
    when it is read.
    """
    try:
        place.stat()
    except PermissionError:
        return place.is_absolute()
    except OSError:
        return False
    return True
