"""A job's config as it is in effect, line by line, the way it would be written; secrets never come this far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from batchd.domain.job import CONFIG_REFERENCE
from batchd.domain.quantities import format_duration
from batchd.domain.wording import cleaned
from batchd.store.job_lists import JobRow
from batchd.telemetry.masking import MASK

_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Line:
    """`key = value`; without a key the value stands alone."""

    key: str
    value: str


def config_lines(job: JobRow, params: Mapping[str, object]) -> list[Line]:
    """Return the lines: the settings that every job has, then the kind's own params (masked already)."""
    lines = [Line("", f"[jobs.{job.id}]"), Line("kind", _toml(job.kind))]
    if job.schedule is not None:
        lines += [Line("schedule", _toml(job.schedule)), Line("timezone", _toml(job.timezone))]
    lines += [
        Line("queue", _toml(job.queue)),
        Line("priority", _toml(job.priority)),
        Line("enabled", _toml(job.enabled)),
        Line("catch_up", _toml(job.catch_up)),
        Line("overlap", _toml(job.overlap)),
        Line("timeout", _duration(job.timeout_seconds)),
        Line("retry", _retry(job)),
    ]
    optional = {
        "start_deadline": _duration(job.start_deadline_seconds) if job.start_deadline_seconds else None,
        "jitter": _duration(job.jitter_seconds) if job.jitter_seconds else None,
        "mutex": _toml(job.mutex) if job.mutex else None,
        "limit_key": _toml(job.limit_key) if job.limit_key else None,
        "keep_for": _keep(job.keep) if job.keep else None,
        "then": _toml(job.then_run) if job.then_run else None,
    }
    lines += [Line(key, value) for key, value in optional.items() if value is not None]
    return [*lines, Line("", ""), *param_lines(params)]


def param_lines(params: Mapping[str, object]) -> list[Line]:
    """Return the params, one a line; what the config keeps secret is masked."""
    return [Line(key, _toml(without_references(value))) for key, value in sorted(params.items())]


def without_references(value: object) -> object:
    """Return the value with a mask in place of each secret that only the config has."""
    if value == CONFIG_REFERENCE:
        return MASK
    if isinstance(value, dict):
        return {key: without_references(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_references(inner) for inner in value]
    return value


def _retry(job: JobRow) -> str:
    seconds = {name: job.retry.get(f"{name}_seconds") for name in ("delay", "max_delay")}
    waits = ", ".join(
        f"{name} = {_duration(value)}" for name, value in seconds.items() if isinstance(value, int | float)
    )
    return f"{{ max_attempts = {job.max_attempts}, backoff = {_toml(job.retry.get('backoff'))}, {waits} }}"


def _keep(keep: Mapping[str, object]) -> str:
    pairs = ", ".join(f"{state} = {_duration(age)}" for state, age in keep.items() if isinstance(age, int | float))
    return f"{{ {pairs} }}"


def _duration(length: float | None) -> str:
    return "none" if length is None else f'"{format_duration(timedelta(seconds=length))}"'


def _toml(value: object) -> str:
    """Return the value much as TOML has it; long ones are cut."""
    if isinstance(value, dict):
        text = "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    else:
        text = json.dumps(value, ensure_ascii=False)
    said = cleaned(text)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
