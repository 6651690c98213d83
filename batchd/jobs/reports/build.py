"""Makes a report: asks, compares, draws, renders. Sends nothing and writes nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from batchd.domain.job import JsonObject
from batchd.jobs.period import uses_period
from batchd.jobs.reports.attachments import attachment_of
from batchd.jobs.reports.blocks import block_of, figures_of
from batchd.jobs.reports.charts import drawn
from batchd.jobs.reports.content import Answer, Block, Chart, Figures, Report
from batchd.jobs.reports.daily import daily_blocks, daily_summary
from batchd.jobs.reports.formats import Formats, humanised
from batchd.jobs.reports.params import ReportParams
from batchd.jobs.reports.queries import Bounds, Question, ask
from batchd.jobs.reports.source import ReportSource
from batchd.jobs.reports.text import report_text
from batchd.jobs.templating import Templates, text_of
from batchd.mail.headers import one_line
from batchd.mail.message import Attachment, Image
from batchd.store.digest import Digest

_ALERT = "alert_if"
_DEFAULT_TEMPLATE = "batchd/report.html"
_SUBJECTS = {True: "{{ title }}: {{ summary }}", False: "{{ title }}, {{ date }}"}
_MARK = "[ALERT] "


@dataclass(frozen=True, slots=True)
class Built:
    """A report, ready to go. `baseline` is what the next run compares with."""

    subject: str
    html: str
    text: str
    images: tuple[Image, ...]
    attachments: tuple[Attachment, ...]
    until: datetime
    baseline: JsonObject
    facts: JsonObject
    alert: str | None
    has_rows: bool
    has_changed: bool


def build_report(params: ReportParams, context: ReportSource) -> Built:
    """Return the report of this run; raises JobError for a query, a template or a chart that does not work."""
    bounds = bounds_of(params, context.scheduled_for or context.now())
    formats = Formats(params.numbers, ZoneInfo(params.display_timezone))
    previous = context.previous_result or {}
    before = previous.get("baseline")
    before = before if isinstance(before, Mapping) else {}
    answers = ask(context, questions_of(params), bounds)
    alert = _alert(params, answers.pop(_ALERT, None))
    digest = context.digest(bounds.since, bounds.until) if params.ready == "daily" else None
    blocks = _blocks(params, answers, digest, formats, before)
    charts, images = drawn(context, [block for block in blocks if isinstance(block, Chart)])
    pictured = {chart.name: chart for chart in charts}
    blocks = tuple(pictured.get(block.name, block) if isinstance(block, Chart) else block for block in blocks)
    attachments = tuple(
        attachment_of(answers[name], query.attach, formats.zone)
        for name, query in params.queries.items()
        if query.attach is not None
    )
    report = Report(
        title=params.title or ("batchd daily" if params.ready else humanised(context.job.replace("-", " "))),
        subtitle=_subtitle(params, bounds, formats),
        blocks=blocks,
        summary=daily_summary(digest) if digest is not None else _summary(blocks),
        alert=alert,
        footer=("Sent by batchd", f"job {context.job}", f"run {context.run_id}"),
        attachments=tuple(attachment.filename for attachment in attachments),
    )
    values = _values(params, context, report, answers, bounds, formats)
    fingerprint = _fingerprint(answers, digest, alert)
    html, text = _rendered(params, report, values)
    return Built(
        subject=_subject(params, values, alert),
        html=html,
        text=text,
        images=images,
        attachments=attachments,
        until=bounds.until,
        baseline={
            "figures": dict(figures_of(answers, {name: query.view() for name, query in params.queries.items()})),
            "fingerprint": fingerprint,
        },
        facts={
            "rows": {name: len(answer.rows) for name, answer in answers.items()},
            "charts": len(charts),
            "pictures": len(images),
            "attachments": [attachment.filename for attachment in attachments],
            "html_bytes": len(html.encode()),
            "alert": alert,
        },
        alert=alert,
        has_rows=any(answer.rows for answer in answers.values()) or bool(digest and digest.totals.states),
        has_changed=before.get("fingerprint") != fingerprint,
    )


def questions_of(params: ReportParams) -> list[Question]:
    """Return every query of the report, its alert's condition among them."""
    questions = [
        Question(name, query.database or params.database or "", query.sql) for name, query in params.queries.items()
    ]
    if params.alert_if is not None:
        condition = f"SELECT CASE WHEN ({params.alert_if}\n) THEN 1 ELSE 0 END AS alert"
        questions.append(Question(_ALERT, params.database or "", condition))
    return questions


def bounds_of(params: ReportParams, until: datetime) -> Bounds:
    """Return the bounds of every query of a run whose nominal time is `until`."""
    return Bounds(params.query_timeout, params.max_rows, until - params.period, until)


def _alert(params: ReportParams, answer: Answer | None) -> str | None:
    if answer is None or not answer.value:
        return None
    return one_line(params.alert_text or f"The condition of this report's alert is met: {params.alert_if}")


def _blocks(
    params: ReportParams,
    answers: Mapping[str, Answer],
    digest: Digest | None,
    formats: Formats,
    before: Mapping[str, Any],
) -> tuple[Block, ...]:
    figures = before.get("figures")
    earlier = figures if isinstance(figures, Mapping) else {}
    own = [block_of(answer, params.queries[name].view(), formats, earlier) for name, answer in answers.items()]
    ready = daily_blocks(digest, formats) if digest is not None else ()
    return (*ready, *(block for block in own if block is not None))


def _subtitle(params: ReportParams, bounds: Bounds, formats: Formats) -> str:
    zone = params.display_timezone
    if params.ready or any(uses_period(query.sql) for query in params.queries.values()):
        return f"{_minute(bounds.since, formats)} to {_minute(bounds.until, formats)} ({zone})"
    return f"{_minute(bounds.until, formats)} ({zone})"


def _minute(at: datetime, formats: Formats) -> str:
    return at.astimezone(formats.zone).strftime("%Y-%m-%d %H:%M")


def _summary(blocks: tuple[Block, ...]) -> str:
    """Return the first headline figures in one line."""
    for block in blocks:
        if isinstance(block, Figures):
            return ", ".join(f"{figure.label} {figure.text}" for figure in block.figures[:3])
    return ""


def _values(
    params: ReportParams,
    context: ReportSource,
    report: Report,
    answers: Mapping[str, Answer],
    bounds: Bounds,
    formats: Formats,
) -> dict[str, Any]:
    return {
        "report": report,
        "title": report.title,
        "summary": report.summary,
        "alert": report.alert,
        "queries": dict(answers),
        "job": context.job,
        "run_id": context.run_id,
        "since": bounds.since.astimezone(formats.zone),
        "until": bounds.until.astimezone(formats.zone),
        "date": bounds.until.astimezone(formats.zone).date().isoformat(),
        "number": formats.number,
        "cell": formats.cell,
        "timezone": params.display_timezone,
    }


def _rendered(params: ReportParams, report: Report, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the HTML and the text."""
    templates = Templates(params.templates)
    if params.templates is None:
        return templates.render(_DEFAULT_TEMPLATE, values), report_text(report)
    html = templates.render(params.template, values)
    beside = params.template.removesuffix(".j2").removesuffix(".html") + ".txt"
    own = next((name for name in (beside, f"{beside}.j2") if templates.has(name)), None)
    return html, templates.render(own, values) if own else text_of(html)


def _subject(params: ReportParams, values: Mapping[str, Any], alert: str | None) -> str:
    source = params.subject or _SUBJECTS[params.ready is not None]
    subject = one_line(Templates(None).fill("subject", source, values))
    return one_line(_MARK + subject) if alert else subject


def _fingerprint(answers: Mapping[str, Answer], digest: Digest | None, alert: str | None) -> str:
    """Return a short mark that differs when any answer does."""
    facts: list[Any] = [(name, answer.columns, answer.rows) for name, answer in answers.items()]
    if digest is not None:
        facts.append([sorted(digest.totals.states.items()), sorted(digest.broken)])
    facts.append(alert)
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]


def with_inline_images(built: Built) -> str:
    """Return the HTML as a file that a browser shows by itself."""
    html = built.html
    for image in built.images:
        data = base64.b64encode(image.png).decode("ascii")
        html = html.replace(f'"cid:{image.name}"', f'"data:image/png;base64,{data}"')
    return html
