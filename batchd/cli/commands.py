"""Which commands there are, and where each lives; listing them imports none of them."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

_ALLOCATIONS = 20_000
"""Between two looks for garbage: with Python's 700 a burst of runs spends a twelfth of its time on them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: its module in `batchd.cli`, the name of the function there, its line in `batchd --help`."""

    module: str
    function: str
    summary: str


GROUPS: dict[str, dict[str, Entry]] = {
    "The daemon": {
        "run": Entry("run", "run", "Run the daemon until it is told to stop."),
        "reload": Entry("reload", "reload", "Have the daemon take over its changed config."),
        "status": Entry("inspect", "status", "Who is alive, what waits, what became of the last 24 hours' runs."),
        "demo": Entry("demo", "demo", "Run the real daemon on a sample database and show each job at work."),
    },
    "The config": {
        "check": Entry("check", "check", "Report every error of the config at once."),
        "schema": Entry("check", "schema", "Print the JSON Schema of the config, for editors."),
        "kinds": Entry("check", "kinds", "Explain the kinds of jobs, their parameters and an example."),
        "next": Entry("check", "next_fires", "Print the coming fire times, in local time and in UTC."),
        "convert": Entry("convert", "convert", "Move in: write a crontab, timers, schedule.rb, … as a config."),
    },
    "Looking ahead": {
        "plan": Entry("plan", "plan", "Show all coming fires, busiest minutes, collisions, changes of the clock."),
        "explain": Entry("explain", "explain", "Say what a job would do now: SQL, index, locks, counts."),
        "simulate": Entry("simulate", "simulate_command", "Live through weeks in seconds, on a simulated clock."),
        "doctor": Entry("doctor", "doctor", "Look for what usually goes wrong, each with a remedy."),
    },
    "Jobs and runs": {
        "jobs": Entry("inspect", "jobs", "List the jobs: next run, last state, duration."),
        "runs": Entry("inspect", "runs", "List runs, newest first."),
        "queues": Entry("queues", "queues", "List the queues: what waits, what runs, limits, pauses."),
        "show": Entry("inspect", "show", "Show a run: attempts, progress, result, error, log lines."),
        "alerts": Entry("alerts", "alerts", "What is wrong, who was told; acknowledge it, test a channel."),
        "trigger": Entry("control", "trigger", "Run a job now."),
        "enqueue": Entry("enqueue", "enqueue", "Queue a run of a job or a kind, or one for each line on stdin."),
        "pause": Entry("control", "pause", "Stop a job's schedule, or a queue, until it is resumed."),
        "resume": Entry("control", "resume", "Let a paused job's schedule, or a paused queue, go on."),
        "cancel": Entry("control", "cancel", "Cancel a queued run, or stop a running one."),
        "report": Entry("report", "report", "Look at a report before it is mailed: `report preview JOB`."),
        "exec": Entry("exec", "execute", "Run any command, under cron or by hand, and record it as a run."),
        "retry": Entry("retry", "retry", "Run failed, cancelled, missed or quarantined runs again."),
        "discard": Entry("retry", "discard", "Put failed or waiting runs away for good."),
    },
    "Data": {
        "import": Entry("import_csv", "import_csv", "Import a CSV file into a table, without a daemon."),
        "export": Entry("export_rows", "export_rows", "Export a table or a query to a file, without a daemon."),
    },
    "Administration": {
        "token": Entry("token", "token", "Make, list and revoke the tokens of the HTTP surface."),
        "migrate": Entry("admin", "migrate", "Make or upgrade batchd's tables, or print the SQL that does."),
        "install": Entry("install", "install", "Make batchd a service of this machine, or undo it."),
        "completion": Entry("admin", "completion", "Print the script that makes your shell complete batchd."),
    },
}

ENTRIES: dict[str, Entry] = {name: entry for group in GROUPS.values() for name, entry in group.items()}


class Commands(click.Group):
    """A group that imports a command's module only to run the command or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the help."""
        return list(ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command; None for a name that there is not."""
        entry = ENTRIES.get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = getattr(import_module(f"batchd.cli.{entry.module}"), entry.function)
        finally:
            gc.freeze()
            gc.enable()  # `batchd.__main__` disabled it for the imports
            gc.set_threshold(_ALLOCATIONS, 20, 20)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first word; an unknown one is answered with the nearest that there is."""
        if args and args[0] not in ENTRIES and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 (only a typo needs it)

            near = get_close_matches(args[0], ENTRIES, n=1)
            advice = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands by group."""
        for group, entries in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, entry.summary) for name, entry in entries.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the names that begin so, with their help."""
        names = [
            CompletionItem(name, help=entry.summary.replace(",", ";"))  # fish takes a comma for the help's end
            for name, entry in ENTRIES.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)
