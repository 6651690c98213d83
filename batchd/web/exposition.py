"""The text format of Prometheus (version 0.0.4), written by hand: it needs no registry, since nothing is kept here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(slots=True)
class Family:
    """One metric: its name without a prefix, its type, what it means, and its samples."""

    name: str
    type: str
    help: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> Family:
        """Add a sample."""
        self.samples.append(("", labels, value))
        return self

    def add_histogram(self, snapshot: Mapping[str, Any], **labels: str) -> Family:
        """Add a histogram as `batchd.telemetry.meters` has it: counts a bucket become counts up to its bound."""
        so_far = 0
        for bound, count in zip([*snapshot["bounds"], math.inf], snapshot["counts"], strict=True):
            so_far += count
            self.samples.append(("_bucket", {**labels, "le": _number(bound)}, so_far))
        self.samples += [("_sum", labels, snapshot["total"]), ("_count", labels, so_far)]
        return self


def written(families: Iterable[Family], prefix: str = "batchd_") -> str:
    """Return the families as text; one without samples is left out. Names of the process have no prefix."""
    return "".join(_family(family, prefix) for family in families if family.samples)


def _family(family: Family, prefix: str) -> str:
    name = family.name if family.name.startswith("process_") else prefix + family.name
    lines = [f"# HELP {name} {_escaped(family.help, quotes=False)}\n", f"# TYPE {name} {family.type}\n"]
    lines += [f"{name}{suffix}{_labels(labels)} {_number(value)}\n" for suffix, labels, value in family.samples]
    return "".join(lines)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quotes else escaped


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < _LARGEST_EXACT else repr(float(value))


_LARGEST_EXACT = 2**53


def one(name: str, kind: str, meaning: str, value: float | None) -> Sequence[Family]:
    """Return a metric without labels, or nothing where there is no value."""
    return [] if value is None else [Family(name, kind, meaning).add(value)]
