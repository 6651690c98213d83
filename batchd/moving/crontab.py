"""crontab: the form of a user, and the system's (/etc/crontab, /etc/cron.d) with a user before the command.

The rules are those of Debian's cron (crontab(5) and its sources); what cronie adds is read too (CRON_TZ,
RANDOM_DELAY, `~`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from batchd.moving.commands import in_other_shell, run_as, run_in, shell_settings
from batchd.moving.cron_fields import Days, Dialect, Timing, Untranslatable, apply_timing, translate
from batchd.moving.found import Findings, FoundJob, Options, Place, Source, name_of_command, paragraphs
from batchd.moving.words import in_words

SYSTEM = "cron"
DIALECT = Dialect("cron", Days.EITHER_UNLESS_STAR)

_REMARKS = paragraphs("""
Fire times are the same minutes, daylight saving time included; the one difference: `*/10 2 * * *` fires once right
after the gap in spring, where cron leaves it out.

A job is not started while its last run is at work (`overlap`); cron starts another one. What was due while the
machine was off is lost, as with cron (`catch_up`). Nothing is tried again (`retry`), and nothing runs longer than a
day (`timeout`).

A command sees PATH, HOME, LANG and little else, as under cron; cron's PATH is /usr/bin:/bin, here it is the
daemon's. cron starts it in the user's home, batchd in the config's folder unless `cwd` is set.

cron mails what a command writes to MAILTO or the user; batchd keeps it with the run (`batchd show RUN`) and tells
of failures only.

`user` needs a daemon that is root.
""")
_NICKNAMES = {"hourly", "daily", "midnight", "weekly", "monthly", "yearly", "annually", "reboot"}
_SETTING = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s=#"'*@]+))\s*=\s*(.*?)\s*""", re.DOTALL)
_NICKNAME = re.compile(r"@(\S+)\s+(\S.*)", re.DOTALL)
_FIELDS = re.compile(r"-?((?:\S+\s+){4}\S+)\s+(\S.*)", re.DOTALL)
_USER = re.compile(r"(\S+)\s+(\S.*)", re.DOTALL)
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_KNOWN_USERS = {"root", "www-data", "nobody", "postgres", "mysql", "deploy", "backup", "git", "nginx", "apache"}
_FIELD = re.compile(r"[*?\d][*?\d,/-]*")
_TILDE = re.compile(r"(\d{0,2})~(\d{0,2})")
_DAY_MINUTES = 1440
_SHELLS = {"/bin/sh", "sh", "/usr/bin/sh"}


@dataclass(slots=True)
class _Surroundings:
    """What the lines so far have set for those that follow."""

    env: dict[str, str] = field(default_factory=dict)
    shell: str = "/bin/sh"
    zone: str | None = None
    delay: str | None = None
    mail: str | None = None
    above: list[str] = field(default_factory=list)


def read_crontab(source: Source, options: Options, findings: Findings, *, with_user: bool | None = None) -> None:
    """Add the jobs of a crontab; `with_user` says that it is the system's form, None to find out."""
    findings.remark(SYSTEM, *_REMARKS)
    system = looks_like_system(source, options) if with_user is None else with_user
    if system and re.search(r"cron\.d/[^/]*[^A-Za-z0-9_/-][^/]*$", source.name):
        said = "Debian's cron ignores files in cron.d whose names have other characters than letters, digits, - and _"
        findings.remark(SYSTEM, f"CHECK: {said}: {source.name}")
    _Reader(source, options, findings, system=system).read()


def looks_like_system(source: Source, options: Options) -> bool:
    """Return whether every job has a user before its command."""
    name = source.path.as_posix()
    if re.search(r"(^|/)etc/(crontab|cron\.d/)", name):
        return True
    if _owner(source) is not None:
        return False
    commands = [match for line in source.text.split("\n") if (match := _command_of(line)) is not None]
    users = [_USER.fullmatch(command) for command in commands]
    return bool(users) and all(
        match is not None
        and _USER_NAME.fullmatch(match[1]) is not None
        and (match[1] in _KNOWN_USERS or options.machine.home_of(match[1]) is not None)
        for match in users
    )


def is_job_line(line: str) -> bool:
    """Return whether the line is a crontab's job."""
    return _command_of(line) is not None


def split_percent(text: str) -> tuple[str, str | None]:
    r"""Return the command, and what it gets on its standard input: what follows the first % that has no \ before it."""
    command: list[str] = []
    escaped = False
    for index, char in enumerate(text):
        if escaped and char == "%":
            command[-1] = char
        elif char == "%":
            return "".join(command), _stdin(text[index + 1 :])
        else:
            command.append(char)
        escaped = char == "\\" and not escaped
    return "".join(command), None


def _stdin(text: str) -> str:
    lines = re.sub(r"(\\%)|%", lambda match: "%" if match[1] else "\n", text)
    return lines if lines.endswith("\n") else f"{lines}\n"


def _command_of(line: str) -> str | None:
    stripped = line.strip()
    if not stripped or stripped.startswith("#") or _SETTING.fullmatch(stripped):
        return None
    nickname = _NICKNAME.fullmatch(stripped)
    if nickname:
        return nickname[2] if nickname[1].lower() in _NICKNAMES else None
    fields = _FIELDS.fullmatch(stripped)
    if fields is None:
        return None
    try:
        translate(_without_tilde(fields[1])[0], DIALECT, None)
    except Untranslatable:
        return None
    return fields[2]


def _owner(source: Source) -> str | None:
    """Return whose crontab it is, when its place says so."""
    match = re.search(r"(?:^|/)var/spool/cron/(?:crontabs/|tabs/)?([^/]+)$", source.path.as_posix())
    return match[1] if match else None


class _Reader:
    """Goes through the lines, as cron does: what a line sets holds for those below it."""

    def __init__(self, source: Source, options: Options, findings: Findings, *, system: bool) -> None:
        self._source = source
        self._options = options
        self._findings = findings
        self._system = system
        self._owner = None if system else _owner(source)
        self._now = _Surroundings()

    def read(self) -> None:
        lines = self._source.text.split("\n")
        for number, line in enumerate(lines, start=1):
            self._line(line.strip(), Place(self._source.name, number))
        self._flush(Place(self._source.name, len(lines) + 1))

    def _line(self, line: str, place: Place) -> None:
        if line.startswith("#"):
            self._now.above.append(line.lstrip("#").removeprefix(" "))
            return
        setting = _SETTING.fullmatch(line)
        if not line or setting:
            self._flush(place)
        if not line:
            return
        if setting:
            name = next(part for part in setting.groups()[:3] if part is not None)
            self._set(name, _unquoted(setting[4]), place, line)
            return
        timing, command, problem = _timing(line, self._now, self._options)
        user = _USER.fullmatch(command) if self._system and command else None
        if timing is None or command is None or (self._system and user is None):
            self._flush(place)
            said = problem or "there is no command behind the user"
            self._findings.keep(place, line, "nothing that cron would run", f"CHECK: not understood: {said}")
            return
        job = self._job(place, line, user[2] if user else command, timing)
        owner = user[1] if user else self._owner
        if owner is not None:
            job.meaning += f"; as {owner}"
            run_as(job, owner, self._options)
        self._findings.add(job)
        self._now.above = []

    def _job(self, place: Place, line: str, command: str, timing: Timing) -> FoundJob:
        now = self._now
        text, stdin = split_percent(command)
        text = text.strip()
        job = FoundJob(place, name_of_command(text.split()), line, "", shell_settings(text), above=now.above)
        apply_timing(job, timing)
        job.meaning = in_words(timing.schedule, timing.timezone)
        if now.mail:
            job.meaning += f"; output is mailed to {now.mail}"
        if stdin is not None:
            job.settings["stdin"] = stdin
        if now.shell not in _SHELLS:
            job.settings.pop("shell")
            job.settings |= in_other_shell(text, now.shell, self._options)
        if now.env:
            job.settings["env"] = dict(now.env)
        if "HOME" in now.env:
            run_in(job, now.env["HOME"], self._options)
        if now.delay:
            job.settings["jitter"] = now.delay
        if _FIELD.fullmatch(text.partition(" ")[0]):
            job.checks.append("its command begins with what looks like a sixth field; cron has five")
        return job

    def _set(self, name: str, value: str, place: Place, line: str) -> None:
        now = self._now
        becomes = "`env` of the jobs below"
        match name:
            case "MAILTO" | "MAILFROM":
                now.mail = (value or None) if name == "MAILTO" else now.mail
                becomes = "batchd mails no output; [alerts] can mail failures"
            case "SHELL":
                now.shell = value or "/bin/sh"
                becomes = "the shell of the jobs below"
            case "CRON_TZ":
                now.zone = value or None
                becomes = (
                    "`timezone` of the jobs below, as cronie fires them. CHECK: Debian's cron ignores CRON_TZ and goes "
                    "by the machine's zone"
                )
            case "RANDOM_DELAY":
                now.delay = f"{int(value)}m" if value.isdecimal() and 0 < int(value) < _DAY_MINUTES else None
                becomes = "`jitter` of the jobs below, always the same for one fire time"
            case "LOGNAME":
                becomes = "cron does not let it be set"
            case _:
                now.env[name] = value
                becomes += "; the $ in it stays as it is, as with cron" if "$" in value else ""
        self._findings.keep(place, line, f"for the lines below: {name} = {value!r}", becomes)

    def _flush(self, place: Place) -> None:
        """Keep the comments that stand above no job."""
        above = self._now.above
        if above:
            first = Place(place.source, max(1, place.line - len(above)))
            self._findings.keep(first, "\n".join(above), "a comment", "")
            self._now.above = []


def _timing(line: str, now: _Surroundings, options: Options) -> tuple[Timing | None, str | None, str]:
    """Return when a line fires, its command, and what is wrong with it where either is None."""
    zone = now.zone or options.timezone
    nickname = _NICKNAME.fullmatch(line)
    if nickname:
        word = nickname[1].lower()
        if word == "reboot":
            said = "cron runs it when cron starts, which is when the machine does; batchd whenever its daemon starts"
            return Timing("@reboot", None, [said]), nickname[2], ""
        if word in _NICKNAMES:
            return Timing(f"@{word}", zone), nickname[2], ""
        return None, None, f"there is no @{word}"
    fields = _FIELDS.fullmatch(line)
    if fields is None:
        return None, None, "it has too few fields"
    plain, drawn = _without_tilde(fields[1])
    try:
        timing = translate(plain, DIALECT, zone)
    except Untranslatable as error:
        return None, None, str(error)
    if drawn:
        said = f"cronie draws a time from `{fields[1]}` when it reads the file; here it is fixed: `{plain}`"
        timing.changes.append(said)
    return timing, fields[2], ""


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _without_tilde(fields: str) -> tuple[str, bool]:
    """Return the fields with cronie's random ranges (`0~59`) fixed to their middle."""
    firsts, lasts = (0, 0, 1, 1, 0), (59, 23, 28, 12, 6)
    parts = fields.split()
    for index, part in enumerate(parts):
        match = _TILDE.fullmatch(part)
        if match:
            low, high = int(match[1] or firsts[index]), int(match[2] or lasts[index])
            parts[index] = str((low + high) // 2)
    plain = " ".join(parts)
    return plain, "~" in fields and plain != fields
