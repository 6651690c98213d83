"""Every section of the config as a typed model: default, bounds, unit and reason stand here and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, SecretStr, WithJsonSchema, field_validator

from batchd.config.alert_settings import AlertsSection, JobAlertsSection
from batchd.config.exports import ExportsSection
from batchd.config.section import Positive, Section
from batchd.domain.follow import ROOTS
from batchd.domain.job import DEFAULT_RETRY, DEFAULT_TIMEOUT, Backoff, CatchUp, CatchUpPolicy, Overlap, RetryPolicy
from batchd.domain.queue import QueueLimits, QueueOrder, QueueRules, Rate, parse_rate
from batchd.domain.schedule import ScheduleError, zone_named
from batchd.domain.surface import DEFAULT_RATE
from batchd.domain.template import places
from batchd.jobs.params import Duration
from batchd.mail.delivery import Security


def _rate(value: object) -> object:
    return value if isinstance(value, Rate) else parse_rate(str(value))


FinalState = Literal["succeeded", "failed", "cancelled", "skipped", "missed", "quarantined"]
QueueRate = Annotated[Rate, BeforeValidator(_rate), WithJsonSchema({"type": "string", "examples": ["100/1m", "5/s"]})]


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
    queue_order: QueueOrder = Field(
        QueueOrder.STRICT,
        description="Whose run is next: `strict` goes by the queues' `priority`, then the runs', then age; `weighted` "
        "draws among the queues by their `weight`, so that none of them ever starves.",
    )
    imports: list[str] = Field(
        [],
        alias="import",
        description="Modules to import at start; the functions in them that `@batchd.job` decorates become jobs, "
        "and those that `@batchd.on` decorates hear of events. "
        "`batchd run --import MODULE` adds to them.",
    )
    keep_for: Positive = Field(timedelta(days=90), description="How long finished runs are kept.")
    keep: dict[FinalState, Duration] = Field(
        default_factory=dict,
        description='How long runs that ended in a state are kept, instead of `keep_for`: {succeeded = "7d", '
        'failed = "90d"}.',
    )
    keep_runs: int = Field(10_000, ge=1, description="Most finished runs that are kept of each job.")
    keep_events: Positive = Field(timedelta(days=1), description="How long rows of the outbox are kept.")
    keep_unread_events: Positive = Field(
        timedelta(days=7), description="How long they are kept for a listener that has not had them yet."
    )

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
    wait_at_start: Positive = Field(
        timedelta(minutes=10),
        description="How long a start waits for a store that does not answer; then it ends with exit code 69.",
    )
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


class HttpSection(Section):
    """`[http]`: the HTTP surface; without the section there is none."""

    listen: str = Field(
        "127.0.0.1:8787",
        description='Where: `"HOST:PORT"`, `"unix:/PATH"` (mode 0660), or `"systemd"` for the socket that a `.socket` '
        "unit hands over. An address that other machines reach needs a token first (`batchd token create`).",
    )
    public_url: str | None = Field(
        None,
        description='How browsers reach it through a proxy: "https://batch.example.com". Its host is answered for, and '
        "alerts carry links to the pages of what they tell.",
    )
    hosts: list[str] = Field(
        [],
        description="Further hosts that requests may be addressed to. Always: localhost, 127.0.0.1, [::1], the host of "
        "`listen` and that of `public_url`.",
    )
    trusted_proxies: list[str] = Field(
        [],
        description="Addresses of proxies whose X-Forwarded-For is believed; `unix` for whoever comes by the socket.",
    )
    cron_secret: SecretStr | None = Field(
        None, min_length=16, description="What `/api/cron/JOB` wants as a bearer token, beside an operator's tokens."
    )
    cron_secret_file: str | None = Field(None, description="File that holds it, instead of `cron_secret`.")
    metrics: Literal["token", "open"] = Field(
        "token", description="`open`: /metrics answers everybody; it shows the names of jobs."
    )
    rate: QueueRate = Field(DEFAULT_RATE, description="Most requests of one address: at once, and in each period.")
    max_body: int = Field(65_536, ge=1024, le=16_777_216, description="Largest body of a request, in bytes.")
    max_listeners: int = Field(500, ge=1, le=10_000, description="Most browsers and programs that follow events.")
    session: Positive = Field(timedelta(hours=12), description="How long a browser stays signed in.")
    keep_audit: Positive = Field(timedelta(days=365), description="How long the audit record is kept.")


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
    max_running: int | None = Field(
        None, ge=1, description="Most runs of the queue that all daemons together execute at once. No limit when unset."
    )
    rate: QueueRate | None = Field(
        None, description='Most starts within any such period, in all daemons together: "100/1m", "5/s".'
    )
    max_running_per_key: int | None = Field(
        None, ge=1, description="Most runs of the queue at once, in all daemons, for each value of a job's `limit_key`."
    )
    rate_per_key: QueueRate | None = Field(None, description="`rate` for each value of a job's `limit_key`.")
    priority: int = Field(
        0,
        ge=-1000,
        le=1000,
        description='With `queue_order = "strict"`: runs of a queue with a higher one go first, whatever their own.',
    )
    weight: int = Field(
        1, ge=1, le=1000, description='With `queue_order = "weighted"`: the queue\'s share beside the other queues.'
    )

    def rules(self) -> QueueRules:
        """Return what holds for the queue in all daemons together, as the rooms know it."""
        return QueueRules(
            self.priority, self.weight, self.max_running, self.rate, self.max_running_per_key, self.rate_per_key
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


class ThenSettings(Section):
    """`then`: the job of which a run is queued when a run of this one succeeds."""

    job: str = Field(description="The job.")
    params: dict[str, JsonValue] | None = Field(
        None,
        description="Its parameters, with places: `{result.path}`, `{run_id}`, `{job}`. When unset: each value of the "
        "result whose name is a parameter that the job does not set itself.",
    )
    delay: Duration = Field(timedelta(0), description="How long the run waits before it may be claimed.")

    @field_validator("params")
    @classmethod
    def _has_places(cls, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        unknown = sorted(place for place in places(value) if place.partition(".")[0] not in ROOTS) if value else []
        if unknown:
            raise ValueError(f"has a place {{{unknown[0]}}}; there are: {{result.NAME}}, {{run_id}}, {{job}}")
        return value


def _then(value: Any) -> Any:
    """Let `then = "job"` stand for `then = { job = "job" }`."""
    return {"job": value} if isinstance(value, str) else value


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
    mutex: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Of all runs with this mutex, of whatever job, one runs at a time; the others wait for it.",
    )
    limit_key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What the queue's limits per key go by: a text with parameters in braces, "
        '"{table}" or "{arguments.customer}".',
    )
    keep_for: dict[FinalState, Duration] = Field(
        default_factory=dict, description="How long this job's runs are kept, by state, instead of the daemon's rule."
    )
    remove_on_success: bool = Field(
        False,
        description="true: runs that succeeded go when retention next looks (every 10 minutes), but for the newest. "
        'The same as `keep_for = {succeeded = "0s"}`.',
    )
    then: Annotated[ThenSettings, BeforeValidator(_then, json_schema_input_type=str | ThenSettings)] | None = Field(
        None, description='What is queued when a run succeeds: `"other-job"`, or a table, see below.'
    )

    alerts: JobAlertsSection | None = Field(
        None, description="What of this job is told to whom, instead of `[alerts]`: a table, see below."
    )

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str | None) -> str | None:
        return None if value is None else checked_zone(value)

    def kept_seconds(self) -> dict[str, float] | None:
        """Return `keep_for` with `remove_on_success` in it, in seconds; None when both are unset."""
        kept = {str(state): age.total_seconds() for state, age in self.keep_for.items()}
        return (kept | {"succeeded": 0.0} if self.remove_on_success else kept) or None

    def catch_up_policy(self) -> CatchUpPolicy:
        """Return the policy as the rooms know it."""
        return CatchUpPolicy(self.catch_up, self.catch_up_max_runs, self.catch_up_max_age)


class Settings(Section):
    """Everything but the jobs."""

    daemon: DaemonSettings = Field(default_factory=DaemonSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    databases: dict[str, DatabaseSection] = Field(default_factory=dict)
    mail: MailSection | None = Field(None, description="How jobs send mail.")
    http: HttpSection | None = Field(None, description="The HTTP surface.")
    exports: ExportsSection | None = Field(None, description="What may be exported over HTTP.")
    log: LogSettings = Field(default_factory=LogSettings)
    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    alerts: AlertsSection = Field(default_factory=AlertsSection)

    def queue_limits(self) -> QueueLimits:
        """Return what holds the runs of each queue back."""
        return QueueLimits(
            {name: queue.rules() for name, queue in self.queues.items()},
            {name: queue.concurrency for name, queue in self.queues.items() if queue.concurrency is not None},
        )

    @field_validator("queues")
    @classmethod
    def _can_be_told_from_a_key(cls, value: dict[str, QueueSettings]) -> dict[str, QueueSettings]:
        if any("/" in name for name in value):
            raise ValueError("the name of a queue must not contain a /")
        return value


def checked_zone(name: str) -> str:
    """Return the name of the time zone; raises ValueError."""
    try:
        zone_named(name)
    except ScheduleError as error:
        raise ValueError(str(error)) from error
    return name
