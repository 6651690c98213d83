"""What a reload came to, as it goes over the control socket: one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from batchd.errors import BatchdError, ExitCode


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """A job that was added or changed: the keys that differ, and when it fires next (ISO 8601, UTC), if it does."""

    name: str
    next_run_at: str | None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReloadAnswer:
    """`message` says in one sentence what became of it; where the config was refused, `problems` has every reason.

    `settings` were taken over at once; `restart` names what takes effect when the daemon is restarted.
    """

    ok: bool
    exit_code: int
    message: str
    hint: str | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    added: tuple[JobAnswer, ...] = ()
    changed: tuple[JobAnswer, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    settings: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    daemon: str = field(default="", kw_only=True)

    def as_json(self) -> str:
        """Return one line."""
        return json.dumps(asdict(self))


def refused(error: BatchdError, problems: tuple[str, ...], daemon: str) -> ReloadAnswer:
    """Return the answer that nothing has changed, and why."""
    return ReloadAnswer(
        ok=False,
        exit_code=int(error.exit_code),
        message=error.message,
        hint=error.hint,
        problems=problems,
        daemon=daemon,
    )


def answer_from(text: str) -> ReloadAnswer:
    """Return the answer that a daemon gave; raises ValueError for anything else."""
    said = json.loads(text)
    if not isinstance(said, dict) or not {"ok", "exit_code", "message"} <= said.keys():
        raise ValueError(text[:200])
    known = {each.name for each in fields(ReloadAnswer)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in said.items() if key in known
    }
    for key in ("added", "changed"):
        values[key] = tuple(
            JobAnswer(job["name"], job.get("next_run_at"), tuple(job.get("keys", ()))) for job in values.get(key, ())
        )
    values["exit_code"] = ExitCode(values["exit_code"])
    return ReloadAnswer(**values)
