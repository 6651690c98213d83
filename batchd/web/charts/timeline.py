"""The fires of the next hours as a track for each job: a dot a fire, as wide as the run is expected to take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from markupsafe import Markup

from batchd.web.charts.svg import image, number, path

_WIDTH = 960.0
_HEIGHT = 24.0
_MIDDLE = _HEIGHT / 2


def track(fires: Sequence[datetime], start: datetime, span: timedelta, took: timedelta | None, label: str) -> Markup:
    """Return one job's track from `start` on; `took` is how long a run is expected to take."""
    rails = path(f"M0 {number(_MIDDLE)}h{number(_WIDTH)}", css="rail")
    hours = [path(f"M{number(_WIDTH * part / 8)} 0v{number(_HEIGHT)}", css="grid") for part in range(1, 8)]
    wide = 0.01 if took is None else max(0.01, _WIDTH * (took / span))
    dots = "".join(
        f"M{number(at)} {number(_MIDDLE)}h{number(max(0.01, min(wide, _WIDTH - at)))}"
        for fire in fires
        if 0 <= (at := _WIDTH * ((fire - start) / span)) <= _WIDTH
    )
    return image(label, _WIDTH, _HEIGHT, [*hours, rails, path(dots, css="fires")], css="chart track")


def dense_track(start: datetime, first: datetime, span: timedelta, label: str) -> Markup:
    """Return the track of a job that fires too often for dots: a band from its first fire on."""
    at = min(_WIDTH, max(0.0, _WIDTH * ((first - start) / span)))
    band = path(f"M{number(at)} {number(_MIDDLE)}h{number(max(0.01, _WIDTH - at))}", css="fires is-dense")
    hours = [path(f"M{number(_WIDTH * part / 8)} 0v{number(_HEIGHT)}", css="grid") for part in range(1, 8)]
    return image(label, _WIDTH, _HEIGHT, [*hours, band], css="chart track")
