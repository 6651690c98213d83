"""What importing a team's own code shows: only `batchd check` and the daemon do it, for it may take its time."""

from __future__ import annotations

from batchd.config.load import Config
from batchd.config.places import working_in
from batchd.config.problems import Problem
from batchd.domain.job import JobDefinition
from batchd.errors import BatchdError
from batchd.jobs.targets import extend_import_path


def code_problems(config: Config) -> list[Problem]:
    """Return what is wrong with the functions that the jobs call; from now on they can be imported."""
    extend_import_path(config.import_path)
    with working_in(config.folder):  # where the daemon runs
        return [problem for job in config.jobs for problem in _complaints(config, job)]


def _complaints(config: Config, job: JobDefinition) -> list[Problem]:
    kind = config.kinds[job.kind]
    if kind.check_code is None:
        return []
    place = ("jobs", job.name)
    try:
        params = kind.params.model_validate(config.params[job.name])
        found = [*kind.check_code(params)]
        if kind.check_unattended is not None and job.schedule is not None:
            found += kind.check_unattended(params)
    except BatchdError as error:
        said = error.message if error.hint is None else f"{error.message}; {error.hint}"
        return [config.problem(place, said)]
    return [config.problem((*place, *key.split(".")) if key else place, message) for key, message in found]
