"""The closed list of events: every `event` that a log line can have, with its sentence for people and its meaning.

A test compares this list with the source and with docs/events.md. Placeholders are the event's own fields.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any


@dataclass(frozen=True, slots=True)
class EventSpec:
    """`message` becomes `msg`; `meaning` is for the documentation."""

    message: str
    meaning: str


EVENTS: Mapping[str, EventSpec] = {
    "alert.dropped": EventSpec("{alerts} alerts for {channel} given up: {reason}", "After `keep_trying`."),
    "alert.failed": EventSpec(
        "channel {channel} failed (time {failures}): {reason}", "It rests and tries again; nothing else waits for it."
    ),
    "alert.recovered": EventSpec("channel {channel} works again after {failures} failures", "The end of alert.failed."),
    "alert.sent": EventSpec("told {channel} of {alerts} things: {answer}", "One message of a channel of alerts."),
    "cleanup.chunk_retried": EventSpec("chunk of {table} waited for a lock", "A chunk of a cleanup is tried again."),
    "cleanup.index_missing": EventSpec("no index on {table} serves {column}", "The cleanup reads more than it must."),
    "command.left_behind": EventSpec(
        "ended {processes} processes that the command left running", "Whatever a command starts ends with it."
    ),
    "command.output": EventSpec("{line}", "A line that a command wrote; `stream` says where to."),
    "command.output_cut": EventSpec(
        "of {lines} lines of output the first are logged", "The run's result has the last ones."
    ),
    "config.needs_restart": EventSpec(
        "of the changed config {keys} takes effect at the next start", "All else of it is taken over."
    ),
    "config.rejected": EventSpec(
        "the changed config is refused, the old one holds: {reason}", "Asked for by a SIGHUP or `batchd reload`."
    ),
    "config.reloaded": EventSpec(
        "added: {added}; changed: {changed}; removed: {removed}; settings: {settings}", "A changed config holds."
    ),
    "config.warning": EventSpec("{problem}", "The config works, but somebody should look at this."),
    "control.broken_off": EventSpec("whoever asked has gone: {reason}", "What was asked for is done all the same."),
    "control.denied": EventSpec("somebody without the right asked", "Over the control socket."),
    "control.unavailable": EventSpec(
        "no control socket: {reason}", "`batchd reload` cannot ask; SIGHUP does the same."
    ),
    "csv_import.file_failed": EventSpec("{file} failed: {reason}", "A bad file; the run goes on with the next."),
    "csv_import.files_left": EventSpec("{files} files of {path} are left for later", "Not settled yet, or too many."),
    "csv_import.format": EventSpec(
        "{file} is {encoding}, delimiter {delimiter}", "How a file is written; `detected` was not told but seen."
    ),
    "csv_import.imported": EventSpec("{file} is imported, {rejected} records rejected", "The end of one file."),
    "csv_import.resumed": EventSpec("{file} goes on from line {line}", "An earlier attempt came so far."),
    "database.closed": EventSpec("{database} is closed", "It left the config, and nobody uses it any more."),
    "dump.run": EventSpec("run {run_id} of {job} is busy for {busy_s} s", "In hand when SIGUSR1 came."),
    "dump.thread": EventSpec("thread {thread}", "With its `stack`, when SIGUSR1 came."),
    "fan_out.completed": EventSpec(
        "all children of run {run_id} are final: {children}", "Its counts are in its result; `on_complete` is queued."
    ),
    "finish.delayed": EventSpec("{runs} endings wait for the store", "They are written when it is back."),
    "health.checked": EventSpec("{database} is {state}", "One database was checked."),
    "health.degraded": EventSpec("{database}: {check} is {state}", "A check crossed a threshold."),
    "health.recovered": EventSpec("{database} is well again", "After failed checks, the first good one."),
    "history.pruned": EventSpec("removed {runs} old runs", "Retention removed a chunk of batchd's own history."),
    "exports.pruned": EventSpec("{files} old files of exports are gone", "After `[exports] keep_for`."),
    "http.denials_ended": EventSpec(
        "refused {requests} requests from {address}: {reason}", "None has come for a minute; there were more than told."
    ),
    "http.denied": EventSpec(
        "refused: {reason}",
        "Requests without the right: the first of an `address`, then ever more rarely with how many `requests`. "
        "`route` is what the last one asked for.",
    ),
    "http.hangs": EventSpec(
        "the HTTP server (pid {pid}) has not moved for half a minute and is killed", "Another one starts: `http.died`."
    ),
    "http.died": EventSpec(
        "the HTTP server ended (status {status}); it starts again in {again_in_s} s", "Runs are not touched by it."
    ),
    "http.failed": EventSpec(
        "an answer failed",
        "With `route` and the `status` that the client got: the first, then ever more rarely with how many `requests`.",
    ),
    "http.failures_ended": EventSpec(
        "{requests} answers of {route} have failed ({status}, {reason})",
        "None has for a minute; there were more than told.",
    ),
    "http.listening": EventSpec("HTTP on {listen}", "The HTTP surface answers."),
    "http.not_reloaded": EventSpec("the HTTP server keeps its config: {reason}", "The file cannot be read as one."),
    "http.not_started": EventSpec(
        "no other HTTP server can be started: {reason}; again in {again_in_s} s",
        "The system has no memory or no descriptors left. Runs are not touched by it.",
    ),
    "http.reloaded": EventSpec("the HTTP server has the config as it is now", "After a reload."),
    "http.request_retried": EventSpec("{url}: {reason}; asking again in {pause_s} s", "Try {tries} of a call."),
    "incident.closed": EventSpec(
        "incident {incident} ({key}) is over: {summary}", "Whoever was told of it is told so."
    ),
    "incident.opened": EventSpec("incident {incident} ({key}): {summary}", "A rule of `[alerts]` sees it; see docs."),
    "lease.lost": EventSpec("run {run_id} is no longer ours", "The attempt stops without writing anything."),
    "lease.renewal_failed": EventSpec("leases of {runs} runs not renewed: {reason}", "Tried again every second."),
    "library.message": EventSpec("{logger}: {text}", "A line of another library's logging."),
    "listener.events_lost": EventSpec(
        "{events} events went before listener {listener} had them", "They were older than `keep_unread_events`."
    ),
    "listener.failed": EventSpec(
        "listener {listener} failed with event {event_id} (time {failures})",
        "It is called again with the same event; its later ones wait.",
    ),
    "listener.gave_up": EventSpec(
        "listener {listener} leaves event {event_id} out after {tries} tries", "By its `give_up_after`."
    ),
    "listener.recovered": EventSpec("listener {listener} goes on with event {event_id}", "The end of listener.failed."),
    "log_lines.dropped": EventSpec("{lines} log lines of runs were not stored", "The store was away for too long."),
    "loop.failed": EventSpec("loop {loop} failed (time {failures})", "It backs off and goes on."),
    "loop.recovered": EventSpec("loop {loop} works again after {failures} failures", "The end of loop.failed."),
    "mail.in_doubt": EventSpec(
        "an earlier attempt may have sent this mail",
        "It died while it sent; the mail goes again, with the same Message-ID.",
    ),
    "mail.record_delayed": EventSpec(
        "the record of a sent mail waits: {reason}", "Tried again until the store is back."
    ),
    "mail.retried": EventSpec("mail not sent (try {try_number}): {reason}", "Tried again within the same attempt."),
    "mail.sent": EventSpec("mail accepted for {recipients} recipients", "With the server's receipt."),
    "process.ended": EventSpec("process {process} ended: {reason}", "A process for isolated runs; with runs and RSS."),
    "process.output": EventSpec("{text}", "A line that an isolated run printed."),
    "process.started": EventSpec(
        "process {process} started", "One for isolated runs; it serves one run after another."
    ),
    "report.alert": EventSpec("alert: {alert}", "The condition of a report's `alert_if` is true."),
    "report.charts_failed": EventSpec("no pictures: {reason}", "The report shows its charts as HTML bars."),
    "report.large": EventSpec("the HTML has {bytes} bytes", "Gmail shows the first 102 kB; show fewer rows."),
    "report.not_sent": EventSpec("not sent: {reason}", "By the report's `when`."),
    "run.cancel_requested": EventSpec("run {run_id} is to be cancelled", "Somebody asked; the attempt is told."),
    "run.cancelled": EventSpec("cancelled after {duration_s} s", "Final."),
    "run.discarded": EventSpec("discarded by the job itself: {error[message]}", "Final: it raised Discard."),
    "run.failed": EventSpec(
        "failed after {duration_s} s: {error[message]}", "Final: no attempt is left, or none could help."
    ),
    "run.finished": EventSpec("succeeded after {duration_s} s", "Final."),
    "run.lost": EventSpec(
        "took back runs {runs}",
        "Their workers fell silent; they go on from their checkpoints. Those that were only reported have failed.",
    ),
    "run.quarantined": EventSpec("not understood, kept for a person: {error[message]}", "Final until `batchd retry`."),
    "run.released": EventSpec("given back, no attempt used up", "A stop, or a claim that no thread took up in time."),
    "run.retrying": EventSpec(
        "failed, next attempt in {retry_in_s} s: {error[message]}", "The attempt failed; the run is queued again."
    ),
    "run.snoozed": EventSpec(
        "put off by the job itself for {again_in_s} s: {error[message]}", "It raised Snooze; no attempt used up."
    ),
    "run.started": EventSpec("started, {lag_s} s after its time", "An attempt begins."),
    "run.stuck": EventSpec("run {run_id} does not stop", "Its thread keeps going; its lease is kept meanwhile."),
    "run.then_failed": EventSpec(
        "what should follow could not be queued: {reason}",
        "The run has succeeded; its `then` names a job that is gone.",
    ),
    "run.timed_out": EventSpec("run {run_id} took too long", "Its statements are cancelled."),
    "schedule.invalid": EventSpec("schedule {job} cannot be planned", "It stays, with the reason in its row."),
    "schedule.missed": EventSpec("{fires} fire times were missed", "Accounted for in `missed` rows."),
    "scheduler.clock_stepped": EventSpec("the clock went back {back_seconds} s", "No fire time is served twice."),
    "scheduler.pass_failed": EventSpec("planning failed (time {failures})", "Nothing is lost; it is tried again."),
    "scheduler.planned": EventSpec("queued {queued} runs", "One planning transaction."),
    "scheduler.recovered": EventSpec("planning works again", "The end of scheduler.pass_failed."),
    "schedules.reconciled": EventSpec(
        "{added} added, {changed} changed, {removed} removed, {unchanged} as before", "The config became rows."
    ),
    "service.claiming_again": EventSpec("claims runs again", "A second SIGUSR2."),
    "service.draining": EventSpec("stopping; runs still at work: {runs}", "No more planning or claiming."),
    "service.failed": EventSpec("cannot go on: {reason}", "The process ends with `exit_code`."),
    "service.quiet": EventSpec("claims no more runs", "SIGUSR2; what runs goes on, a second one ends it."),
    "service.ready": EventSpec("ready with {jobs} jobs", "Planning and executing."),
    "service.starting": EventSpec("starting on {store}", "The config is right."),
    "service.stop_forced": EventSpec(
        "the store hangs; stopping all the same", "What ran is given back when its lease ends, or at the next start."
    ),
    "service.stopped": EventSpec("stopped", "The process ends with `exit_code`."),
    "service.stopping_now": EventSpec(
        "stopping at once on a second {signal}", "Runs are given back at the next start."
    ),
    "signal.received": EventSpec("received {signal}", "From outside."),
    "sql.resumed": EventSpec(
        "goes on after {statements} statements", "An earlier attempt of the run has committed those."
    ),
    "store.migrated": EventSpec("the store's tables are up to date now", "They were made or upgraded."),
    "store.newer": EventSpec(
        "a newer batchd has changed the store: its tables are of version {found}, this daemon knows {known}",
        "Once. It works on, but would not start again: restart it with the newer batchd.",
    ),
    "store.recovered": EventSpec("the store is back after {outage_s} s", "The end of store.unavailable."),
    "store.unavailable": EventSpec("the store does not answer: {reason}", "Jobs stop when their lease is not sure."),
    "store.waiting": EventSpec("waiting for the store: {reason}", "At start."),
    "sync.duplicates": EventSpec("{duplicates} records have the key of another", "Of each key the last record counts."),
    "sync.fetched_anew": EventSpec("what was fetched is fetched again: {reason}", "An attempt could not go on."),
    "sync.missing_kept": EventSpec(
        "no row of {table} counts as missing", "Records were rejected without a key; any row might be theirs."
    ),
    "sync.request_retried": EventSpec("{url}: {reason}; asking again in {pause_s} s", "Try {tries} of a request."),
    "target.invalid": EventSpec(
        "job {job}: {reason}", "A team's own function cannot be called; the job's runs fail until that is mended."
    ),
    "walk.index_missing": EventSpec("no index serves the order of {rows} by {key}", "Each batch reads too much."),
    "watchdog.late": EventSpec(
        "the scheduling loop gave no sign of life for {age_s} s", "At `limit_s` systemd would have killed the daemon."
    ),
    "watchdog.withheld": EventSpec(
        "systemd gets no sign of life: {reason}", "It will kill the daemon, with all stacks in the journal."
    ),
    "worker.dead_found": EventSpec("took back what dead workers left: {runs}", "Proved by pid, or by SQLite's lock."),
    "worker.registered": EventSpec("worker {worker} with {slots} threads", "This daemon's row in batchd_workers."),
}


def message_of(event: str, fields: Mapping[str, Any]) -> str:
    """Return the event's sentence with its fields filled in; the event itself where the list has none."""
    if event not in EVENTS:
        return event
    return "".join([text + _shown(path, fields) if path else text for text, path in _parts_of(event)])


@functools.cache
def _parts_of(event: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the sentence as pairs: a text, and the path of the field that follows it."""
    parsed = _FORMATTER.parse(EVENTS[event].message)
    return tuple((text, tuple(name.replace("]", "").split("[")) if name else ()) for text, name, _, _ in parsed)


def _shown(path: tuple[str, ...], fields: Mapping[str, Any]) -> str:
    value: Any = fields
    for name in path:
        try:
            value = value[name]
        except (KeyError, IndexError, TypeError):
            return "?"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


_FORMATTER = Formatter()


def fields_in_message(event: str) -> frozenset[str]:
    """Return the names of the fields that the event's sentence already tells."""
    spec = EVENTS.get(event)
    parts = _FORMATTER.parse("" if spec is None else spec.message)
    return frozenset(name.partition("[")[0] for _, name, _, _ in parts if name)


def events_markdown() -> str:
    """Return the table of docs/events.md."""
    rows = [f"| `{name}` | {spec.message} | {spec.meaning} |" for name, spec in sorted(EVENTS.items())]
    return "\n".join(["| event | msg | meaning |", "|---|---|---|", *rows]) + "\n"
