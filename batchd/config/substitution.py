"""`${VAR}` in values, `.env`, secrets from files: what comes from outside the config file.

Whatever came from outside counts as a secret: it is masked in every log line, and a run's row holds a reference
instead of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from batchd.config.problems import Problems

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")
_SHORTEST_SECRET = 4


class Substitution:
    """Replaces variables and remembers where, and what must not be shown."""

    def __init__(self, folder: Path, environ: Mapping[str, str], problems: Problems) -> None:
        self.tainted: set[tuple[str, ...]] = set()
        self.secrets: set[str] = set()
        self._folder = folder
        self._credentials = environ.get("CREDENTIALS_DIRECTORY")
        self._problems = problems
        self._known = {**_dotenv(folder / ".env"), **environ}

    def replaced(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """Return the value with every variable replaced, however deep; a missing one becomes a problem."""
        if isinstance(value, dict):
            return {key: self.replaced(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.replaced(inner, (*path, str(index))) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        return _VARIABLE.sub(lambda match: self._one(match, path), value)

    def _one(self, match: re.Match[str], path: tuple[str, ...]) -> str:
        escaped, name, default, unfinished = match.groups()
        if escaped:
            return "$"
        if unfinished:
            self._problems.add(path, "`${` without a name; write ${NAME}, ${NAME:-default}, or $$ for a plain $")
            return ""
        value = self._known.get(name) or default
        if value is None:
            self._problems.add(
                path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
            return ""
        if name in self._known:
            self.tainted.add(path)
            self.keep_secret(value)
        return value

    def file_content(self, name: str, path: tuple[str, ...]) -> str | None:
        """Return what a secret's file holds, without the newline at its end; a bare name is a systemd credential."""
        file = Path(name)
        if file.name == name and self._credentials:
            file = Path(self._credentials) / name
        try:
            content = (self._folder / file).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self._problems.add(path, f"cannot read {file}: {reason}")
            return None
        self.keep_secret(content)
        return content

    def keep_secret(self, value: str) -> None:
        """Remember a value that must never be shown; very short ones would mask half of every line."""
        if len(value) >= _SHORTEST_SECRET:
            self.secrets.add(value)


def _dotenv(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    return {key: value for key, value in dotenv_values(file, interpolate=False).items() if value is not None}
