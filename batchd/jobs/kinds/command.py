"""command: run a program, and see to it that it never outlives its run."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field, field_validator, model_validator

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.commands.endings import Ended, ExitRules, Verdict, description, verdict_on
from batchd.jobs.commands.lines import Lines
from batchd.jobs.commands.supervise import Order, run_command
from batchd.jobs.commands.surroundings import Account, account, complaint_about, environment
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.params import Duration

_SHELL = "/bin/sh"
_ASKED_TO_END = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
_STOP_NOTICED = timedelta(seconds=1)
_SHOWN = 300

Code = Annotated[int, Field(ge=0, le=255)]


class CommandParams(Params):
    """What to run, as whom and where, and what its exit codes mean."""

    command: list[str] | str = Field(
        description='Program and arguments, `["pg_dump", "-Fc", "app"]`, passed on as they are. With `shell = true` '
        "one text for the shell.",
        examples=[["pg_dump", "-Fc", "app"], "gzip -c a | wc -c"],
    )
    shell: bool = Field(default=False, description="Let `/bin/sh -c` run the text: pipes, wildcards, `$VAR`, `&&`.")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Environment beside the few harmless variables that are always there (PATH, HOME, LANG, TZ, …). "
        'Nothing else of the daemon\'s is passed on; take it over as `{ TOKEN = "${TOKEN}" }`.',
    )
    cwd: Path | None = Field(default=None, description="Folder to run in. The config's own when unset.")
    user: str | None = Field(
        default=None, description="User to run as, with all its groups; needs a daemon that is root."
    )
    group: str | None = Field(default=None, description="Main group instead of the user's own.")
    stdin: str | None = Field(default=None, description="Text for its standard input, which is empty when unset.")
    stdin_file: Path | None = Field(default=None, description="File for its standard input.")
    success_codes: list[Code] = Field(default=[0], min_length=1, description="Exit codes that mean success.")
    skip_codes: list[Code] = Field(
        default=[], description="Exit codes that mean that there was nothing to do: success, marked `skipped`."
    )
    fail_codes: list[Code] = Field(default=[], description="Exit codes after which no other attempt can help.")
    retry_codes: list[Code] | None = Field(
        default=None,
        description="Exit codes after which another attempt is made; then every other fails at once. When unset: all "
        "that are not named elsewhere.",
    )
    grace: Duration = Field(
        default=timedelta(seconds=10),
        description="Time between SIGTERM and SIGKILL at a timeout, a cancel or a shutdown. Keep it below "
        "`daemon.shutdown_grace`.",
    )
    log_lines: int = Field(
        default=200, ge=0, le=400, description="Lines of output that go into the run's log, the first ones."
    )
    last_lines: int = Field(
        default=20, ge=0, le=200, description="Lines of output that the run's result keeps, the last ones."
    )

    @field_validator("env")
    @classmethod
    def _are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not name or "=" in name:
                raise ValueError(f"{name!r} is no name of a variable")
        return value

    @field_validator("grace")
    @classmethod
    def _is_no_week(cls, value: timedelta) -> timedelta:
        if value > timedelta(minutes=10):
            raise ValueError("must be at most 10m")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> CommandParams:
        if self.shell and not isinstance(self.command, str):
            raise ValueError('with `shell = true` the command is one text: command = "gzip -c a | wc -c"')
        if not self.shell and isinstance(self.command, str):
            raise ValueError('write the command as a list, ["pg_dump", "-Fc"], or set `shell = true`')
        if not self.command or not self.command[0].strip():
            raise ValueError("`command` is empty")
        if self.stdin is not None and self.stdin_file is not None:
            raise ValueError("set either `stdin` or `stdin_file`, not both")
        if self.group is not None and self.user is None:
            raise ValueError("`group` needs a `user`")
        named = [*self.success_codes, *self.skip_codes, *self.fail_codes, *(self.retry_codes or ())]
        twice = sorted({code for code in named if named.count(code) > 1})
        if twice:
            raise ValueError(f"exit code {twice[0]} stands in two lists, or twice in one")
        return self

    @property
    def argv(self) -> list[str]:
        """What is executed."""
        return [_SHELL, "-c", self.command] if isinstance(self.command, str) else list(self.command)

    @property
    def rules(self) -> ExitRules:
        """What the exit codes mean."""
        return ExitRules(self.success_codes, self.skip_codes, self.fail_codes, self.retry_codes)


def run(params: CommandParams, context: JobContext) -> JsonObject:
    """Run the command; return its exit code, last lines, seconds and memory. Raises JobError as the rules say."""
    who = _who(params)
    given = environment(os.environ, {**_facts(context), **params.env}, who)
    complaint = None if who is not None else complaint_about(params.argv, params.cwd, given.get("PATH"))
    if complaint is not None:
        raise JobError(complaint, retryable=False)
    lines = Lines(context.log, logged=params.log_lines, kept=params.last_lines)
    order = Order(params.argv, given, params.cwd, who, params.grace)
    with _stdin(params) as stdin:
        ended = run_command(order, stdin, lines, context)
    if ended.status in _ASKED_TO_END:
        # Whoever stops a whole control group stops the command before the daemon can: then it is a stop.
        context.wait(_STOP_NOTICED)
    if ended.left:
        context.log.warning("command.left_behind", processes=ended.left)
    return _judged(params, ended, lines)


def _judged(params: CommandParams, ended: Ended, lines: Lines) -> JsonObject:
    result: JsonObject = {
        "exit_code": ended.status if ended.status >= 0 else None,
        "signal": None if ended.status >= 0 else -ended.status,
        "seconds": ended.seconds,
        "cpu_seconds": ended.cpu_seconds,
        "max_rss_bytes": ended.max_rss_bytes,
        "stdout_lines": lines.counts["stdout"],
        "stderr_lines": lines.counts["stderr"],
        "last_lines": list(lines.last()),
    }
    verdict = verdict_on(ended.status, params.rules)
    if verdict is Verdict.SUCCEEDED:
        return result
    if verdict is Verdict.SKIPPED:
        return {**result, "skipped": True}
    name = params.command[:_SHOWN] if isinstance(params.command, str) else Path(params.command[0]).name
    said = lines.last_of("stderr") or lines.last_of("stdout")
    message = f"{name!r} {description(ended, by_shell=params.shell)}"
    raise JobError(
        message if said is None else f"{message}; it said last: {said[:_SHOWN]}",
        retryable=verdict is Verdict.RETRY,
        result=result,
    )


def _facts(context: JobContext) -> dict[str, str]:
    """Return what the command may want to know of its run."""
    facts = {"BATCHD_RUN_ID": str(context.run_id), "BATCHD_JOB": context.job, "BATCHD_ATTEMPT": str(context.attempt)}
    if context.scheduled_for is not None:
        facts["BATCHD_SCHEDULED_FOR"] = context.scheduled_for.isoformat().replace("+00:00", "Z")
    return facts


def _who(params: CommandParams) -> Account | None:
    if params.user is None:
        return None
    who = account(params.user, params.group)
    if not who.is_ours and os.geteuid() != 0:
        raise JobError(
            f"only a daemon that is root can run a command as {params.user!r}",
            hint="start batchd as root, or as that user and leave `user` out",
            retryable=False,
        )
    return who


def _stdin(params: CommandParams) -> AbstractContextManager[IO[bytes]]:
    """Open what the command reads: a file, so that nobody has to write while it does not read."""
    if params.stdin is None:
        name = os.devnull if params.stdin_file is None else params.stdin_file
        try:
            return open(name, "rb")  # noqa: PTH123 (a name or a path; the caller's block closes it)
        except OSError as error:
            raise JobError(f"cannot read {name}: {error.strerror}", retryable=False) from error
    file = tempfile.TemporaryFile(prefix="batchd-stdin-")  # noqa: SIM115 (the caller's block closes it)
    file.write(params.stdin.encode())
    file.seek(0)
    return file


def _check_code(params: CommandParams) -> Sequence[tuple[str, str]]:
    """See that the user, the folder and the program are there."""
    try:
        who = None if params.user is None else account(params.user, params.group)
    except JobError as error:
        return [("user", error.message)]
    given = environment(os.environ, params.env, who)
    complaint = complaint_about(params.argv, params.cwd, given.get("PATH"))
    return [] if complaint is None else [("cwd" if "folder" in complaint else "command", complaint)]


KIND = Kind(
    name="command",
    summary="Runs a program: output into the run's log, rules for exit codes, never a process left behind.",
    params=CommandParams,
    run=run,
    example="""\
[jobs.backup]
kind = "command"
schedule = "every day at 01:30"
command = ["pg_dump", "--format=custom", "--file=/var/backups/app.dump", "app"]
env = { PGPASSWORD = "${PGPASSWORD:-}" }
timeout = "2h"
# shell = true                 # then command = "one | text"
# user = "postgres"            # a daemon that is root may be somebody else here
# skip_codes = [75]            # nothing to do
# fail_codes = [64, 78]        # another attempt cannot help
""",
    databases=lambda _params: (),
    check_code=_check_code,
)
