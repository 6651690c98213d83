"""A service as the settings of a command job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import timedelta

from batchd.domain.quantities import format_duration
from batchd.moving.commands import run_as, run_in
from batchd.moving.cron_fields import SKIPPED, Untranslatable
from batchd.moving.found import NO_LIMIT, FoundJob, Options, TomlValue
from batchd.moving.systemd.calendar import time_span
from batchd.moving.systemd.units import Entry, Unit, words

_PREFIXES = "-@:+!|"
_VARIABLE = re.compile(r"\$(\{\w+\}|\w+)")
_SPECIFIER = re.compile(r"%(.)")
_CODES = {"TEMPFAIL": 75, "USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "UNAVAILABLE": 69, "NOPERM": 77, "CONFIG": 78}
_LONGEST_GRACE = timedelta(minutes=10)
_FOLDERS = {"t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc", "T": "/tmp", "V": "/var/tmp"}  # noqa: S108
_READ = frozenset(
    {
        "Type", "ExecStart", "ExecStartPre", "ExecStartPost", "ExecCondition", "Environment", "EnvironmentFile",
        "User", "Group", "WorkingDirectory", "TimeoutStartSec", "TimeoutSec", "RuntimeMaxSec", "TimeoutStopSec",
        "SuccessExitStatus", "RestartPreventExitStatus", "Restart", "RestartSec", "StandardOutput", "StandardError",
        "SyslogIdentifier",
    }
)  # fmt: skip
_HARMLESS = frozenset({("Unit", "Description"), ("Unit", "Documentation")})


def service_settings(service: Unit, job: FoundJob, options: Options) -> list[Entry]:
    """Set on the job what the service says; return the entries that have no place in batchd."""
    parts = _commands(service, job)
    if not parts:
        job.settings |= {"command": f"systemctl start {shlex.quote(service.name)}", "shell": True}
        job.checks.append(f"{service.name} has no ExecStart; so systemd starts it")
    else:
        job.settings |= _command(parts, service, job, options)
    job.settings["timeout"] = NO_LIMIT
    _set_environment(service, job)
    _set_times(service, job)
    _set_codes(service, job)
    folder = service.last("Service", "WorkingDirectory")
    user = service.last("Service", "User")
    if folder and folder.lstrip("-") != "~":
        run_in(job, _specified(folder.lstrip("-"), service, job), options)
    if user:
        home = job.settings.get("cwd")
        run_as(job, _specified(user, service, job), options)
        if home is None and not (folder and folder.lstrip("-") == "~"):
            job.settings.pop("cwd", None)  # systemd starts it in /, whoever it is
    group = service.last("Service", "Group")
    if group and "user" in job.settings:
        job.settings["group"] = group
    elif group:
        job.checks.append(f"Group={group} needs a `user` here")
    if service.last("Service", "Type") in {"forking", "notify", "dbus", "notify-reload"}:
        job.checks.append(
            "the service stays in the background; batchd ends what a command leaves behind when it is done"
        )
    return [
        entry
        for entry in service.entries
        if (entry.section, entry.key) not in _HARMLESS
        and not (entry.section == "Service" and entry.key in _READ and not _is_to_a_file(entry))
        and entry.value
    ]


def _is_to_a_file(entry: Entry) -> bool:
    return entry.key in {"StandardOutput", "StandardError"} and ":" in entry.value


def _commands(service: Unit, job: FoundJob) -> list[tuple[str, str, list[str]]]:
    """Return (key, prefixes, words) of all that is executed, in its order."""
    found = []
    for key in ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost"):
        for entry in service.all("Service", key):
            line: list[str] = []
            for word in [*words(entry.value), ";"]:
                if word != ";":
                    line.append(word)
                    continue
                if line:
                    bare = line[0].lstrip(_PREFIXES)
                    prefixes = line[0][: len(line[0]) - len(bare)]
                    line = [_specified(each, service, job) for each in ([bare, *line[1:]] if bare else line[1:])]
                    found += [(key, prefixes, line)] if line else []
                    line = []
    return found


def _command(
    parts: list[tuple[str, str, list[str]]], service: Unit, job: FoundJob, options: Options
) -> dict[str, TomlValue]:
    """Return `command`: a list for a program alone, else one text for the shell that does them one after the other."""
    for key, prefixes, line in parts:
        if set(prefixes) & set("+!|"):
            job.checks.append(f"{key}={prefixes}{line[0]} runs with other rights there; here it has those of `user`")
        if "@" in prefixes:
            job.checks.append(f"{key}=@{line[0]}: the second word is the program's own name there; it is left out here")
            del line[1:2]
    files = service.all("Service", "EnvironmentFile")
    alone = len(parts) == 1 and not files and "-" not in parts[0][1]
    uses_variables = any(_VARIABLE.search(word) for _, prefixes, line in parts for word in line if ":" not in prefixes)
    only = parts[0][2]
    if alone and not uses_variables and options.machine.has_program(only[0]):
        return {"command": [each.replace("$$", "$") for each in only]}
    steps = [_sourced(entry, service, job) for entry in files]
    main = "exec " if len(parts) == 1 and "-" not in parts[0][1] else ""
    for key, prefixes, line in parts:
        text = main + " ".join(_quoted(word, literal=":" in prefixes) for word in line)
        if key == "ExecCondition":
            text = f"{{ {text} || exit {SKIPPED}; }}"
            job.settings["skip_codes"] = [SKIPPED]
        elif "-" in prefixes:
            text = f"{{ {text} || true; }}"
        steps.append(text)
    return {"command": " && ".join(steps), "shell": True}


def _quoted(word: str, *, literal: bool) -> str:
    """Return the word for the shell; systemd's variables stay variables, `$WORD` alone is split as there."""
    if literal or "$" not in word:
        return shlex.quote(word)
    if _VARIABLE.fullmatch(word) and not word.startswith("${"):
        return word
    pieces, last = [], 0
    for match in re.finditer(r"\$\$|\$\{\w+\}", word):
        pieces.append(_in_double_quotes(word[last : match.start()]))
        pieces.append("\\$" if match.group() == "$$" else match.group())
        last = match.end()
    return f'"{"".join(pieces)}{_in_double_quotes(word[last:])}"'


def _in_double_quotes(text: str) -> str:
    return re.sub(r'([\\"`$])', r"\\\1", text)


def _sourced(entry: Entry, service: Unit, job: FoundJob) -> str:
    file = _specified(entry.value.lstrip("-"), service, job)
    job.checks.append(
        f"EnvironmentFile={entry.value} is read by the shell here: quotes and $ in it count as the shell's"
    )
    text = f"set -a && . {shlex.quote(file)} && set +a"
    return f"{{ [ ! -e {shlex.quote(file)} ] || {{ {text}; }}; }}" if entry.value.startswith("-") else text


def _set_environment(service: Unit, job: FoundJob) -> None:
    env: dict[str, TomlValue] = {}
    for entry in service.all("Service", "Environment"):
        for word in words(entry.value):
            name, equals, value = word.partition("=")
            if equals and name:
                env[name] = _specified(value, service, job)
            else:
                job.checks.append(f"Environment={word} has no value")
    if env:
        job.settings["env"] = env


def _set_times(service: Unit, job: FoundJob) -> None:
    def with_span(keys: tuple[str, ...], use: Callable[[timedelta], None]) -> None:
        for key in keys:
            value = service.last("Service", key)
            if value is None:
                continue
            try:
                span = time_span(value)
            except Untranslatable as error:
                job.checks.append(f"{key}: {error}")
                continue
            if span:
                use(span)

    def set_timeout(span: timedelta) -> None:
        job.settings["timeout"] = format_duration(span)

    def set_grace(span: timedelta) -> None:
        job.settings["grace"] = format_duration(min(span, _LONGEST_GRACE))

    is_oneshot = service.last("Service", "Type") == "oneshot"
    with_span(("TimeoutSec", "TimeoutStartSec") if is_oneshot else ("RuntimeMaxSec",), set_timeout)
    with_span(("TimeoutStopSec",), set_grace)


def _set_codes(service: Unit, job: FoundJob) -> None:
    success = [0, *_codes(service, "SuccessExitStatus", job)]
    if len(success) > 1:
        job.settings["success_codes"] = [*dict.fromkeys(success)]
    prevented = [code for code in _codes(service, "RestartPreventExitStatus", job) if code not in success]
    if prevented:
        job.settings["fail_codes"] = [*dict.fromkeys(prevented)]
    restart = service.last("Service", "Restart") or "no"
    retry: dict[str, TomlValue] = {"max_attempts": 1}
    if restart != "no":
        delay = service.last("Service", "RestartSec") or "100ms"
        try:
            span = time_span(delay) or timedelta(0)
        except Untranslatable:
            span = timedelta(0)
        retry = {"max_attempts": 5, "backoff": "fixed", "delay": format_duration(span)}
        job.changes.append(f"Restart={restart} became `retry`: so many attempts, and only after a failure")
    job.settings["retry"] = retry


def _codes(service: Unit, key: str, job: FoundJob) -> list[TomlValue]:
    found: list[TomlValue] = []
    for entry in service.all("Service", key):
        for word in entry.value.split():
            if word.isdecimal() and int(word) <= 255:  # noqa: PLR2004
                found.append(int(word))
            elif word in _CODES:
                found.append(_CODES[word])
            else:
                job.checks.append(f"{key}={word}: batchd takes exit codes here, no signals")
    return found


def _specified(text: str, service: Unit, job: FoundJob) -> str:
    """Return the text with systemd's `%` specifiers replaced."""
    known = {
        "%": "%",
        "i": service.instance,
        "I": service.instance.replace("-", "/"),
        "n": service.name,
        "N": service.stem,
        "p": service.stem.partition("@")[0],
        **_FOLDERS,
    }

    def one(match: re.Match[str]) -> str:
        if match[1] not in known:
            job.checks.append(f"the specifier %{match[1]} of systemd stands in the text as it was")
            return match.group()
        return known[match[1]]

    return _SPECIFIER.sub(one, text)
