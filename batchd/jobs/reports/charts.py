"""Charts as pictures, since no mail client shows SVG.

They are drawn by matplotlib in a child process, so that the daemon never carries it. Without matplotlib (the extra
`batchd[charts]`), or when the child fails, a chart stays bars made of HTML.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from importlib.util import find_spec

from batchd.jobs.reports.content import Chart
from batchd.jobs.reports.source import ReportSource
from batchd.mail.message import Image

_CHILD = "batchd.jobs.reports.chart_process"
_DRAWN_WITHIN = timedelta(seconds=60)
_LOOK_EVERY = timedelta(milliseconds=50)


def can_draw() -> bool:
    """Return whether matplotlib is installed; does not import it."""
    return find_spec("matplotlib") is not None


def drawn(context: ReportSource, charts: Sequence[Chart]) -> tuple[list[Chart], tuple[Image, ...]]:
    """Return the charts with their pictures, or as they are when none could be drawn."""
    if not any(chart.labels for chart in charts) or not can_draw():
        return list(charts), ()
    wanted = [chart for chart in charts if chart.labels]
    try:
        pictures = _draw(context, [asdict(chart) for chart in wanted])
    except (OSError, ValueError, KeyError, TimeoutError) as error:
        context.log.warning("report.charts_failed", reason=str(error)[:500])
        return list(charts), ()
    names = {chart.name: f"chart-{number}" for number, chart in enumerate(wanted, start=1)}
    images = tuple(Image(names[chart.name], base64.b64decode(pictures[chart.name])) for chart in wanted)
    return [replace(chart, image=names.get(chart.name)) for chart in charts], images


def _draw(context: ReportSource, charts: list[dict[str, object]]) -> dict[str, str]:
    """Return each chart's PNG in base64; raises ValueError with the child's complaint, TimeoutError, OSError."""
    with (
        tempfile.TemporaryDirectory(prefix="batchd-chart-") as folder,
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as said,
    ):
        # A file and no pipe: to write into one waits for the child, and one that hangs would be waited for for ever.
        asked.write(json.dumps(charts, default=str).encode())
        asked.seek(0)
        # matplotlib keeps caches in a folder of its own; a service often has no home to put it into.
        environment = {**os.environ, "MPLBACKEND": "Agg", "MPLCONFIGDIR": folder}
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", _CHILD, folder],
            stdin=asked,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            process_group=0,  # a Ctrl-C at the daemon's terminal is not the child's
        )
        try:
            code = _wait(context, child)
        finally:
            child.kill()
            child.wait()
        if code:
            said.seek(0)
            last = said.read().decode("utf-8", "replace").strip().splitlines()
            raise ValueError(f"the child ended with {code}: {last[-1] if last else 'it said nothing'}")
        with open(os.path.join(folder, "charts.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123 (a name, once)
            pictures: dict[str, str] = json.load(file)
        return pictures


def _wait(context: ReportSource, child: subprocess.Popen[bytes]) -> int:
    waited = timedelta(0)
    while (code := child.poll()) is None:
        context.wait(_LOOK_EVERY)
        waited += _LOOK_EVERY
        if waited > _DRAWN_WITHIN:
            raise TimeoutError(f"not drawn within {_DRAWN_WITHIN.total_seconds():g} s")
    return code
