"""Writes docs/configuration.md from the settings models; a test compares."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from batchd.alerts.catalog import channel_types
from batchd.config import alert_settings, exports, settings
from batchd.domain.quantities import format_duration
from batchd.domain.queue import Rate
from batchd.jobs import catalog
from batchd.jobs.contract import Kind

_HEAD = """# Configuration

One TOML file. This page is generated from the settings models; `batchd schema` prints the same as a JSON Schema for
editors, `batchd check` tells every error at once, `batchd kinds KIND` explains a kind at the terminal.

- Durations are written as `"90s"`, `"5m"`, `"1h30m"`, `"30d"`; sizes as `"64MB"` or `"1GiB"`.
- `${VAR}` in a value is replaced from the environment, or from a `.env` beside the config (the real environment wins);
  `${VAR:-default}` has a default; `$$` is a plain `$`. A variable that is not set is an error.
- A secret can stand in a file: `url_file` instead of `url`, `password_file` instead of `password`, and `NAME_file` for
  every secret of a kind. A bare file name is looked up in `$CREDENTIALS_DIRECTORY` when systemd sets it, any other path
  is relative to the config's folder.
- Every relative path is relative to the config's folder, which is also the daemon's working directory.
- A value that came from a variable or a file is masked in logs and never stored: a run's row refers to the config.
- Settings of a job win over `[defaults]`, those over the kind's own defaults, those over the ones below.
"""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[daemon]", settings.DaemonSettings),
    ("[store]", settings.StoreSettings),
    ("[databases.NAME]", settings.DatabaseSection),
    ("[mail]", settings.MailSection),
    ("[http]", settings.HttpSection),
    ("[exports]", exports.ExportsSection),
    ("[exports.sources.NAME]", exports.ExportSourceSection),
    ("[log]", settings.LogSettings),
    ("[queues.NAME]", settings.QueueSettings),
    ("[alerts]", alert_settings.AlertsSection),
    ("[alerts.channels.NAME]", alert_settings.ChannelSection),
    *(
        (f'[alerts.channels.NAME] of type = "{name}"', each.settings)
        for name, each in channel_types().items()
        if not each.is_per_job
    ),
    ("[defaults] and [jobs.NAME]", settings.JobSettings),
    ("retry = { … }", settings.RetrySettings),
    ("then = { … }", settings.ThenSettings),
    ("alerts = { … }", alert_settings.JobAlertsSection),
)


def reference_markdown(kinds: Mapping[str, Kind[Any]]) -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for title, model in _SECTIONS:
        parts.append(f"## `{title}`\n\n" + "\n".join(_table(model)) + "\n")
    for name, kind in sorted(kinds.items()):
        defaults = ", ".join(f"`{key} = {value!r}`".replace("'", '"') for key, value in kind.defaults.items())
        said = f"\n\nDefaults: {defaults}." if defaults else ""
        parts.append(f'## `kind = "{name}"`\n\n{kind.summary}{said}\n\n' + "\n".join(_table(kind.params)) + "\n")
        parts.append(f"```toml\n{kind.example.strip()}\n```\n")
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| Key | Default | Meaning |"
    yield "|---|---|---|"
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{field.alias or name}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or default is PydanticUndefined or isinstance(default, BaseModel):
        return ""
    if isinstance(default, Rate):
        return f'`"{default.count}/{format_duration(default.period)}"`'
    if isinstance(default, timedelta):
        return f'`"{format_duration(default)}"`'
    if isinstance(default, enum.Enum):
        return f'`"{default.value}"`'
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


if __name__ == "__main__":
    sys.stdout.write(reference_markdown(catalog.kinds()))
