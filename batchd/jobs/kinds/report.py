"""report: named queries, or what batchd itself did, as a mail or a file that is a pleasure to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from batchd.clock import SystemClock
from batchd.db.engine import Database
from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind
from batchd.jobs.looks import Look
from batchd.jobs.mailing import Mailing, address_problems, composed, mail_settings, mailboxes
from batchd.jobs.reports.attachments import can_write_xlsx
from batchd.jobs.reports.build import Built, bounds_of, build_report, questions_of
from batchd.jobs.reports.files import save_report
from batchd.jobs.reports.params import ReportParams
from batchd.jobs.reports.queries import complaint_of, look_at_question
from batchd.jobs.reports.source import ReportSource
from batchd.jobs.templating import Templates
from batchd.mail.message import Letter, Parcel, list_id, message_id

_CLIPPED_AT_BYTES = 102 * 1024
"""Where Gmail cuts a message off, behind a link."""


def run(params: ReportParams, context: JobContext) -> JsonObject:
    """Make the report and send it, unless there is no reason to; return what it said and who has it."""
    mailing = Mailing(context) if params.sends_mail and not params.dry_run else None
    if mailing is not None and mailing.earlier is not None:
        return _ended(params, mailing.earlier)
    built = build_report(params, context)
    parcel = composed(_letter(params, context, built)) if params.sends_mail and context.mail is not None else None
    if params.dry_run:
        previous = context.previous_result or {}
        return {**built.facts, "subject": built.subject, "dry_run": True, "baseline": previous.get("baseline")}
    if len(built.html.encode()) > _CLIPPED_AT_BYTES:
        context.log.warning("report.large", bytes=len(built.html.encode()))
    reason = _reason_not_to_send(params, built)
    result: JsonObject = {**built.facts, "subject": built.subject, "sent": reason is None, "baseline": built.baseline}
    if reason is not None:
        context.log.info("report.not_sent", reason=reason)
        return {**result, "reason": reason}
    if built.alert:
        context.log.warning("report.alert", alert=built.alert)
    context.raise_if_stopping()
    if params.save_to is not None:
        result["file"] = str(save_report(built, params.save_to, context.job, context.run_id))
    if mailing is not None and parcel is not None:
        result = mailing.post(parcel, result)
    # Only now: an attempt that starts anew would have to take back what it said before.
    context.progress(len(params.queries), len(params.queries))
    return _ended(params, result)


def _ended(params: ReportParams, result: JsonObject) -> JsonObject:
    """Return the result; raises JobError when the report's alert is to fail the run."""
    alert = result.get("alert")
    if alert and params.on_alert == "fail":
        raise JobError(f"the report is out, and its alert is on: {alert}", retryable=False, result=result)
    return result


def _reason_not_to_send(params: ReportParams, built: Built) -> str | None:
    if built.alert or params.when == "always":
        return None
    if params.when == "rows":
        return None if built.has_rows else "no query has rows"
    return None if built.has_changed else "nothing has changed since the last report"


def _letter(params: ReportParams, context: ReportSource, built: Built) -> Letter:
    sender = mail_settings(context.job, context.mail).sender
    return Letter(
        sender=sender,
        to=mailboxes("to", params.to),
        cc=mailboxes("cc", params.cc),
        bcc=mailboxes("bcc", params.bcc),
        reply_to=mailboxes("reply_to", params.reply_to),
        subject=built.subject,
        text=built.text,
        html=built.html,
        images=built.images,
        attachments=built.attachments,
        message_id=message_id(context.store_id, context.run_id, sender.domain),
        date=context.now(),
        list_id=list_id(context.job, sender.domain),
    )


def preview_parcel(params: ReportParams, context: ReportSource, built: Built) -> Parcel:
    """Return the message as it would go."""
    return composed(_letter(params, context, built))


def _check(params: ReportParams) -> Sequence[tuple[str, str]]:
    found = [
        problem for key in ("to", "cc", "bcc", "reply_to") for problem in address_problems(key, getattr(params, key))
    ]
    for name, query in params.queries.items():
        if query.attach == "xlsx" and not can_write_xlsx():
            found.append((f"queries.{name}.attach", "needs XlsxWriter: pip install 'batchd[xlsx]'"))
    if params.templates is not None and not _has_template(params.templates, params.template):
        found.append(("template", f"there is no {params.template} in {params.templates}"))
    return found


def _has_template(folder: Path, name: str) -> bool:
    return folder.is_dir() and Templates(folder).has(name)


def _check_connected(params: ReportParams, databases: Mapping[str, Database]) -> Sequence[tuple[str, str]]:
    """Have each query planned by its database."""
    bounds = bounds_of(params, SystemClock().now())
    found = []
    for question in questions_of(params):
        database = databases.get(question.database)
        complaint = None if database is None else complaint_of(database, question, bounds)
        if complaint is not None:
            found.append((f"queries.{question.name}" if question.name in params.queries else "alert_if", complaint))
    return found


def _look(params: ReportParams, databases: Mapping[str, Database], now: datetime) -> Look:
    bounds = bounds_of(params, now)
    looked = [
        look_at_question(databases[question.database], question, bounds)
        for question in questions_of(params)
        if question.database in databases
    ]
    facts = [("to", ", ".join(map(str, params.to)) or "nobody"), ("file", str(params.save_to or "none"))]
    return Look(
        tuple(looked), (*facts, ("period", f"{bounds.since:%Y-%m-%d %H:%M}Z to {bounds.until:%Y-%m-%d %H:%M}Z"))
    )


def _databases(params: ReportParams) -> Sequence[str]:
    return tuple(dict.fromkeys(question.database for question in questions_of(params)))


KIND = Kind(
    name="report",
    summary="Mails or writes a report: headline figures, tables, charts and attachments from SQL, or batchd's own day.",
    params=ReportParams,
    run=run,
    example="""\
[jobs.shop-report]
kind = "report"
schedule = "every day at 07:00"
database = "app"
save_to = "reports/shop.html"
# to = ["Team <team@example.com>"]      # needs a [mail]
subject = "Shop, {{ date }}"
alert_if = "(SELECT count(*) FROM orders WHERE created_at >= :since) = 0"

[jobs.shop-report.queries.orders]
sql = "SELECT count(*) AS orders, sum(total) AS revenue FROM orders WHERE created_at >= :since AND created_at < :until"
unit = { revenue = "€" }

[jobs.shop-report.queries.per_day]
title = "Orders per day"
show = "bar"
sql = "SELECT date(created_at) AS day, count(*) AS orders FROM orders GROUP BY 1 ORDER BY 1"

[jobs.shop-report.queries.best_customers]
sql = "SELECT customer, sum(total) AS revenue FROM orders GROUP BY customer ORDER BY revenue DESC"
rows = 10
attach = "csv"
""",
    databases=_databases,
    defaults={"timeout": "15m"},
    check=_check,
    needs_mail=lambda params: params.sends_mail,
    check_connected=_check_connected,
    look=_look,
)
