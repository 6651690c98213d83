"""python: call a function of a team's own, in a thread of the daemon or in a process that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from batchd.domain.job import JsonObject
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.params import ByteSize
from batchd.jobs.python.call import call, find_function
from batchd.jobs.python.signature import Complaint
from batchd.jobs.targets import check_name

_LEAST_MEMORY = 64 * 10**6


class PythonParams(Params):
    """What to call, and where."""

    target: str = Field(
        description="The function to call, as `package.module:function`, from an installed package or from a folder of "
        "[daemon] `import_path`. Its first parameter gets the `JobContext` when it is called `context`.",
        examples=["myapp.jobs:rebuild_index"],
    )
    arguments: dict[str, JsonValue] = Field(
        default={}, description="Its other parameters, passed by name and checked against its annotations."
    )
    isolation: Literal["thread", "process"] = Field(
        default="thread",
        description="`thread`: in the daemon. `process`: in a process of its own, which is killed with all that it "
        "started when the run must end, and whose death harms nobody else.",
    )
    max_memory: ByteSize | None = Field(
        default=None,
        ge=_LEAST_MEMORY,
        description='With `isolation = "process"`: most memory of the process and of what it starts. '
        "No limit when unset.",
    )
    recycle_after: int = Field(
        default=100,
        ge=1,
        description="A process is replaced by a new one after so many runs; 1 means one for each run.",
    )
    recycle_above: ByteSize = Field(
        default=500 * 10**6, ge=1, description="A process that holds more memory than this after a run is replaced."
    )

    @field_validator("target")
    @classmethod
    def _is_a_target(cls, value: str) -> str:
        check_name(value)
        return value

    @model_validator(mode="after")
    def _limits_a_process(self) -> PythonParams:
        if self.max_memory is not None and self.isolation == "thread":
            raise ValueError('`max_memory` needs `isolation = "process"`: threads share their memory')
        return self


def run(params: PythonParams, context: JobContext) -> JsonObject:
    """Call the function and return what it returned; anything but an object becomes {"value": …}."""
    if params.isolation == "process":
        from batchd.jobs.processes.isolated import run_isolated  # noqa: PLC0415 (most daemons never need it)
        from batchd.jobs.processes.pool import Recycling, pool  # noqa: PLC0415

        return run_isolated(
            params.target,
            params.arguments,
            context,
            pool=pool(),
            recycling=Recycling(params.recycle_after, params.recycle_above),
            max_memory=params.max_memory,
        )
    return call(find_function(params.target), params.arguments, context)


def _complaints(params: PythonParams) -> Sequence[Complaint]:
    return find_function(params.target).signature.complaints(params.arguments)


def _check_code(params: PythonParams) -> list[tuple[str, str]]:
    # What is missing may come with each run; a job with a schedule is told by `_check_unattended`.
    return [(f"arguments.{each.key}", each.message) for each in _complaints(params) if not each.is_missing]


def _check_unattended(params: PythonParams) -> list[tuple[str, str]]:
    return [
        (f"arguments.{each.key}", "is missing, and a job with a schedule gets no other")
        for each in _complaints(params)
        if each.is_missing
    ]


KIND = Kind(
    name="python",
    summary="Calls a function of your own, in the daemon or in a process of its own.",
    params=PythonParams,
    run=run,
    example="""\
[jobs.rebuild-index]
kind = "python"
schedule = "every day at 04:00"
target = "myapp.jobs:rebuild_index"    # def rebuild_index(context, index: str, full: bool = False): ...
arguments = { index = "products" }
# isolation = "process"
# max_memory = "1GB"
""",
    databases=lambda _params: [],
    check_code=_check_code,
    check_unattended=_check_unattended,
    adjustable=frozenset({"arguments"}),
)
