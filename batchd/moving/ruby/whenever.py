"""Whenever's config/schedule.rb: what `whenever` would write into the crontab, as jobs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from typing import Any

from batchd.moving.commands import shell_settings
from batchd.moving.cron_fields import Timing, Untranslatable, apply_timing, translate
from batchd.moving.crontab import DIALECT
from batchd.moving.found import Findings, FoundJob, Options, Place, Source, name_of_command, paragraphs
from batchd.moving.ruby.syntax import Parser, Statement, Unknown
from batchd.moving.ruby.times import cron_of
from batchd.moving.toml_text import WithVariables, dollars_escaped
from batchd.moving.words import in_words

SYSTEM = "Whenever"

_LOGIN_SHELL = "/bin/bash -l -c ':job'"
_BASH = "/bin/bash"
_APP_DIR = "/srv/app"
_REMARKS = paragraphs("""
Whenever writes a crontab, and what holds for cron holds for these jobs: the machine's zone, no second try
(`retry`), no time limit (here a day), nothing made up for (`catch_up`). New: a job does not start while its last
run is at work.

The commands are those that Whenever would write, in a login shell as there (`bash -l`, which finds rbenv or rvm).
What the daemon has in its environment they do not see: hand on what they need with `env`, such as RAILS_MASTER_KEY
= "${RAILS_MASTER_KEY}".

`output` sends what a job writes into a file; without it batchd keeps it with the run (`batchd show RUN`).

A Rails process for each run costs seconds. For jobs that come often, see docs/moving/whenever.md.
""")
_JOB_TYPES = {
    "command": ":task :output",
    "rake": "cd :path && :environment_variable=:environment :bundle_command rake :task --silent :output",
    "script": "cd :path && :environment_variable=:environment :bundle_command script/:task :output",
    "runner": "cd :path && :bundle_command :runner_command -e :environment ':task' :output",
}
_KEY = re.compile(r":(\w+)")


@dataclass(slots=True)
class _Surroundings:
    """What the file has set so far."""

    variables: dict[str, Any]
    job_types: dict[str, str] = field(default_factory=lambda: dict(_JOB_TYPES))
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What an `every` around a job says; `conditions` are the ifs around it."""

    time: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    header: str = ""
    """The `every` itself; empty outside of one."""


class ScheduleReader:
    """Reads one schedule.rb."""

    def __init__(self, source: Source, options: Options, findings: Findings) -> None:
        self._source = source
        self._options = options
        self._findings = findings
        folder = options.app_dir or _APP_DIR
        self._parser = Parser(source.text, {"environment": options.environment, "path": folder})
        self._comments = list[tuple[int, str]]()
        defaults = {
            "environment_variable": "RAILS_ENV",
            "environment": options.environment,
            "path": folder,
            "job_template": _LOGIN_SHELL,
            "runner_command": "bin/rails runner",
            "bundle_command": "bundle exec",
        }
        self._now = _Surroundings(defaults)

    def read(self) -> None:
        """Add its jobs."""
        self._findings.remark(SYSTEM, *_REMARKS)
        statements = self._parser.statements()
        self._comments = [(token.line, token.text.lstrip("#").removeprefix(" ")) for token in self._parser.comments]
        if not self._options.app_dir and not any(each.name == "set" and "path" in each.args for each in statements):
            said = f"CHECK: the file does not name the application's folder; {_APP_DIR} stands for it (--app-dir)"
            self._findings.remark(SYSTEM, said)
        self._all(statements, _Scope())
        for line, text in self._comments:
            self._findings.keep(Place(self._source.name, line), text, "a comment", "")

    def _all(self, statements: list[Statement], scope: _Scope) -> None:
        for statement in statements:
            self._one(statement, scope)

    def _one(self, statement: Statement, scope: _Scope) -> None:
        now = self._now
        match statement.name:
            case "set" | "env" if len(statement.args) == 2 or (statement.options and statement.args):  # noqa: PLR2004
                self._set(statement)
            case "job_type" if len(statement.args) == 2:  # noqa: PLR2004
                now.job_types[str(statement.args[0])] = str(statement.args[1])
                self._keep(statement, "a kind of job, by its template", "its jobs below are written out")
            case "every" if statement.body is not None:
                self._every(statement, scope)
            case "=":
                self._keep(statement, f"a variable: {statement.args[0]}", "its value stands where it is used")
            case name if name in now.job_types and scope.header and statement.args:
                self._jobs(statement, scope)
            case _ if statement.body is not None:
                said = statement.condition or statement.text.split("\n")[0]
                self._keep(
                    replace(statement, text=said),
                    "what only running the file could tell",
                    "its jobs follow, disabled",
                )
                self._all(statement.body, replace(scope, conditions=(*scope.conditions, said)))
            case _:
                self._keep(statement, "Ruby code", "CHECK: not understood; it is not run")

    def _every(self, statement: Statement, scope: _Scope) -> None:
        conditions = (*scope.conditions, statement.condition) if statement.condition else scope.conditions
        time = statement.args[0] if statement.args else None
        header = re.split(r"\s+do\b|\s*\{", statement.text, maxsplit=1)[0]
        self._all(statement.body or [], _Scope(time, statement.options, conditions, header))
        if not statement.body:
            self._keep(statement, "an `every` without jobs", "no job")

    def _set(self, statement: Statement) -> None:
        key = str(statement.args[0])
        value = statement.args[1] if len(statement.args) > 1 else statement.options
        if isinstance(value, Unknown):
            self._keep(
                statement,
                f"{statement.name} :{key}",
                "CHECK: only running the file could tell its value; left as it was",
            )
        elif statement.name == "env":
            self._now.env[key] = "" if value is None else value if isinstance(value, str) else str(value)
            becomes = "batchd mails no output; [alerts] can mail failures" if key == "MAILTO" else "`env` of the jobs"
            self._keep(statement, f"the variable {key} of the crontab", becomes)
        else:
            self._now.variables[key] = value
            self._keep(statement, f"`:{key}` of the jobs below", "written into their commands")

    def _jobs(self, statement: Statement, scope: _Scope) -> None:
        """Add a job for each time of the `every` around the statement."""
        place = Place(self._source.name, statement.line)
        options = {**scope.options, **statement.options}
        roles = {str(role) for role in _listed(options.get("roles"))}
        if roles and self._options.roles and not roles & self._options.roles:
            said = f"left out: its roles are {', '.join(sorted(roles))}"
            self._keep(statement, f"a job of the roles {', '.join(sorted(roles))}", said)
            return
        above = self._comments_before(statement.line)
        times, ats = _times(scope.time), _listed(options.get("at")) or [None]
        for time in times:
            for at in ats:
                job = self._job(statement, place, options, time, at)
                job.original = f"{scope.header}: {statement.text}"
                job.above = above + job.above
                above = []
                if roles and not self._options.roles:
                    job.checks.append(
                        f"it belongs to machines of the role {', '.join(sorted(roles))} (convert with --role to choose)"
                    )
                for condition in (*scope.conditions, *([statement.condition] if statement.condition else [])):
                    job.disable(f"it stands under `{condition}`, which only running the file could decide")
                self._findings.add(job)

    def _job(self, statement: Statement, place: Place, options: dict[str, Any], time: Any, at: Any) -> FoundJob:
        task = statement.args[0]
        known = {**self._now.variables, **options, "task": task}
        checks: list[str] = []
        inner = _filled(self._now.job_types[str(statement.name)], {**known, "output": _redirection(known, checks)})
        settings = shell_settings(inner)
        template = known.get("job_template")
        if template == _LOGIN_SHELL:
            del settings["shell"]
            settings |= _in_login_shell(inner, self._options)
        elif isinstance(template, str):
            settings["command"] = _filled(template, {**known, "job": inner})
        job = FoundJob(place, _job_name(str(statement.name), task), "", "", settings, checks=checks)
        if isinstance(task, Unknown):
            job.disable(f"only running the file could tell what `{task.text}` is")
        if "#{" in inner:
            job.disable("it holds `#{…}`, which only running the file could tell")
        self._set_schedule(job, time, at)
        env = {**self._now.env}
        mail = env.pop("MAILTO", None) or options.get("mailto")
        if env:
            job.settings["env"] = dict(env)
        job.meaning = f"{statement.name}: {in_words(job.settings.get('schedule'), job.settings.get('timezone'))}"
        if isinstance(mail, str):
            job.meaning += f"; output is mailed to {mail}"
        if isinstance(options.get("description"), str):
            job.above.append(str(options["description"]))
        return job

    def _set_schedule(self, job: FoundJob, time: Any, at: Any) -> None:
        options = self._now.variables.get("chronic_options")
        hours24 = isinstance(options, dict) and options.get("hours24") is True
        try:
            text, doubt = cron_of(time, at, hours24=hours24)
            zone = self._options.timezone
            if text.startswith("@"):
                timing = Timing(text, None if text == "@reboot" else zone)
            else:
                timing = translate(text, DIALECT, zone)
        except Untranslatable as error:
            job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
            return
        apply_timing(job, timing)
        if doubt:
            job.checks.append(doubt)

    def _keep(self, statement: Statement, meaning: str, becomes: str) -> None:
        for text in self._comments_before(statement.line):
            self._findings.keep(Place(self._source.name, statement.line), text, "a comment", "")
        self._findings.keep(Place(self._source.name, statement.line), statement.text, meaning, becomes)

    def _comments_before(self, line: int) -> list[str]:
        found = [text for number, text in self._comments if number <= line]
        self._comments = self._comments[len(found) :]
        return found


def _in_login_shell(text: str, options: Options) -> dict[str, Any]:
    if options.machine.has_program(_BASH):
        return {"command": [_BASH, "-l", "-c", text]}
    return {"command": type(text)(f"exec {_BASH} -l -c {shlex.quote(text)}"), "shell": True}


def _times(time: Any) -> list[Any]:
    """Return the times of an `every`: a text without cron's blanks is split at its commas."""
    if isinstance(time, list):
        return time
    if type(time) is str and len(time.split()) < 5 and not time.startswith("@"):  # noqa: PLR2004
        return [part.strip() for part in time.split(",")]
    return [time]


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _filled(template: str, values: dict[str, Any]) -> str:
    """Return the template with its `:names` replaced, escaped where they stand in quotes, and blanks made single."""
    has_variables = any(isinstance(value, WithVariables) for value in values.values())

    def one(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None or isinstance(value, dict | list | Unknown):
            return match.group() if match[1] not in values else ""
        text = value if isinstance(value, str) else str(value)
        if has_variables and not isinstance(value, WithVariables):
            text = dollars_escaped(text)
        around = (template[match.start() - 1 : match.start()], template[match.end() : match.end() + 1])
        if around == ("'", "'"):
            return text.replace("'", "'\\''")
        return text.replace('"', '\\"') if around == ('"', '"') else text

    filled = re.sub(r"\s+", " ", _KEY.sub(one, template)).strip()
    return WithVariables(filled) if has_variables else filled


def _redirection(known: dict[str, Any], checks: list[str]) -> str:
    """Return the shell's redirection for `output`."""
    if "output" not in known:
        return ""
    output = known["output"]
    if output is None:
        return ">> /dev/null 2>&1"
    if isinstance(output, Unknown):
        checks.append(f"only running the file could tell where `output: {output.text}` goes; batchd keeps the output")
        return ""
    if not isinstance(output, dict):
        text = f">> {output} 2>&1"
        return WithVariables(text) if isinstance(output, WithVariables) else text
    streams = {
        key: "/dev/null" if output[key] is None else str(output[key]) for key in ("standard", "error") if key in output
    }
    standard, error = streams.get("standard"), streams.get("error")
    if standard == error == "/dev/null":
        return "> /dev/null 2>&1"
    to_standard = "" if standard is None else f">> {standard}"
    to_error = "" if error is None else f"2> {error}" if error == "/dev/null" else f"2>> {error}"
    return f"{to_standard} {to_error}".strip()


def _job_name(kind: str, task: Any) -> str:
    if isinstance(task, Unknown):
        return f"{kind}-{task.text}"
    text = str(task)
    if kind == "command":
        return name_of_command(text.split())
    return re.split(r"[(\[;,]|\s", text.replace("::", "-").replace(":", "-"), maxsplit=1)[0] or kind
