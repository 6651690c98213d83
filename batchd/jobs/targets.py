"""A team's own functions, named in the config as `package.module:function`.

They are found among the installed packages and in the folders of `[daemon] import_path` (the config's own folder when
nothing is said). Those folders come last, so that a file beside the config never takes the place of a library.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from batchd.errors import JobError

_ASKED_BY_NAME = ("connection", "context")


@dataclass(frozen=True, slots=True)
class Target:
    """A function that a job calls, and which of `connection` and `context` it asks for by naming a parameter so."""

    name: str
    function: Callable[..., Any]
    wants: frozenset[str]

    def call(self, subject: Any, arguments: Mapping[str, Any], **offered: Any) -> Any:
        """Call the function with the subject first, then the arguments, and what it asks for of what is offered."""
        asked = {name: value for name, value in offered.items() if name in self.wants}
        return self.function(subject, **arguments, **asked)


class TargetInvalid(JobError):
    """A target cannot be imported, is no function, or does not take what it would be called with."""


def extend_import_path(folders: Sequence[Path]) -> None:
    """Let targets be imported from the folders too, after everything that is installed. Call it once, early."""
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def check_name(name: str) -> None:
    """Raise ValueError when the text is not `package.module:function`."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise ValueError(f'{name!r} is not a target; write "package.module:function"')


def load_target(name: str, arguments: Mapping[str, Any]) -> Target:
    """Import the function and see that it can be called with the arguments; raises TargetInvalid with advice.

    May be called from any thread. A module that failed to import is tried again at the next call.
    """
    found = import_target(name)
    if inspect.iscoroutinefunction(found):
        raise TargetInvalid(
            f"{name} is an async function", hint="wrap it: def work(rows): asyncio.run(...)", retryable=False
        )
    return Target(name, found, _fitted(name, found, arguments))


def import_target(name: str) -> Callable[..., Any]:
    """Import the function and return it; raises TargetInvalid with advice. Any thread may call it."""
    module_name, _, attribute = name.partition(":")
    found: Any = import_module(name, module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            raise TargetInvalid(
                f"{module_name} has no {attribute}", hint=f"did you mean {near[0]}?" if near else None, retryable=False
            )
        found = getattr(found, part)
    if not callable(found):
        raise TargetInvalid(f"{name} is {type(found).__name__}, not a function", retryable=False)
    function: Callable[..., Any] = found
    return function


def import_module(name: str, module_name: str) -> ModuleType:
    """Import the module that `name` needs, also one that was written just now; raises TargetInvalid with advice."""
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise TargetInvalid(
                f"target {name}: there is no module {error.name}",
                hint="install its package beside batchd, or name its folder in [daemon] import_path",
            ) from error
        raise TargetInvalid(f"target {name}: importing {module_name} failed: {error}") from error
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise TargetInvalid(f"target {name}: importing {module_name} failed: {type(error).__name__}: {said}") from error


def _fitted(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> frozenset[str]:
    """Return which names the function asks for; raises TargetInvalid when the call would not fit."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return frozenset()  # a function in C does not say; the call will show
    wants = frozenset(asked for asked in _ASKED_BY_NAME if asked in signature.parameters)
    try:
        signature.bind(object(), **arguments, **dict.fromkeys(wants))
    except TypeError as error:
        called = ", ".join(["rows", *(f"{key}=…" for key in (*arguments, *sorted(wants)))])
        raise TargetInvalid(
            f"target {name}{signature} does not fit the call {name.rpartition(':')[2]}({called}): {error}",
            hint="`arguments` are passed by name; `connection` and `context` are passed when it names them",
            retryable=False,
        ) from error
    return wants
