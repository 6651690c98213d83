"""A forecast as one HTML file: own SVG, no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from batchd.domain.quantities import format_duration
from batchd.outlook.forecast import Forecast, JobForecast

_WIDTH, _LEFT, _ROW, _TOP, _RIGHT = 1160, 210, 22, 26, 20
_DENSE = 400
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #5c6675; --line: #d9dee6; --mark: #2456a6; --back: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --dim: #9aa4b2; --line: #343b47; --mark: #7fb0ff; --back: #14181f }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem } p { color: var(--dim); margin: .2rem 0 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top } th { color: var(--dim); font-weight: 500 }
svg { width: 100%; height: auto; display: block } svg text { font-size: 12px; fill: var(--ink) }
svg .dim { fill: var(--dim) } svg .grid { stroke: var(--line) } svg .fire { fill: var(--mark) }
"""


def forecast_page(found: Forecast, title: str) -> str:
    """Return the whole page."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_stamp(found.begin)} to {_stamp(found.end)} (UTC), {sum(job.count for job in found.jobs)} fires</p>",
        "<h2>Timeline</h2>",
        _timeline(found),
        "<h2>Fires an hour</h2>",
        _load(found),
        _section(
            "Busiest minutes", ("minute (UTC)", "jobs"), [(_stamp(b.minute), ", ".join(b.jobs)) for b in found.busiest]
        ),
        _section(
            "Collisions",
            ("on", "jobs", "times", "first (UTC)", "what to do"),
            [
                (f"{c.on} {c.name}", ", ".join(c.jobs), str(c.times), _stamp(c.first), c.advice)
                for c in found.collisions
            ],
        ),
        _section(
            "Changes of the clock near a fire",
            ("when (UTC)", "zone", "change", "job", "effect"),
            [(_stamp(n.at), n.timezone, n.change, n.job, n.effect) for n in found.clock_notes],
        ),
        _section(
            "Jobs",
            ("job", "kind", "schedule", "zone", "queue", "fires", "usually takes"),
            [
                (
                    j.job,
                    j.kind,
                    j.schedule or "when triggered",
                    j.timezone,
                    j.queue,
                    str(j.count),
                    format_duration(j.lasts),
                )
                for j in found.jobs
            ],
        ),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%a %Y-%m-%d %H:%M}"


def _section(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<h2>{title}</h2><p>none</p>"
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _timeline(found: Forecast) -> str:
    height = _TOP + _ROW * len(found.jobs) + 4
    inner = [*_days(found, height)]
    for number, job in enumerate(found.jobs):
        y = _TOP + number * _ROW
        name = job.job if len(job.job) <= 30 else job.job[:29] + "…"  # noqa: PLR2004 (what fits the margin)
        inner.append(f'<text x="0" y="{y + 15}">{escape(name)}<title>{escape(job.job)}</title></text>')
        inner.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y + _ROW}" y2="{y + _ROW}"/>')
        inner += _fires(found, job, y)
    return _svg(height, f"timeline of {len(found.jobs)} jobs", inner)


def _fires(found: Forecast, job: JobForecast, y: int) -> Iterable[str]:
    if job.count > _DENSE:
        yield (
            f'<rect class="fire" opacity=".35" x="{_LEFT}" y="{y + 7}" width="{_WIDTH - _LEFT - _RIGHT}" height="8">'
            f"<title>{escape(job.job)}: {job.count} fires</title></rect>"
        )
        return
    for fire in job.fires:
        width = max(2.5, _x(found, fire + job.lasts) - _x(found, fire))
        yield (
            f'<rect class="fire" x="{_x(found, fire):.1f}" y="{y + 5}" width="{width:.1f}" height="12" rx="1">'
            f"<title>{escape(job.job)}, {_stamp(fire)}</title></rect>"
        )


def _load(found: Forecast) -> str:
    hours: dict[datetime, int] = {}
    for job in found.jobs:
        for fire in job.fires:
            hour = fire.replace(minute=0, second=0, microsecond=0)
            hours[hour] = hours.get(hour, 0) + 1
    most = max(hours.values(), default=1)
    width = max(1.0, _x(found, found.begin + _HOUR) - _LEFT - 0.5)
    bars = [
        f'<rect class="fire" x="{max(_x(found, hour), _LEFT):.1f}" y="{_TOP + 80 - 80 * count / most:.1f}" '
        f'width="{width:.1f}" height="{80 * count / most:.1f}"><title>{_stamp(hour)}: {count}</title></rect>'
        for hour, count in sorted(hours.items())
    ]
    return _svg(
        _TOP + 84,
        "fires an hour",
        [f'<text class="dim" x="0" y="{_TOP + 12}">{most}</text>', *_days(found, _TOP + 84), *bars],
    )


def _days(found: Forecast, height: int) -> Iterable[str]:
    day = found.begin.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
    every = max(1, round((found.end - found.begin) / _DAY / 12))
    number = 0
    while day < found.end:
        x = _x(found, day)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height}"/>'
        if number % every == 0:
            yield f'<text class="dim" x="{x + 3:.1f}" y="12">{day:%a %d %b}</text>'
        day, number = day + _DAY, number + 1


def _x(found: Forecast, moment: datetime) -> float:
    share = (moment - found.begin) / (found.end - found.begin)
    return _LEFT + min(share, 1.0) * (_WIDTH - _LEFT - _RIGHT)


def _svg(height: int, label: str, inner: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(inner)}</svg>'
