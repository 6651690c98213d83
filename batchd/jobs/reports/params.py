"""The parameters of a report, as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from batchd.jobs.contract import Params
from batchd.jobs.params import Addresses, Duration, TimeZone
from batchd.jobs.reports.attachments import FileFormat
from batchd.jobs.reports.blocks import Show, View
from batchd.jobs.reports.formats import NumberStyle

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}")
_GOOD = ("up", "down", "neutral")


class QueryParams(BaseModel):
    """One query: its SQL, and how its answer is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sql: str = Field(min_length=1, description="A SELECT. `:since` and `:until` are the bounds of the period.")
    database: str | None = Field(None, description="Name of a [databases.NAME], when it is not the report's.")
    show: Show = Field(
        "auto",
        description="`figures`: one row, each column a headline number; `table`; `bar` or `line`: the first column is "
        "the label, the others numbers; `none`: only for an attachment or a template; `auto`: figures or table.",
    )
    title: str | None = Field(None, description="Heading; made from the name when unset.")
    rows: int = Field(50, ge=1, le=500, description="Most rows of a table in the mail; an attachment has all.")
    unit: str | dict[str, str] = Field(
        "", description='Unit of the numbers, or {column = unit}: "€", "%", …; "bytes" and "seconds" scale.'
    )
    good: str | dict[str, str] = Field(
        "up", description="Welcome direction of figures: `up`, `down`, `neutral`, or {column = …}."
    )
    decimals: int | None = Field(None, ge=0, le=9, description="Decimals; none or two when unset.")
    labels: dict[str, str] = Field(default_factory=dict, description="{column = heading}.")
    attach: FileFormat | None = Field(None, description="Attach all rows as `csv`, or `xlsx` (extra batchd[xlsx]).")

    @field_validator("good")
    @classmethod
    def _is_a_direction(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        given = [value] if isinstance(value, str) else list(value.values())
        wrong = [word for word in given if word not in _GOOD]
        if wrong:
            raise ValueError(f'{wrong[0]!r} is not one of "up", "down", "neutral"')
        return value

    def view(self) -> View:
        """Return how the answer is shown."""
        return View(
            show=self.show,
            title=self.title,
            rows=self.rows,
            unit=self.unit,
            good=self.good,
            decimals=self.decimals,
            labels=self.labels,
        )


def _query(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


Query = Annotated[QueryParams, BeforeValidator(_query, json_schema_input_type=str | QueryParams)]


class ReportParams(Params):
    """What the report says, to whom, and when it is worth a mail."""

    ready: Literal["daily"] | None = Field(
        default=None, description="A report that needs no SQL: `daily`, what batchd itself did in the period."
    )
    database: str | None = Field(default=None, description="Name of the [databases.NAME] that the queries ask.")
    queries: dict[str, Query] = Field(
        default_factory=dict,
        description="{name = SQL}, or a table [jobs.NAME.queries.NAME] with `sql`, `show` (figures, table, bar, line), "
        "`title`, `unit`, `good`, `rows`, `attach`, …; shown in this order. See docs/jobs/report.md.",
    )
    to: Addresses = Field(default_factory=list, description='Recipients: "ann@example.com", "Ann <ann@example.com>".')
    cc: Addresses = Field(default_factory=list, description="Recipients of a copy.")
    bcc: Addresses = Field(default_factory=list, description="Recipients whom no other recipient sees.")
    reply_to: Addresses = Field(default_factory=list, description="Where answers go.")
    title: str | None = Field(default=None, description="Heading of the report; made from the job's name when unset.")
    subject: str | None = Field(
        default=None,
        description="Subject, a Jinja2 template: `{{ title }}`, `{{ date }}`, `{{ summary }}`, "
        "`{{ queries.NAME.value }}`.",
    )
    save_to: str | None = Field(
        default=None,
        description="Also, or only, write the report here: a `.html` file, which each run replaces, or a folder "
        "(ending in /) that keeps one for each run.",
    )
    when: Literal["always", "rows", "changed"] = Field(
        default="always",
        description="`rows`: only when a query has rows; `changed`: only when an answer differs from the last report.",
    )
    period: Duration = Field(
        default=timedelta(days=1), description="Length of the period that ends at the run's scheduled time."
    )
    alert_if: str | None = Field(
        default=None,
        description='SQL condition, asked of `database`: "(SELECT count(*) FROM errors) > 100". When it is true the '
        "subject begins with [ALERT], the report with `alert_text`, and `when` is overruled.",
    )
    alert_text: str | None = Field(default=None, description="What the banner of an alert says.")
    on_alert: Literal["flag", "fail"] = Field(
        default="flag", description="`fail`: the run also fails, after the mail is out, so that batchd's alerts ring."
    )
    query_timeout: Duration = Field(default=timedelta(minutes=1), description="Longest time for one query.")
    max_rows: int = Field(default=10_000, ge=1, le=1_000_000, description="Most rows that are read of one query.")
    templates: Path | None = Field(default=None, description="Folder of your own Jinja2 templates.")
    template: str = Field(
        default="report.html",
        description="The HTML template in that folder. A `.txt` of the same name beside it makes the text part.",
    )
    numbers: NumberStyle = Field(default="1,234.5", description="How numbers are written.")
    display_timezone: TimeZone = Field(default="UTC", description="Time zone in which moments are shown.")
    dry_run: bool = Field(default=False, description="Ask the queries and make the report, but send and write nothing.")

    @field_validator("queries")
    @classmethod
    def _are_named(cls, value: dict[str, QueryParams]) -> dict[str, QueryParams]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: a query's name has letters, digits and underscores")
        return value

    @field_validator("period", "query_timeout")
    @classmethod
    def _is_positive(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("must be at least 1s")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> ReportParams:
        if self.ready is None and not self.queries:
            raise ValueError('has nothing to report: set `queries`, or `ready = "daily"`')
        homeless = [name for name, query in self.queries.items() if query.database is None]
        if self.database is None and (homeless or self.alert_if):
            raise ValueError(f"set `database`, which {f'query {homeless[0]!r}' if homeless else '`alert_if`'} asks")
        if not (self.to or self.cc or self.bcc or self.save_to):
            raise ValueError("goes nowhere: set `to`, or `save_to`")
        return self

    @property
    def sends_mail(self) -> bool:
        """Whether anybody gets a mail."""
        return bool(self.to or self.cc or self.bcc)
