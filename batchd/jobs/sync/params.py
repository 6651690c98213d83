"""The parameters of `sync`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from batchd.db.identifiers import parse_name
from batchd.jobs.contract import Params
from batchd.jobs.http.origin import origin_of
from batchd.jobs.params import ByteSize, Duration, Secret
from batchd.jobs.sync.paging import Paging, can_be_concurrent
from batchd.jobs.sync.record_path import parse_path

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_WHOLE = 100.0


def _share(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise ValueError('write a share such as "10%" or a number of rows such as 500')
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value.strip())
        if match is None or float(match[1]) > _WHOLE:
            if value.strip().isdecimal():
                return int(value)
            raise ValueError(f'not a share: {value!r}; write "10%" (up to "100%") or a number of rows such as 500')
        return f"{float(match[1]):g}%"
    return value


Share = Annotated[
    str | int,
    BeforeValidator(_share),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["10%", 500], "x-batchd-type": "share"}),
]


class UpdatedSince(BaseModel):
    """How to ask for what has changed since the last run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    param: str = Field(
        default="updated_since", description="Query parameter (for `sql` the bind parameter `:NAME`) with the moment."
    )
    field: str | None = Field(
        default=None,
        description="Path of the moment at which a record changed; the latest that was seen becomes the watermark. "
        "When unset the moment at which the run began to fetch.",
    )
    overlap: Duration = Field(
        default=timedelta(minutes=5),
        description="Asked for again each time: for clocks that differ, and for changes that commit late.",
    )
    format: Literal["iso", "date", "unix", "unix_ms"] = Field(default="iso", description="How the moment is written.")
    full_every: Duration | None = Field(
        default=None,
        description="Fetch everything once in so long. Only such a run sees what is missing. Never when unset.",
    )

    @field_validator("field")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None:
            parse_path(value)
        return value


class SyncParams(Params):
    """Where the records come from, which columns they fill, and what happens to rows that are not among them."""

    database: str = Field(description="Name of the [databases.NAME] that holds the table.")
    table: str = Field(
        description='Table, as in SQL: `users`, `crm.users`, or `"User"` with double quotes for mixed case.',
        examples=["users", "crm.users", '"User"'],
    )
    key: list[str] = Field(
        min_length=1, description="Columns that tell a record; the table needs a unique key over them."
    )
    fields: dict[str, str] = Field(
        min_length=1,
        description='Which value of a record goes into which column: `{ email = "contact.email" }`. A path\'s parts '
        "are separated by dots; a number counts the items of a list from 0.",
    )
    optional: list[str] = Field(
        default_factory=list,
        description="Columns whose value may be missing in a record, and is then NULL; otherwise such a record is "
        "rejected.",
    )

    url: str | None = Field(default=None, description="http(s) URL of the list. Either this, `file` or `sql`.")
    file: Path | None = Field(default=None, description="A `.csv`, `.ndjson` or `.jsonl` file with the records.")
    sql: str | None = Field(default=None, description="A query on `source_database` whose rows are the records.")
    source_database: str | None = Field(default=None, description="Name of the [databases.NAME] that `sql` asks.")

    format: Literal["json", "ndjson", "csv"] | None = Field(
        default=None, description="How the records are written; when unset json for a URL, by its name for a file."
    )
    records: str | None = Field(default=None, description="Path of the list in the answer, such as `data.items`.")
    query: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Query parameters of every request."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Headers of every request.")
    token: Secret | None = Field(default=None, description="Sent as `Authorization: Bearer TOKEN`.")
    token_header: str | None = Field(
        default=None, description="Header that carries `token` as it is instead, such as `X-Api-Key`."
    )
    username: str | None = Field(default=None, description="User for basic authentication, with `password`.")
    password: Secret | None = Field(default=None, description="Password for basic authentication.")
    allow_hosts: list[str] = Field(
        default_factory=list,
        description="Further hosts that may get the headers and credentials, for a next page or a redirect there.",
    )
    paging: Paging | None = Field(
        default=None,
        description='How the list is cut: `{ by = "link" }`, `{ by = "next", path = "next" }`, `{ by = "cursor", path, '
        'param }`, `{ by = "page", param, size }` or `{ by = "offset", param, size }`. One answer when unset.',
    )
    concurrency: int = Field(
        default=1, ge=1, le=16, description="Pages asked for at once; needs paging by page, or by offset with a size."
    )
    updated_since: UpdatedSince | None = Field(
        default=None, description='Fetch only what has changed: `{ param = "updated_since", field = "updated_at" }`.'
    )
    conditional: bool | None = Field(
        default=None,
        description="Ask with ETag and Last-Modified of the last run; an answer 304 ends the run. When unset: for a "
        "list that is one answer. With paging the first page answers for all.",
    )
    requests_per_second: float | None = Field(default=None, gt=0, description="Most requests a second, all together.")
    request_timeout: Duration = Field(
        default=timedelta(seconds=30), description="Longest silence of the server, and longest time to connect."
    )
    tries: int = Field(default=6, ge=1, le=100, description="How often one request is sent before the attempt fails.")
    max_wait: Duration = Field(
        default=timedelta(minutes=15),
        description="Longest `Retry-After` that is waited for; and never longer than the run's `timeout` leaves.",
    )
    max_page: ByteSize = Field(
        default=64_000_000, description="Largest answer that is read into memory; an NDJSON answer may be larger."
    )

    on_missing: Literal["ignore", "mark", "delete"] = Field(
        default="ignore",
        description="Rows that a full list does not name any more: leave them, mark them in `missing_since`, delete "
        "them.",
    )
    missing_since: str | None = Field(
        default=None,
        description="Column for `mark`: a moment, or a boolean. Emptied when the record is back.",
    )
    max_missing: Share = Field(
        default="10%",
        description="Most rows that may be marked or deleted at once: a share of the table's, or a number. An empty "
        "list for a table with rows is refused below 100%.",
    )
    where: str | None = Field(
        default=None,
        description="SQL condition for the rows that this source answers for; others never count as missing.",
    )
    synced_at: str | None = Field(
        default=None, description="Column for the moment at which the row was last changed by a sync."
    )
    first_seen_at: str | None = Field(default=None, description="Column for the moment at which the row was added.")
    touch_unchanged: bool = Field(
        default=False,
        description="Set `synced_at` in every row that the list names. This rewrites the whole table at each run.",
    )
    max_rejects: int = Field(
        default=100, ge=0, description="Most records that may not fit; one more fails the run before it writes."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Rows of one transaction. When unset 5000 on PostgreSQL, 1000 on SQLite, where others wait.",
    )
    pause: Duration = Field(default=timedelta(0), description="Pause between two transactions of the write.")
    resume_within: Duration = Field(
        default=timedelta(hours=1),
        description="What was fetched longer ago than this is not written by a later attempt, but fetched again.",
    )
    dry_run: bool = Field(default=False, description="Fetch and compare, write nothing, and show the differences.")

    @field_validator("table")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        parse_name(value)
        return value

    @field_validator("fields")
    @classmethod
    def _are_paths(cls, value: dict[str, str]) -> dict[str, str]:
        for path in value.values():
            parse_path(path)
        return value

    @field_validator("records")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None:
            parse_path(value)
        return value

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                origin_of(value)
            except ValueError:
                raise ValueError("write an absolute http:// or https:// URL") from None
        return value

    @model_validator(mode="after")
    def _has_one_source(self) -> SyncParams:
        if sum(source is not None for source in (self.url, self.file, self.sql)) != 1:
            raise ValueError("set exactly one of `url`, `file` and `sql`")
        if (self.sql is None) != (self.source_database is None):
            raise ValueError("`sql` and `source_database` belong together")
        if self.url is None and (self.paging or self.token or self.headers or self.query):
            raise ValueError("`paging`, `token`, `headers` and `query` are for a `url`")
        if self.file is not None and self.updated_since is not None:
            raise ValueError("a file cannot be asked for what has changed; leave `updated_since` out")
        if self.file is not None and self.source_format == "json":
            raise ValueError('a file is read line by line; set `format = "ndjson"` or "csv"')
        if self.url is not None and self.source_format == "csv":
            raise ValueError('a URL answers with json or ndjson; for CSV see the kind "csv_import"')
        return self

    @model_validator(mode="after")
    def _asks_as_it_can(self) -> SyncParams:
        if self.username is not None and self.password is None:
            raise ValueError("`username` needs a `password`")
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs a `username`")
        if self.username is not None and self.token is not None and self.token_header is None:
            raise ValueError("`token` and `username` both want the Authorization header; set one")
        if self.token_header is not None and self.token is None:
            raise ValueError("`token_header` needs a `token`")
        if self.concurrency > 1 and not can_be_concurrent(self.paging):
            raise ValueError(
                "`concurrency` needs pages that can be asked for before the one before them has come: paging by "
                '"page", or by "offset" with a `size`'
            )
        if self.conditional and self.updated_since is not None:
            raise ValueError("`conditional` and `updated_since` do not go together: each run asks for something else")
        return self

    @model_validator(mode="after")
    def _knows_what_is_missing(self) -> SyncParams:
        if (self.on_missing == "mark") != (self.missing_since is not None):
            raise ValueError('`on_missing = "mark"` and the column `missing_since` belong together')
        incremental = self.updated_since
        if self.on_missing != "ignore" and incremental is not None and incremental.full_every is None:
            raise ValueError(
                "what has changed does not tell what is missing: give `updated_since` a `full_every`, for example "
                '"1d", or leave `on_missing` out'
            )
        if self.touch_unchanged and self.synced_at is None:
            raise ValueError("`touch_unchanged` needs the column `synced_at`")
        return self

    @property
    def source_format(self) -> str:
        """How the records are written."""
        if self.format is not None:
            return self.format
        if self.file is None:
            return "json"
        return "csv" if self.file.suffix.lower() == ".csv" else "ndjson"

    @property
    def is_conditional(self) -> bool:
        """Whether validators of the last run are sent."""
        if self.conditional is None:
            return self.url is not None and self.paging is None and self.updated_since is None
        return self.conditional
