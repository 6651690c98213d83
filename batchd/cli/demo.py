"""`batchd demo`: the real daemon on a sample database, each job shown at work, then its schedules until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click

from batchd.cli.demo_world import demo_api, fill_inbox
from batchd.cli.output import heading, plain_text, say
from batchd.cli.result_text import plain_values
from batchd.cli.run_text import progress_text, state_text
from batchd.cli.sample import prepare_sample
from batchd.cli.session import config_option, open_config, open_store
from batchd.cli.text import cleaned, span
from batchd.clock import SystemClock
from batchd.config.load import Config
from batchd.db.engine import Database, dialect_of, masked
from batchd.domain.access import Role
from batchd.domain.run import CreatedBy
from batchd.errors import BatchdError, DatabaseUnavailable, LockTimeout, SchemaMismatch, UsageError
from batchd.store import control, queries, tokens
from batchd.store.queries import RunView

_APP = "app"
_HTTP_PORT = 8787
_TOKEN_FOR = timedelta(days=1)
_INBOX = Path("var/inbox")
_PLACES = {"the report": "var/reports/daily.html", "mails": "var/mail", "exports": "var/exports", "inbox": "var/inbox"}
_LOOK_EVERY = timedelta(milliseconds=100)
_READY_WITHIN = timedelta(seconds=30)
_SHOWN_WITHIN = timedelta(seconds=10)


class _Daemon:
    """The daemon as a child process in a process group of its own, so that one Ctrl-C reaches it once: through us."""

    def __init__(self, config: Config, api: str) -> None:
        self.asked_to_stop = False
        self.listen = f"127.0.0.1:{_free_port()}" if config.http is None else None
        self._look = threading.Event()
        command = [sys.executable, "-m", "batchd", "run", "--config", str(config.path)]
        command += ["--listen", self.listen] if self.listen else []
        sys.stdout.flush()
        environment = {**os.environ, "DEMO_API": api}
        self._process = subprocess.Popen(command, process_group=0, env=environment)  # noqa: S603 (our own module)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the daemon still runs."""
        return self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Pass the stop on; the second one stops it at once. Fit to be a signal handler."""
        self.asked_to_stop = True
        if self.is_alive:
            self._process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def pause(self) -> bool:
        """Wait a moment; return whether it makes sense to go on looking."""
        self._look.wait(_LOOK_EVERY.total_seconds())
        return self.is_alive and not self.asked_to_stop

    def wait(self) -> int:
        """Wait for the daemon's end and return its exit code."""
        return self._process.wait()


@click.command()
@config_option
@click.option("--keep", is_flag=True, help="Leave the sample database as it is: add no rows.")
@click.option("--once", is_flag=True, help="Stop when every job has been shown, instead of at Ctrl-C.")
def demo(config_file: str | None, *, keep: bool, once: bool) -> None:
    """Run the real daemon on a sample database and show each job at work.

    \b
      batchd demo --config config.example.toml

    Makes the SQLite file of [databases.app] with 200,000 log rows, 20,000 sessions and 10,000 users (a later demo fills
    it up again), a CSV file in var/inbox and an HTTP API on this machine, starts the daemon, triggers every job once,
    says where to look, and goes on until Ctrl-C. A file with tables of its own is refused.
    """
    config = open_config(config_file)
    _prepare(config, keep=keep)
    with demo_api() as api, _running_daemon(config, api) as daemon:
        _show_all(config, daemon)
        if once:
            daemon.stop()
        code = daemon.wait()
    if not daemon.asked_to_stop:
        say(f"the daemon ended by itself with exit code {code}; its last lines say why", color="red")
    click.get_current_context().exit(code)


class NotReady(BatchdError):
    """The demo's daemon runs but does not come to work."""


def _prepare(config: Config, *, keep: bool) -> None:
    settings = config.databases.get(_APP)
    if settings is None:
        raise UsageError(f"the config has no [databases.{_APP}]", hint="run the demo on config.example.toml")
    if keep:
        return
    clock = SystemClock()
    began = clock.monotonic()
    with contextlib.closing(Database(settings)) as database:
        sample = prepare_sample(database)
    click.echo(
        f"Sample database {masked(settings.url)}: {sample.logs:,} log rows, {sample.sessions:,} sessions, "
        f"{sample.users:,} users ({sample.added:,} added in {clock.monotonic() - began:.1f} s)"
    )
    click.echo(f"Inbox: {fill_inbox(_INBOX)}")


@contextlib.contextmanager
def _running_daemon(config: Config, api: str) -> Iterator[_Daemon]:
    click.echo(f"Starting the daemon: batchd run --config {config.path}")
    daemon = _Daemon(config, api)
    before = {number: signal.signal(number, daemon.stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield daemon
    finally:
        if daemon.is_alive:
            daemon.stop()
            daemon.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_all(config: Config, daemon: _Daemon) -> None:
    if not _is_ready(config, daemon):
        return
    with open_store(config) as store:
        waiting = {
            control.trigger(store, job.name, {}, created_by=CreatedBy.CLI): job.name
            for job in config.jobs
            if job.enabled and not config.kinds[job.kind].runs_elsewhere
        }
        click.echo(f"The daemon is ready (pid {daemon.pid}); every job is triggered once.")
        deadline = SystemClock().monotonic() + _SHOWN_WITHIN.total_seconds()
        ended: list[RunView] = []
        while waiting and SystemClock().monotonic() < deadline and daemon.pause():
            for run_id in list(waiting):
                run = queries.find_run(store, run_id)
                if run is not None and run.is_final:
                    del waiting[run_id]
                    ended.append(run)
        unfinished = [run for run_id in waiting if (run := queries.find_run(store, run_id)) is not None]
    if not daemon.asked_to_stop:
        heading("What the jobs did")
        for run in [*ended, *unfinished]:
            _show(run)
        _say_where_to_look(config, next((run.id for run in [*ended, *unfinished]), 1))
        _say_how_to_sign_in(config, daemon.listen)
        click.echo("\nThe daemon goes on running on its schedules. Ctrl-C stops it gracefully.")
        sys.stdout.flush()


def _is_ready(config: Config, daemon: _Daemon) -> bool:
    clock = SystemClock()
    deadline = clock.monotonic() + _READY_WITHIN.total_seconds()
    while daemon.pause():
        try:
            with open_store(config) as store:
                known = set(queries.job_names(store)) >= {job.name for job in config.jobs}
                if known and any(worker.pid == daemon.pid for worker in queries.alive_workers(store)):
                    return True
        except (SchemaMismatch, LockTimeout, DatabaseUnavailable):
            pass  # the daemon is still making its tables, or waits for its store
        if clock.monotonic() > deadline:
            raise NotReady(f"the daemon was not ready within {span(_READY_WITHIN)}", hint="its log above says why")
    return False


def _show(run: RunView) -> None:
    took = f" in {span(run.duration)}" if run.duration is not None else ""
    click.echo(f"  {run.schedule_id}: {state_text(run)}{took}  (run {run.id})")
    for key, value in plain_values(run.result or {}):
        if value is not None:
            click.echo(f"      {key}: {cleaned(plain_text(value))}")
    for line in (run.error, progress_text(run) if not run.is_final else None):
        if line:
            click.echo(f"      {cleaned(line)}")


def _say_where_to_look(config: Config, run_id: int) -> None:
    heading("Where to look")
    options = f"--config {shlex.quote(str(config.path))}"
    program = _program()
    click.echo("  the log        this terminal: one line an event")
    for what, place in _PLACES.items():
        if Path(place).exists():
            click.echo(f"  {what.ljust(13)}  {place}")
    for name, url in ((_APP, config.databases[_APP].url), ("the store", config.store.url)):
        question = "SELECT count(*), min(created_at) FROM logs"
        if name != _APP:
            question = (
                "SELECT id, schedule_id, state, scheduled_for, finished_at FROM batchd_runs ORDER BY id DESC LIMIT 10"
            )
        click.echo(f"  {name.ljust(13)}  {_shell_line(url, question)}")
    for what, command in (
        ("jobs", f"{program} jobs {options}"),
        ("runs", f"{program} runs {options}"),
        ("one run", f"{program} show {run_id} {options}"),
        ("fire times", f"{program} next {options}"),
        ("again, now", f"{program} trigger {config.jobs[0].name if config.jobs else 'JOB'} --wait {options}"),
        ("health", f"{program} status {options}"),
    ):
        click.echo(f"  {what.ljust(13)}  {command}")


def _say_how_to_sign_in(config: Config, listen: str | None) -> None:
    """Print where the HTTP surface is, and a token for this demo alone."""
    where = listen or (str(config.http.listen) if config.http is not None else "")
    name = f"demo-{os.getpid()}-{SystemClock().now():%H%M%S}"
    with open_store(config) as store:
        token = tokens.create(store, name, Role.OPERATOR, valid_for=_TOKEN_FOR)
    heading("In the browser, and for programs")
    click.echo(f"  the URL        http://{where}/")
    click.echo(f"  sign in with   {token.text}")
    click.echo(f"  the API        curl -H 'Authorization: Bearer {token.text}' http://{where}/api/v1/jobs")
    click.echo(f"                 (the token works for a day; yours: `{_program()} token create NAME --role operator`)")


def _free_port() -> int:
    """Return the port that the documentation names, or another one where somebody has it."""
    for port in (_HTTP_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    return _HTTP_PORT


def _program() -> str:
    """Return how the person at this terminal calls batchd: by its name, or by its path where no PATH has it."""
    if shutil.which("batchd"):
        return "batchd"
    beside = Path(sys.executable).with_name("batchd")
    if beside.exists():
        return shlex.quote(os.path.relpath(beside))
    return f"{shlex.quote(os.path.relpath(sys.executable))} -m batchd"


def _shell_line(url: str, question: str) -> str:
    if dialect_of(url).name == "sqlite":
        return f"sqlite3 {shlex.quote(os.path.relpath(url.partition(':///')[2]))} '{question}'"
    return f"psql {shlex.quote(masked(url))} -c '{question}'"
