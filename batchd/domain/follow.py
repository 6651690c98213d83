"""What a run hands on to the run that follows it: `then = "other"`, `then = { job = "other", params = { … } }`.

Without `params`, each value of the result goes to the parameter of the same name, if the other job has one that its own
config does not set. With `params`, only what stands there goes, with its places filled in: `{result.path}`, and
deeper `{result.files.0.name}`; `{run_id}` and `{job}` of the run that succeeded. A parameter whose place the result
does not have is left out, so that the other job says what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchd.domain.job import JsonValue
from batchd.domain.template import filled

ROOTS = frozenset({"result", "run_id", "job"})
"""What a place may begin with."""


class _Facts(Mapping[str, Any]):
    """Looks up dotted names."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    def __getitem__(self, name: str) -> Any:
        found: Any = self._facts
        for part in name.split("."):
            if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, Mapping):
                found = found[part]
            else:
                raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def params_for(then: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the params of the run that follows; `facts` has `result`, `run_id` and `job` of the one that succeeded."""
    template = then.get("params")
    if template is None:
        result = facts["result"]
        return {name: result[name] for name in then.get("take", ()) if name in result}
    values, params = _Facts(facts), {}
    for name, value in template.items():
        try:
            params[name] = filled(value, values)
        except KeyError:
            continue
    return params


def first_cycle(followers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of jobs that follow each other in a circle, or nothing when every chain comes to an end."""
    for start in sorted(followers):
        path = [start]
        while (following := followers.get(path[-1])) is not None:
            if following in path:
                return tuple(path[path.index(following) :])
            path.append(following)
    return ()
