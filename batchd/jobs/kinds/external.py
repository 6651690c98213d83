"""external: a job that runs elsewhere (under cron, in a script) and is only reported to batchd."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from batchd.domain.job import JsonObject
from batchd.domain.run import EXTERNAL_KIND
from batchd.domain.schedule import ScheduleError, parse_schedule
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.params import Duration


class ExternalParams(Params):
    """When the job is expected to be reported. batchd neither starts nor repeats it."""

    expected: str | None = Field(
        default=None, description="When a run of it should begin, written as a `schedule` is: `every day at 03:00`."
    )
    grace: Duration | None = Field(default=None, description="How late it may begin.")


def run(params: ExternalParams, context: JobContext) -> JsonObject:  # noqa: ARG001
    """Refuse: nothing can run it here."""
    raise JobError(
        f"{context.job} runs elsewhere and is only reported to batchd",
        hint="start its script where it is, with batchd.monitor or `batchd exec`",
        retryable=False,
    )


def _check(params: ExternalParams) -> Sequence[tuple[str, str]]:
    if params.expected is None:
        return [("grace", "says how late it may be; say with `expected` when it should come")] if params.grace else []
    try:
        parse_schedule(params.expected, "UTC")
    except ScheduleError as error:
        return [("expected", str(error))]
    return []


KIND = Kind(
    name=EXTERNAL_KIND,
    summary="Runs elsewhere, in a script or under cron, and is reported with `batchd exec` or `batchd.monitor`.",
    params=ExternalParams,
    run=run,
    example="""\
[jobs.nightly-backup]
# crontab: 0 3 * * * batchd exec --job nightly-backup -- pg_dump -Fc -f /backup/app.dump app
kind = "external"
expected = "every day at 03:00"
grace = "30m"
""",
    databases=lambda _params: (),
    runs_elsewhere=True,
    check=_check,
)
