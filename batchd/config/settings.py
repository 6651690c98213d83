"""Every section of the config as a typed model: default, bounds, unit and reason stand here and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from batchd.domain.job import DEFAULT_RETRY, DEFAULT_TIMEOUT, Backoff, CatchUp, CatchUpPolicy, Overlap, RetryPolicy
from batchd.domain.schedule import ScheduleError, zone_named
from batchd.jobs.params import Duration
from batchd.mail.delivery import Security

Positive = Annotated[Duration, Field(gt=timedelta(0))]


class Section(BaseModel):
    """The base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DaemonSettings(Section):
    """`[daemon]`: the process itself."""

    timezone: str = Field("UTC", description="Time zone of schedules that name none: an IANA name.")
    shutdown_grace: Positive = Field(
        timedelta(seconds=25),
        description="How long running jobs may go on after SIGTERM before their statements are cancelled. "
        "The supervisor must wait 10 s longer than this.",
    )
    workers: int = Field(10, ge=1, le=1000, description="Runs at once; each takes one thread.")
    state: str | None = Field(
        None,
        description="Folder for what the daemon keeps on disk, relative to the config's folder. "
        "When unset: $STATE_DIRECTORY (systemd sets it), else `var`.",
    )
    import_path: list[str] = Field(
        ["."],
        description="Folders from which jobs import a team's own functions, relative to the config's folder; "
        "what is installed beside batchd comes first.",
    )
    imports: list[str] = Field(
        [],
        alias="import",
        description="Modules to import at start; the functions in them that `@batchd.job` decorates become jobs. "
        "`batchd run --import MODULE` adds to them.",
    )
    keep_for: Positive = Field(timedelta(days=90), description="How long finished runs are kept.")
    keep_runs: int = Field(10_000, ge=1, description="Most finished runs that are kept of each job.")
    keep_events: Positive = Field(timedelta(days=1), description="How long rows of the outbox are kept.")

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        return checked_zone(value)


class StoreSettings(Section):
    """`[store]`: where batchd keeps its own tables."""

    url: str | None = Field(
        None,
        description="postgresql://… or sqlite:///… . When unset: the file `batchd.db` in the state folder.",
    )
    url_file: str | None = Field(None, description="File that holds the URL, instead of `url`.")
    pool_size: int = Field(8, ge=3, le=100, description="Connections of the daemon to the store.")
    connect_timeout: Positive = Field(timedelta(seconds=5), description="Longest wait for a connection.")
    statement_timeout: Positive = Field(timedelta(seconds=30), description="Longest statement of batchd itself.")
    lock_timeout: Positive = Field(timedelta(seconds=5), description="Longest wait for a lock.")


class DatabaseSection(Section):
    """`[databases.NAME]`: a database that jobs work on."""

    url: str | None = Field(None, description="postgresql://… or sqlite:///… (relative to the config's folder).")
    url_file: str | None = Field(None, description="File that holds the URL, instead of `url`.")
    pool_size: int = Field(5, ge=1, le=200, description="Most connections at once.")
    connect_timeout: Positive = Field(timedelta(seconds=5), description="Longest wait for a connection.")
    statement_timeout: Positive | None = Field(
        None, description="Longest statement of a job; the server ends it. No limit when unset."
    )
    lock_timeout: Positive | None = Field(
        timedelta(seconds=5), description="Longest wait for a lock that somebody else holds."
    )


class MailSection(Section):
    """`[mail]`: how jobs send mail. Either `host` or `folder`."""

    host: str | None = Field(None, min_length=1, description="Mail server.")
    port: int | None = Field(
        None, ge=1, le=65_535, description="Port; when unset 587 with `starttls`, 465 with `tls`, 25 with `none`."
    )
    security: Security = Field(
        Security.STARTTLS,
        description="`starttls`, `tls`, or `none`. The certificate is always verified.",
    )
    user: str | None = Field(None, description="User to log in as. Without one nobody logs in.")
    password: SecretStr | None = Field(None, description="Password of the user.")
    password_file: str | None = Field(None, description="File that holds the password, instead of `password`.")
    sender: str = Field(alias="from", description='Who writes: "batchd <batchd@example.com>".')
    timeout: Positive = Field(
        timedelta(seconds=30),
        description="Longest wait for the connection and for each answer. The answer to a whole message is waited for "
        "10 minutes: who hangs up sooner makes duplicates.",
    )
    ca_file: str | None = Field(
        None, description="Certificates (PEM) to trust instead of the system's, relative to the config's folder."
    )
    folder: str | None = Field(
        None,
        description="Write each message as an `.eml` file into this folder instead, relative to the config's folder.",
    )


class LogSettings(Section):
    """`[log]`: what is written to stdout."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to write.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: JSON lines, or readable ones when stdout is a terminal."
    )


class QueueSettings(Section):
    """`[queues.NAME]`: a queue that jobs may name."""

    concurrency: int | None = Field(
        None, ge=1, description="Most runs of the queue that one daemon executes at once. No limit when unset."
    )


class RetrySettings(Section):
    """`retry`: what happens after a failed attempt."""

    max_attempts: int = Field(
        DEFAULT_RETRY.max_attempts, ge=1, le=1000, description="Attempts in all; 1 means no retry."
    )
    backoff: Backoff = Field(DEFAULT_RETRY.backoff, description="How the wait grows from attempt to attempt.")
    delay: Duration = Field(DEFAULT_RETRY.delay, description="Wait before the second attempt.")
    max_delay: Duration = Field(DEFAULT_RETRY.max_delay, description="Longest wait.")
    jitter: float = Field(
        DEFAULT_RETRY.jitter, ge=0, le=1, description="Share of the wait that is added or taken away, from 0 to 1."
    )

    def policy(self) -> RetryPolicy:
        """Return the policy as the rooms know it."""
        return RetryPolicy(self.max_attempts, self.backoff, self.delay, self.max_delay, self.jitter)


class JobSettings(Section):
    """`[defaults]` and the part of `[jobs.NAME]` that every kind shares."""

    schedule: str | None = Field(
        None,
        description="When: cron (5 fields, 6 with seconds), `@daily`, `every 5m`, `every monday at 18:30`, "
        "`at 2027-01-01T00:00`. Without one the job runs only when triggered.",
    )
    timezone: str | None = Field(None, description="Time zone of the schedule; `daemon.timezone` when unset.")
    queue: str = Field("default", description="Queue, one of [queues.NAME] or `default`.")
    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first.")
    enabled: bool = Field(True, description="false: it never fires; it can still be triggered.")
    catch_up: CatchUp = Field(
        CatchUp.ONCE, description="Missed fire times: `once` runs the latest, `skip` none that is late, `all` each."
    )
    catch_up_max_runs: int = Field(100, ge=1, le=10_000, description='Most runs of `catch_up = "all"`.')
    catch_up_max_age: Positive = Field(timedelta(days=1), description="Oldest fire time that `all` runs.")
    overlap: Overlap = Field(
        Overlap.SKIP,
        description="When the last run is unfinished: `skip` the fire, `queue` one, or `allow` both at once.",
    )
    start_deadline: Positive | None = Field(
        None, description="A run that has not started so long after its fire time is `missed`. No limit when unset."
    )
    jitter: Duration = Field(timedelta(0), description="Random delay up to this, always the same for one fire time.")
    timeout: Positive | None = Field(
        DEFAULT_TIMEOUT, description="Longest attempt; its statements are then cancelled in the server."
    )
    retry: RetrySettings = Field(default_factory=RetrySettings, description="What happens after a failed attempt.")

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str | None) -> str | None:
        return None if value is None else checked_zone(value)

    def catch_up_policy(self) -> CatchUpPolicy:
        """Return the policy as the rooms know it."""
        return CatchUpPolicy(self.catch_up, self.catch_up_max_runs, self.catch_up_max_age)


class Settings(Section):
    """Everything but the jobs."""

    daemon: DaemonSettings = Field(default_factory=DaemonSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    databases: dict[str, DatabaseSection] = Field(default_factory=dict)
    mail: MailSection | None = Field(None, description="How jobs send mail.")
    log: LogSettings = Field(default_factory=LogSettings)
    queues: dict[str, QueueSettings] = Field(default_factory=dict)


def checked_zone(name: str) -> str:
    """Return the name of the time zone; raises ValueError."""
    try:
        zone_named(name)
    except ScheduleError as error:
        raise ValueError(str(error)) from error
    return name
