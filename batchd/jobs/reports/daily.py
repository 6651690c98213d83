"""The ready report "daily": batchd about itself, with no SQL at all. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchd.domain.run import RunState
from batchd.jobs.reports.blocks import chart_of
from batchd.jobs.reports.content import Block, Figure, Figures, Sense, Series, TableBlock, table_of
from batchd.jobs.reports.formats import Formats, duration, humanised
from batchd.store.digest import Digest, Totals

_MOST_JOBS = 10
_GOOD, _BAD = "#10b981", "#ef4444"


def daily_blocks(digest: Digest, formats: Formats) -> tuple[Block, ...]:
    """Return the blocks: headline figures, what needs somebody, the course of the day, the slowest jobs, the rows."""
    blocks: list[Block] = [_headline(digest, formats), _failures(digest, formats)]
    attention = _attention(digest)
    blocks += [attention] if attention is not None else []
    blocks += [_course(digest, formats)] if digest.totals.runs else []
    blocks.append(_slowest(digest, formats))
    rows = _rows(digest, formats)
    blocks += [rows] if rows is not None else []
    return tuple(blocks)


def daily_summary(digest: Digest) -> str:
    """Return the digest in one short line: what a subject says."""
    totals = digest.totals
    missed, broken = totals.states.get(RunState.MISSED.value, 0), len(digest.broken)
    bad = [f"{totals.failed:,} of {totals.runs:,} runs failed"] if totals.failed else []
    bad += [f"{missed:,} missed"] if missed else []
    bad += [f"{broken:,} {'job' if broken == 1 else 'jobs'} cannot be planned"] if broken else []
    if bad:
        return ", ".join(bad)
    return f"all well, {totals.runs:,} runs" if totals.runs else "nothing ran"


def rows_synced(totals: Totals) -> int:
    """Return how many rows the syncs added, changed and removed."""
    return sum(totals.counted.get("sync", {}).values())


def rows_cleaned(totals: Totals) -> int:
    """Return how many rows the cleanups deleted."""
    return sum(totals.counted.get("cleanup", {}).values())


def _headline(digest: Digest, formats: Formats) -> Figures:
    now, before = digest.totals, digest.before
    missed = RunState.MISSED.value
    facts = (
        ("Runs", now.runs, before.runs, "neutral", ""),
        ("Failed", now.failed, before.failed, "down", ""),
        ("Missed", now.states.get(missed, 0), before.states.get(missed, 0), "down", ""),
        ("Rows cleaned", rows_cleaned(now), rows_cleaned(before), "neutral", ""),
        ("Rows synced", rows_synced(now), rows_synced(before), "neutral", ""),
        ("Busy", now.busy.total_seconds(), before.busy.total_seconds(), "neutral", "seconds"),
    )
    has_before = bool(before.states)
    figures = tuple(
        Figure(
            label,
            formats.number(value, unit),
            formats.change(value, was, good, unit) if has_before else None,
            Sense.BAD if good == "down" and value else Sense.NEUTRAL,
        )
        for label, value, was, good, unit in facts
    )
    return Figures("", figures)


def _failures(digest: Digest, formats: Formats) -> TableBlock:
    rows = tuple(
        (f"#{run.run_id}", run.job, _short(run.finished_at, formats), run.error or "it said nothing")
        for run in digest.failures
    )
    return table_of(
        "Failed runs",
        [(name, False) for name in ("Run", "Job", "Ended", "Error")],
        rows,
        left_out=max(0, digest.totals.failed - len(rows)),
        empty="No run failed." if digest.totals.runs else "No run ended in this time.",
        is_empty_good=bool(digest.totals.runs),
    )


def _attention(digest: Digest) -> TableBlock | None:
    rows = [(job, f"cannot be planned: {why}") for job, why in digest.broken.items()]
    rows += [(job, "paused") for job in digest.paused]
    if not rows:
        return None
    return table_of("Jobs that do not run", [("Job", False), ("Why", False)], rows)


def _course(digest: Digest, formats: Formats) -> Block:
    spans_days = digest.until - digest.since > timedelta(days=2)
    shown = "%m-%d" if spans_days else "%H:%M"
    labels = tuple(bucket.start.astimezone(formats.zone).strftime(shown) for bucket in digest.buckets)
    series = [Series("succeeded", tuple(float(bucket.succeeded) for bucket in digest.buckets), _GOOD)]
    if any(bucket.failed for bucket in digest.buckets):
        series.append(Series("failed", tuple(float(bucket.failed) for bucket in digest.buckets), _BAD))
    every = duration((digest.until - digest.since) / len(digest.buckets)).replace("1h\u00a00m", "hour")
    return chart_of("course", f"Runs per {every}", "bar", labels, tuple(series), formats)


def _slowest(digest: Digest, formats: Formats) -> TableBlock:
    rows = tuple(
        (job.job, formats.number(job.runs), formats.number(job.failed), duration(job.mean), duration(job.longest))
        for job in digest.jobs[:_MOST_JOBS]
    )
    names = ("Job", "Runs", "Failed", "Mean", "Longest")
    columns = [(name, name != "Job") for name in names]
    return table_of("Slowest jobs", columns, rows, left_out=len(digest.jobs) - len(rows), empty="No job ran.")


def _rows(digest: Digest, formats: Formats) -> TableBlock | None:
    rows = tuple(
        (kind, humanised(what), formats.number(count))
        for kind, sums in sorted(digest.totals.counted.items())
        for what, count in sums.items()
    )
    if not rows:
        return None
    return table_of("Rows", [("Kind", False), ("What", False), ("Rows", True)], rows)


def _short(at: datetime, formats: Formats) -> str:
    return at.astimezone(formats.zone).strftime("%m-%d %H:%M")
