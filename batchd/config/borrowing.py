"""Params that a job takes from another job of the config, so that a query is written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchd.config.jobs import ReadJob
from batchd.config.problems import Problems
from batchd.config.substitution import Substitution
from batchd.domain.job import JsonObject
from batchd.jobs.contract import Borrowed, Kind


def with_borrowed(
    read: Sequence[ReadJob], kinds: Mapping[str, Kind[Any]], outside: Substitution, problems: Problems
) -> list[ReadJob]:
    """Return the jobs, what they take from others put in; note what is wrong with whom they name.

    The rows of the store then hold the params whole, and nobody who reads one needs the config.
    """
    whole = {job.definition.name: job for job in read}
    filled: list[ReadJob] = []
    for job in read:
        kind = kinds[job.definition.kind]
        wanted = kind.borrows(kind.params.model_validate(job.params)) if kind.borrows else None
        filled.append(job if wanted is None else _filled(job, wanted, whole, kinds, outside, problems))
    return filled


def _filled(
    job: ReadJob,
    wanted: Borrowed,
    whole: Mapping[str, ReadJob],
    kinds: Mapping[str, Kind[Any]],
    outside: Substitution,
    problems: Problems,
) -> ReadJob:
    path = ("jobs", job.definition.name, wanted.key)
    lender = whole.get(wanted.job)
    if lender is None or lender.definition.kind != wanted.kind:
        of_that_kind = sorted(name for name, other in whole.items() if other.definition.kind == wanted.kind)
        named = f"[jobs.{wanted.job}]"
        said = f"there is no {named}" if lender is None else f"{named} is of kind {lender.definition.kind!r}"
        problems.add_named(path, f"{said}; name a job of kind {wanted.kind!r}", wanted.job, of_that_kind)
        return job
    if any(tainted[:2] == ("jobs", wanted.job) for tainted in outside.tainted):
        problems.add(path, f"[jobs.{wanted.job}] has values from outside, which would be stored; write the query here")
        return job
    try:
        taken = wanted.take(kinds[wanted.kind].params.model_validate(lender.params))
    except LookupError as error:
        problems.add(path, str(error.args[0]))
        return job
    kept = {key: value for key, value in job.params.items() if key != wanted.key}
    stored = {key: value for key, value in job.definition.params.items() if key != wanted.key}
    return ReadJob(replace(job.definition, params=_over(stored, taken)), _over(kept, taken))


def _over(own: JsonObject, taken: JsonObject) -> JsonObject:
    """Return both; what the job says itself stands."""
    return {**taken, **own}
