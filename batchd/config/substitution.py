"""`${VAR}` in values, `.env`, secrets from files: what comes from outside the config file.

Whatever came from outside counts as a secret: it is masked in every log line, and a run's row holds a reference
instead of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from batchd.config.problems import Problems

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")
_SHORTEST_SECRET = 4

STAND_IN = "(?)"
"""For a secret that could not be read: too short to be masked."""


class Substitution:
    """Replaces variables and remembers where, and what must not be shown."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        problems: Problems,
        is_plain: Callable[[tuple[str, ...]], bool] = lambda _path: False,
    ) -> None:
        self.tainted: set[tuple[str, ...]] = set()
        self.secrets: set[str] = set()
        self.inline: set[tuple[str, ...]] = set()
        self._folder = folder
        self._credentials = environ.get("CREDENTIALS_DIRECTORY")
        self._problems = problems
        self._is_plain = is_plain
        self._known = {**self._dotenv(folder / ".env"), **environ}

    def replaced(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """Return the value with every variable replaced, however deep; a missing one becomes a problem."""
        if isinstance(value, dict):
            return {key: self.replaced(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.replaced(inner, (*path, str(index))) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        if "\x00" in value:
            self._problems.add(path, "holds a NUL character, which neither a file name nor a database can have")
            return value.replace("\x00", "")
        return _VARIABLE.sub(lambda match: self._one(match, path), value)

    def _one(self, match: re.Match[str], path: tuple[str, ...]) -> str:
        escaped, name, default, unfinished = match.groups()
        if escaped:
            return "$"
        if unfinished:
            self._problems.add(path, "`${` without a name; write ${NAME}, ${NAME:-default}, or $$ for a plain $")
            return ""
        if default is not None and "${" in default:
            self._problems.add(
                path, f"the default of ${{{name}:-…}} holds another variable, which batchd does not resolve"
            )
            return ""
        given = self._known.get(name)
        if given:
            if not self._is_plain(path):
                self.tainted.add(path)
                self.keep_secret(given)
            return given
        if default is None:
            state = "not set" if given is None else "empty"
            self._problems.add(
                path, f"the environment variable {name} is {state}; set it, or write ${{{name}:-default}}"
            )
        return (default or "").replace("$$", "$")

    def file_content(self, name: str, path: tuple[str, ...]) -> str | None:
        """Return what a secret's file holds, without the newline at its end; a bare name is a systemd credential."""
        file = Path(name)
        is_credential = file.name == name
        if is_credential and self._credentials:
            file = Path(self._credentials) / name
        try:
            content = (self._folder / file).read_text(encoding="utf-8").rstrip("\r\n")
        except PermissionError:
            self._problems.add_denied(path, f"{file} may not be read by this user; check its owner and mode")
            return None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            message = f"cannot read {file}: {reason}"
            if is_credential and not self._credentials and isinstance(error, FileNotFoundError):
                self._problems.add_absent(path, message, name)
            else:
                self._problems.add(path, message)
            return None
        if not content.strip():
            self._problems.add(path, f"{file} is empty")
            return None
        self.keep_secret(content)
        return content

    def keep_secret(self, value: str) -> None:
        """Remember a value that must never be shown; very short ones would mask half of every line."""
        if len(value) >= _SHORTEST_SECRET:
            self.secrets.add(value)

    def note_if_inline(self, path: tuple[str, ...]) -> None:
        """Remember that a secret stands at `path` in the config itself, unless a variable or a file brought it."""
        if path not in self.tainted and not path[-1].endswith("_file"):
            self.inline.add(path)

    def _dotenv(self, file: Path) -> dict[str, str]:
        if not file.is_file():
            return {}
        try:
            found = dotenv_values(file, interpolate=False)
        except PermissionError:
            self._problems.add_denied((), f"{file} may not be read by this user; check its owner and mode")
            return {}
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self._problems.add((), f"cannot read {file}: {reason}")
            return {}
        return {key: value for key, value in found.items() if value is not None}
