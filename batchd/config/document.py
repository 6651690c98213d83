"""From a file to a document: the text, whatever an editor made of it, and its TOML."""

from __future__ import annotations

import re
import tomllib
from datetime import date, time
from pathlib import Path
from typing import Any

from batchd.config.problems import ConfigInvalid, Problems
from batchd.errors import BatchdError, ExitCode, NoPermission

_TOML_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)")
_LONGEST_FILE_BYTES = 16 << 20
_DEEPEST = 30


class ConfigMissing(BatchdError):
    """There is no config file where one was expected."""

    exit_code = ExitCode.CONFIG_INVALID


def read_text(path: Path) -> str:
    """Return the config's text with TOML's line ends; a byte order mark, which Windows editors write, is taken off."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigMissing(
            f"there is no config {path}", hint="copy config.example.toml, or name one with --config"
        ) from None
    except PermissionError:
        raise NoPermission(f"{path} may not be read by this user", hint="check its owner and mode") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigMissing(f"cannot read {path}: {reason}", hint="name a TOML file with --config") from error
    if len(content) > _LONGEST_FILE_BYTES:
        raise _one_problem(
            path, None, f"has more than {_LONGEST_FILE_BYTES >> 20} MiB; a config is a text of some pages"
        )
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _one_problem(path, line, f"is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return the TOML text as JSON has it, dates as ISO text; raises ConfigInvalid where it is not TOML."""
    try:
        document = tomllib.loads(text)
        # Everything after this walks the document by recursion.
        _check_depth(document)
    except RecursionError as error:
        raise _one_problem(path, None, "is nested too deeply; no key of a config is") from error
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(path, text, str(error)) from error
    plain: dict[str, Any] = _plain(document)
    return plain


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [part for values in inner for part in values if isinstance(part, dict | list)]
        if not level:
            return
    raise RecursionError


def _not_toml(path: Path, text: str, said: str) -> ConfigInvalid:
    lines = text.split("\n")
    place = _TOML_PLACE.search(said)
    line = int(place[1]) if place else len(text.rstrip("\n").split("\n"))
    written = lines[min(line, len(lines)) - 1].strip()
    if not any(word in said for word in ("declare", "overwrite", "redefine", "mutate")):
        return _one_problem(path, line, f"is not TOML: {said}")
    name = written if written.startswith("[") else written.partition("=")[0].strip()
    advice = "two jobs need two names" if written.startswith("[jobs.") else "keep one of them"
    return _one_problem(path, line, f"{name} is written twice; {advice}")


def _one_problem(path: Path, line: int | None, message: str) -> ConfigInvalid:
    return ConfigInvalid([Problems(path, "").of((), message).at(line)])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date | time) else value
