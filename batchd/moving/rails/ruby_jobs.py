"""One scheduled class of a Rails application as a job: what its entry in YAML says, and a command that runs it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from batchd.moving.commands import run_in, shell_settings
from batchd.moving.cron_fields import Timing, Untranslatable, apply_timing
from batchd.moving.found import Findings, FoundJob, Options, paragraphs
from batchd.moving.rails.erb import default_of, is_tag
from batchd.moving.rails.fugit import fugit_timing
from batchd.moving.rails.yaml_nodes import Document, Node
from batchd.moving.toml_text import WithVariables, dollars_escaped
from batchd.moving.words import in_words

_CLASS = re.compile(r"[A-Z]\w*(?:::[A-Z]\w*)*")
_NO_REMARK = ("description", "source", "namespace", "include_metadata")

RAILS_REMARKS = paragraphs("""
Each run starts Rails anew (`bin/rails runner`), which costs seconds; the class itself stays as it is. Jobs that
come every few seconds, or are queued by the application, are better written for batchd: docs/moving/sidekiq.md.

The command sees little of the daemon's environment: hand on what Rails needs with `env`, such as DATABASE_URL =
"${DATABASE_URL}" and RAILS_MASTER_KEY = "${RAILS_MASTER_KEY}".
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a schedule."""

    name: str
    node: Node
    document: Document

    def job(self, command: str, options: Options) -> FoundJob:
        """Return a job that runs the command in the application; it has no schedule yet."""
        place = self.document.place(self.node.line)
        settings = shell_settings(command)
        del settings["retry"]
        job = FoundJob(place, self.name, self.document.original(self.node.line), "", settings)
        job.above = self.document.comments_above(self.node.line)
        if is_tag(command):
            job.disable("an ERB tag stands in what it runs")
        if options.app_dir:
            run_in(job, options.app_dir, options)
        job.settings["env"] = {"RAILS_ENV": options.environment}
        return job


def runner(code: str) -> str:
    """Return the shell's text that has Rails run the code."""
    if isinstance(code, WithVariables):
        return WithVariables(f"bin/rails runner {shlex.quote(code)}")
    return f"bin/rails runner {shlex.quote(code)}"


def call(class_name: str, method: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> str:
    """Return Ruby code that calls the class with the arguments."""
    written = [ruby_literal(arg) for arg in args]
    written += [f"{key}: {ruby_literal(value)}" for key, value in (kwargs or {}).items()]
    code = f"{class_name}{method}({', '.join(written)})" if written else f"{class_name}{method}"
    return WithVariables(code) if any(isinstance(part, WithVariables) for part in written) else code


def ruby_literal(value: Any) -> str:
    """Return a value of YAML as Ruby writes it."""
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list():
            parts = [ruby_literal(each) for each in value]
            return _kept_variables("[", ", ".join(parts), "]", parts)
        case dict():
            parts = [f"{ruby_literal(str(key))} => {ruby_literal(inner)}" for key, inner in value.items()]
            return _kept_variables("{ ", ", ".join(parts), " }", parts)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("#", "\\#").replace("\n", "\\n")
    return WithVariables(f'"{escaped}"') if isinstance(value, WithVariables) else f'"{escaped}"'


def set_schedule(job: FoundJob, text: str, options: Options) -> None:
    """Give the job the schedule that fugit reads in the text."""
    if isinstance(text, WithVariables) and not is_tag(text):
        _set_by_variable(job, text, options)
        return
    if is_tag(text):
        job.checks.append(
            f"its schedule comes from outside, `{text}`; write it here. Until then it runs only when triggered"
        )
        return
    try:
        timing = fugit_timing(text, options.timezone)
    except Untranslatable as error:
        job.checks.append(f"no schedule: {error}. Without one it runs only when triggered")
        return
    apply_timing(job, timing)
    describe(job, timing)


def _set_by_variable(job: FoundJob, text: WithVariables, options: Options) -> None:
    """Let the schedule come from the variable, when its default is one that batchd reads as fugit does."""
    default = default_of(text)
    try:
        timing = fugit_timing(default, options.timezone)
    except Untranslatable:
        timing = None
    if timing is None or timing.schedule != default:
        said = f"its schedule comes from outside, `{text}`; write it here. Until then it runs only when triggered"
        job.checks.append(said)
        return
    job.set_schedule(default, timing.timezone)
    job.settings["schedule"] = text
    job.checks.append("its schedule comes from a variable, which batchd reads as cron and not as fugit does")
    job.meaning = in_words(default, timing.timezone)


def describe(job: FoundJob, timing: Timing) -> None:
    """Say what the schedule means."""
    job.meaning = in_words(timing.schedule, timing.timezone)


def keep_keys(entry: Entry, known: frozenset[str], job: FoundJob) -> None:
    """Keep the keys of an entry that have no match as comments at the job."""
    if not isinstance(entry.node.value, dict):
        return
    for key, node in entry.node.value.items():
        if key == "description" and isinstance(node.value, str):
            job.above.append(node.value)
        elif key not in known and key not in _NO_REMARK:
            job.checks.append(f"`{key}: {node.plain()}` has no match in batchd")


def class_of(entry: Entry, job_or_none: Findings) -> str | None:
    """Return the entry's class; an entry without one is kept as a comment."""
    name = entry.node.text("class", "klass")
    if _CLASS.fullmatch(name) or is_tag(name):
        return name
    place = entry.document.place(entry.node.line)
    original = entry.document.original(entry.node.line)
    said = "CHECK: it has no class, so nothing can be run"
    job_or_none.keep(place, original, f"an entry called {entry.name}", said)
    return None


def args_of(node: Node | None) -> list[Any]:
    """Return the arguments as a list: one that is no list is the only argument."""
    if node is None or node.value is None:
        return []
    plain = node.plain()
    return plain if isinstance(plain, list) else [plain]


def _kept_variables(before: str, inner: str, after: str, parts: list[str]) -> str:
    if any(isinstance(part, WithVariables) for part in parts):
        inner = ", ".join(part if isinstance(part, WithVariables) else dollars_escaped(part) for part in parts)
        return WithVariables(f"{before}{inner}{after}")
    return f"{before}{inner}{after}"
