"""Jobs that a team's own modules declare: each function in them that `@batchd.job` decorates.

Such a job has no table in the config; what the decorator says is read as a table would be, `[defaults]` included.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchd.config.jobs import JobReader, ReadJob
from batchd.config.load import Config, is_job_name
from batchd.config.problems import ConfigInvalid, Problem, Problems
from batchd.config.substitution import Substitution
from batchd.errors import BatchdError
from batchd.jobs.python.decorated import Job
from batchd.jobs.targets import extend_import_path, import_module


@dataclass(frozen=True, slots=True)
class _Found:
    """A decorated function, and the line to blame for it."""

    job: Job[Any, Any]
    file: str
    line: int | None

    def problem(self, message: str, key: str | None = None) -> Problem:
        return Problem(self.file, self.line, f"jobs.{self.job.name}", key, message)


def with_imports(config: Config, modules: Sequence[str] = ()) -> Config:
    """Return the config with the jobs of the modules, and of those that `[daemon] import` names.

    Raises ConfigInvalid: a module that cannot be imported keeps the daemon from starting, for without it the jobs would
    count as removed and their waiting runs be cancelled.
    """
    wanted = [*dict.fromkeys([*config.settings.daemon.imports, *modules])]
    if not wanted:
        return config
    extend_import_path(config.import_path)
    problems = [problem for module in wanted if (problem := _import_problem(config, module)) is not None]
    if problems:
        raise ConfigInvalid(problems)
    found = _decorated_in(wanted)
    problems = [*_clashes(config, found)]
    read = [job for each in found if (job := _read(config, each, problems)) is not None]
    if problems:
        raise ConfigInvalid(problems)
    return replace(
        config,
        jobs=(*config.jobs, *(job.definition for job in read)),
        params={**config.params, **{job.definition.name: job.params for job in read}},
    )


def _import_problem(config: Config, module: str) -> Problem | None:
    if not all(part.isidentifier() for part in module.split(".")):
        return config.problem(("daemon", "import"), f'{module!r} is not a module; write "package.module"')
    try:
        import_module(f"import = {module}", module)
    except BatchdError as error:
        said = error.message if error.hint is None else f"{error.message}; {error.hint}"
        return config.problem(("daemon", "import"), said.removeprefix("target "))
    return None


def _decorated_in(modules: Sequence[str]) -> list[_Found]:
    """Return the jobs of the modules, and of the modules of their packages that importing them has imported."""
    places = [
        module
        for name, module in sorted(sys.modules.items())
        if any(name == each or name.startswith(f"{each}.") for each in modules)
    ]
    jobs = {id(value): value for place in places for value in [*vars(place).values()] if isinstance(value, Job)}
    return [_Found(job, *job.source) for job in jobs.values()]


def _clashes(config: Config, found: Sequence[_Found]) -> list[Problem]:
    problems = []
    written = {job.name for job in config.jobs}
    first: dict[str, _Found] = {}
    for each in found:
        name = each.job.name
        if name in written:
            problems.append(each.problem("the config has a job of that name; give this one another with `name=`"))
        elif name in first:
            problems.append(each.problem(f"{first[name].job.target} has that name too; give one `name=`"))
        elif not is_job_name(name):
            problems.append(each.problem("a name has up to 100 letters, digits, dots, dashes and underscores"))
        first.setdefault(name, each)
    return problems


def _read(config: Config, found: _Found, problems: list[Problem]) -> ReadJob | None:
    """Return the job as a table of the config would be read, or None with what is wrong added to the problems."""
    own = Problems(Path(found.file), "")
    outside = Substitution(config.folder, {}, own)
    reader = JobReader(config.settings, config.kinds, outside, own)
    read = reader.read(found.job.name, found.job.table(), config.defaults)
    problems += [problem.at(found.line) for problem in own.found]
    try:
        signature = found.job.signature
    except BatchdError as error:
        problems.append(found.problem(error.message))
        return None
    if read is not None and read.definition.schedule is not None:
        given: Any = read.params.get("arguments") or {}
        missing = [each.key for each in signature.complaints(given) if each.is_missing]
        if missing:
            said = f"has a schedule, and nobody gives it {', '.join(missing)}; give them defaults, or `arguments`"
            problems.append(found.problem(said))
    return read
