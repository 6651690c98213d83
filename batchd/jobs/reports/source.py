"""What making a report needs of its surroundings: the part of `JobContext` that only looks; a preview has it too."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

from batchd.db.engine import Database
from batchd.domain.job import JsonValue
from batchd.jobs.contract import Log
from batchd.mail.delivery import MailSettings
from batchd.store.digest import Digest


class ReportSource(Protocol):
    """See `JobContext`, which is one."""

    @property
    def run_id(self) -> int: ...  # noqa: D102

    @property
    def job(self) -> str: ...  # noqa: D102

    @property
    def store_id(self) -> str: ...  # noqa: D102

    @property
    def scheduled_for(self) -> datetime | None: ...  # noqa: D102

    @property
    def previous_result(self) -> Mapping[str, JsonValue] | None: ...  # noqa: D102

    @property
    def mail(self) -> MailSettings | None: ...  # noqa: D102

    @property
    def log(self) -> Log: ...  # noqa: D102

    def now(self) -> datetime: ...  # noqa: D102

    def database(self, name: str) -> Database: ...  # noqa: D102

    def reading(self, database: Database) -> AbstractContextManager[Any]: ...  # noqa: D102

    def digest(self, since: datetime, until: datetime) -> Digest: ...  # noqa: D102

    def raise_if_stopping(self) -> None: ...  # noqa: D102

    def wait(self, pause: timedelta) -> None: ...  # noqa: D102
