"""A kind with params of every sort, for tests of the config that run no job."""

from __future__ import annotations

from pydantic import Field

from batchd.domain.job import JsonObject
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.params import Secret


class ProbeParams(Params):
    """Params of every sort."""

    database: str = Field(description="Database.")
    limit: int = Field(default=1, description="Limit.")
    note: str = Field(default="", description="Note.")
    token: Secret | None = Field(default=None, description="Secret.")
    headers: dict[str, str] = Field(default_factory=dict, description="More.")


def run(params: ProbeParams, context: JobContext) -> JsonObject:
    """Do nothing."""
    return {}


PROBE = Kind(
    name="probe",
    summary="probes",
    params=ProbeParams,
    run=run,
    example="",
    databases=lambda params: [params.database],
    defaults={"schedule": "every 5m"},
)
