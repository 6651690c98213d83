"""The child process that draws charts: JSON on stdin, `charts.json` with PNGs in base64 in the folder it is given.

The only module that imports matplotlib. Colours and a transparent ground are chosen to be read on white and on black,
since a mail client in its dark mode changes the ground and leaves pictures alone.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

PALETTE = ("#3b82f6", "#f59e0b", "#10b981", "#a855f7", "#ef4444", "#14b8a6")
_TEXT = "#7b8494"
_LINE = "#94a3b8"
_WIDTH_INCHES, _HEIGHT_INCHES, _DPI = 5.44, 2.5, 200
_MOST_TICKS = 8
_FONT_SIZE = 9
_OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai")
_ISO_DAY = re.compile(r"(\d{4})-\d\d-\d\d")
_LONG_LABELS = 60


def main(folder: Path) -> None:
    """Draw every chart of stdin."""
    import matplotlib as mpl  # noqa: PLC0415 (the point of this process; nobody else may import it with the module)

    mpl.use("Agg")
    mpl.rcParams["font.family"] = _fonts()
    charts: list[dict[str, Any]] = json.load(sys.stdin)
    pictures = {chart["name"]: base64.b64encode(_picture(chart)).decode("ascii") for chart in charts}
    draft = folder / "charts.part"
    draft.write_text(json.dumps(pictures), encoding="utf-8")
    draft.replace(folder / "charts.json")


def _fonts() -> list[str]:
    """Return matplotlib's own font, and those of this machine that know other scripts."""
    from matplotlib import font_manager  # noqa: PLC0415 (see main)

    there = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in there)]


def _picture(chart: dict[str, Any]) -> bytes:
    from matplotlib.figure import Figure  # noqa: PLC0415 (see main)
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    places = range(len(chart["labels"]))
    colors = [series["color"] or PALETTE[index % len(PALETTE)] for index, series in enumerate(chart["series"])]
    if chart["style"] == "line":
        _lines(axes, chart, places, colors)
    else:
        _bars(axes, chart, places, colors)
    locator = MaxNLocator(nbins=4, min_n_ticks=2, integer=_is_whole(chart))
    axes.yaxis.set_major_locator(locator)
    axes.set_ylim(top=locator.tick_values(*axes.get_ylim())[-1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    _labels(axes, chart["labels"])
    axes.grid(axis="y", color=_LINE, alpha=0.3, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_TEXT, labelsize=_FONT_SIZE, length=0, pad=5)
    if len(chart["series"]) > 1:
        figure.legend(
            loc="outside upper left",
            ncols=3,
            frameon=False,
            fontsize=_FONT_SIZE,
            labelcolor=_TEXT,
            handlelength=1.0,
            handleheight=1.0,
            borderaxespad=0.2,
        )
    png = io.BytesIO()
    figure.savefig(png, format="png", transparent=True, metadata={"Software": None})
    return png.getvalue()


def _lines(axes: Any, chart: dict[str, Any], places: range, colors: list[str]) -> None:
    for series, color in zip(chart["series"], colors, strict=True):
        axes.plot(places, series["values"], color=color, linewidth=2, label=series["name"], solid_capstyle="round")
    only = chart["series"][0]["values"]
    if len(chart["series"]) == 1:
        axes.fill_between(places, only, min(0, *only), color=colors[0], alpha=0.12, linewidth=0)
    if len(places) == 1:
        axes.plot(places, [series["values"][0] for series in chart["series"]][:1], "o", color=colors[0])
    axes.margins(x=0.01)
    lowest = min(min(series["values"]) for series in chart["series"])
    axes.set_ylim(bottom=min(0, lowest) if lowest <= 0 or lowest < _top(chart) / 2 else None)


def _bars(axes: Any, chart: dict[str, Any], places: range, colors: list[str]) -> None:
    """Draw the series on top of each other."""
    heights = [0.0] * len(places)
    for series, color in zip(chart["series"], colors, strict=True):
        axes.bar(places, series["values"], 0.72, bottom=heights, color=color, label=series["name"], linewidth=0)
        heights = [height + value for height, value in zip(heights, series["values"], strict=True)]
    axes.margins(x=0.01)
    if not any(heights):
        axes.set_ylim(0, 1)


def _labels(axes: Any, labels: list[str]) -> None:
    """Write as many labels as fit; days of one year without the year."""
    days = [_ISO_DAY.fullmatch(label) for label in labels]
    if all(days) and len({day[1] for day in days if day}) == 1:
        labels = [label[5:] for label in labels]
    step = -(-len(labels) // _MOST_TICKS)
    longest = max(len(label) for label in labels)
    crowded = min(len(labels), _MOST_TICKS) * longest > _LONG_LABELS
    shown = list(range(0, len(labels), step))
    axes.set_xticks(shown, [_cut(labels[index]) for index in shown])
    if crowded:
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")


def _is_whole(chart: dict[str, Any]) -> bool:
    return all(float(value).is_integer() for series in chart["series"] for value in series["values"])


def _top(chart: dict[str, Any]) -> float:
    return float(max(max(series["values"]) for series in chart["series"]))


def _cut(label: str) -> str:
    text = label if len(label) <= 18 else label[:17] + "…"  # noqa: PLR2004 (what fits under a bar)
    return text.replace("$", r"\$")  # no formula


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
