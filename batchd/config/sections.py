"""The config's sections beside the jobs; what is wrong in them hides nothing of the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from batchd.config.alert_settings import AlertsSection
from batchd.config.exports import ExportsSection
from batchd.config.faults import add_fault
from batchd.config.problems import Path_, Problems
from batchd.config.settings import (
    DaemonSettings,
    DatabaseSection,
    HttpSection,
    LogSettings,
    MailSection,
    QueueSettings,
    Settings,
    StoreSettings,
)

_MAIL = {"from": "nobody@localhost", "folder": "."}
_NAMED = ("databases", "queues")


def read_settings(document: Mapping[str, Any], problems: Problems) -> Settings:
    """Return the sections; what is wrong in them becomes problems, and defaults stand in for just that."""
    sections = {key: value for key, value in document.items() if key in Settings.model_fields}
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        places = []
        for fault in error.errors(include_url=False):
            place = tuple(str(part) for part in fault["loc"])
            places.append(place)
            add_fault(problems, place, fault, _names_at(place))
    try:
        return Settings.model_validate(_without(sections, places))
    except ValidationError:  # what is left does not go together either
        return Settings.model_validate(_without(sections, [(name,) for name in sections]))


def _without(sections: Mapping[str, Any], places: Iterable[Path_]) -> dict[str, Any]:
    """Return a copy without what stands at the places, but with whatever jobs may name."""
    sound = copy.deepcopy(dict(sections))
    for place in places:
        _take_out(sound, place)
    for section in _NAMED:
        written = sections.get(section)
        if isinstance(written, dict):
            names = [name for name in written if "/" not in name]  # which is told of no name but a queue's
            sound[section] = {**{name: {} for name in names}, **sound.get(section, {})}
    if "mail" in sections:
        sound.setdefault("mail", _MAIL)
    return sound


def _take_out(table: dict[str, Any], place: Path_) -> None:
    """Delete what stands there, or where a key is missing the table that lacks it."""
    holder, name = table, place[0]
    for part in place[1:]:
        inner = holder.get(name)
        if not isinstance(inner, dict) or part not in inner:
            break
        holder, name = inner, part
    holder.pop(name, None)


def _names_at(place: tuple[str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "daemon": DaemonSettings,
        "store": StoreSettings,
        "mail": MailSection,
        "http": HttpSection,
        "exports": ExportsSection,
        "log": LogSettings,
        "alerts": AlertsSection,
    }
    model = models.get(place[0])
    if model:
        return [field.alias or name for name, field in model.model_fields.items()]
    return list((QueueSettings if place[0] == "queues" else DatabaseSection).model_fields)
