"""Jobs that run a command: what every reader sets on them."""

from __future__ import annotations

import shlex

from batchd.moving.found import NO_LIMIT, FoundJob, Options, TomlValue

ONCE: dict[str, TomlValue] = {"max_attempts": 1}
"""The `retry` of a job whose old system tried once."""


def shell_settings(text: str) -> dict[str, TomlValue]:
    """Return the settings of a job that gives the text to /bin/sh, of a kind that is never repeated or made up for."""
    return {
        "kind": "command",
        "command": text,
        "shell": True,
        "timeout": NO_LIMIT,
        "catch_up": "skip",
        "retry": dict(ONCE),
    }


def in_other_shell(text: str, shell: str, options: Options) -> dict[str, TomlValue]:
    """Return `command` and `shell` for text that another shell than /bin/sh is to read."""
    if options.machine.has_program(shell):
        return {"command": [shell, "-c", text]}
    return {"command": f"exec {shlex.quote(shell)} -c {shlex.quote(text)}", "shell": True}


def run_as(job: FoundJob, user: str, options: Options) -> None:
    """Let the job run as the user, in their home; one whom this machine does not know is left to a person."""
    home = options.machine.home_of(user)
    if home is None:
        job.commented.append(f'user = "{user}"')
        job.disable(f"there is no user {user} on this machine; where there is, set `user` as below")
        return
    job.settings["user"] = user
    run_in(job, home, options)


def run_in(job: FoundJob, folder: str, options: Options) -> None:
    """Let the job run in a folder: by `cwd`, or where this machine lacks it, by the shell, which fails there aloud."""
    if "cwd" in job.settings:
        return
    command = job.settings.get("command")
    if options.machine.has_folder(folder):
        job.settings["cwd"] = folder
    elif job.settings.get("shell") and isinstance(command, str):
        job.settings["command"] = type(command)(f"cd {shlex.quote(folder)} && {command}")
        job.checks.append(f"this machine has no folder {folder}")
    else:
        job.commented.append(f'cwd = "{folder}"')
        job.checks.append(f"this machine has no folder {folder}; where there is, set `cwd` as below")
