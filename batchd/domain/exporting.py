"""Which exports may be started and downloaded over HTTP: what the config offers, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from batchd.domain.job import JsonObject


@dataclass(frozen=True, slots=True)
class ExportSource:
    """Rows that a request may ask for, by name: `columns` are all it may have, `filters` all it may narrow them by."""

    name: str
    database: str
    table: str | None
    query: str | None
    where: str | None
    columns: tuple[str, ...]
    filters: frozenset[str]
    formats: tuple[str, ...]
    escape_formulas: bool


@dataclass(frozen=True, slots=True)
class ExportJob:
    """A job that is offered: the whole path that its files are named by, and its params as they are stored."""

    path: str
    params: JsonObject


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """`[exports]`, checked. `jobs` are those that are offered.

    `folder` is where the files of `sources` go, as a whole path. `key_file` holds the key that links are signed with;
    it is made when it is first needed.
    """

    folder: str
    key_file: str
    keep_for: timedelta
    link_valid_for: timedelta
    jobs: Mapping[str, ExportJob] = field(default_factory=dict)
    sources: Mapping[str, ExportSource] = field(default_factory=dict)

    def file_of(self, source: str, run_id: int | str, format_name: str) -> str:
        """Return the path of a run's file; `run_id` may be the place that stands for it."""
        return f"{self.folder}/{source}-{run_id}.{format_name}"
