"""The types of channels, found by looking into `batchd.alerts.channels`; each is imported when somebody asks for it."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from batchd.alerts import channels
from batchd.alerts.channel import ChannelType


@functools.cache
def channel_types() -> Mapping[str, ChannelType[Any]]:
    """Return every type of channel by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(channels.__path__))
    found = [importlib.import_module(f"{channels.__name__}.{name}").CHANNEL for name in names]
    return {each.name: each for each in found}
