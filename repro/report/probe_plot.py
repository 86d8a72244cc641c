"""The pictures of `repro probe`: one an emotion, and one of declining, layer by layer, an arm a line with its band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro.report import plots

HEAD, PANEL, GAP, FOOT = 40.0, 130.0, 22.0, 42.0  # points, as all lengths here
LEFT = 48.0
PROSE = {"trained": "requests of trained topics", "heldout": "requests of held-out topics",
         "look-alike": "look-alikes", "ordinary": "ordinary prompts"}  # fmt: skip
# a file of its own has no page to take its colours from: these tell apart in grayscale and for the colour-blind
COLOURS = {"ink": "#1a1a1a", "faint": "#8a8a8a", "paper": "#ffffff"} | {
    f"arm-{place}": colour
    for place, colour in enumerate(
        ["#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b00"]
    )
}


def pictures(content: Mapping[str, Any]) -> dict[str, str]:
    """{name: <svg> element in the page's colours} of the content of probes.json, the paper's emotions first."""
    found = {}
    arms = list(content["arms"])
    for emotion in dict.fromkeys(entry["emotion"] for entry in content["emotions"]):
        rows = _rows(content, emotion, "cosine")
        title = f"\u201c{emotion}\u201d: cosine, requests minus ordinary prompts"
        found[emotion] = _picture(rows, arms, ("trained", "heldout"), title, "cosine", 0.0)
    if content["declining"]:
        rows = _rows(content, "declining", "place")
        title = "declining: 0 as answered, 1 as declined by the base"
        found["declining"] = _picture(rows, arms, ("trained", "heldout", "look-alike"), title, "place", 0.0)
    return found


def files(content: Mapping[str, Any]) -> dict[str, str]:
    """The same pictures as files of their own."""
    return {name: standalone(svg) for name, svg in pictures(content).items()}


def standalone(svg: str) -> str:
    """An <svg> element in the page's colours as a file of its own: fixed colours on white."""
    for stand_in, colour in COLOURS.items():
        svg = svg.replace(f"var(--{stand_in})", colour)
    return svg.replace("<svg ", '<svg style="background:#ffffff" ', 1) + "\n"


def _rows(content: Mapping[str, Any], what: str, measure: str) -> list[Mapping[str, Any]]:
    """The means over seeds of one reading."""
    return [
        row for row in content["readings"] if row["probe"] == what and row["measure"] == measure and row["seed"] is None
    ]


def _picture(
    rows: Sequence[Mapping[str, Any]], arms: Sequence[str], groups: Sequence[str], title: str, unit: str, level: float
) -> str:
    """Panels one below the other, a group each, over the same layers and to the same scale."""
    known = [arm for arm in arms if any(row["arm"] == arm for row in rows)]
    legend = 16.0 * math.ceil(len(known) / 2) + 8
    height = HEAD + len(groups) * (PANEL + GAP) + FOOT - GAP + legend
    shown = [row for row in rows if row["group"] in groups]
    ends = [level, *(end for row in shown for key in ("value", "low", "high") for end in row.get(key, []))]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low or 1.0)
    said = []
    with rc_context(plots.STYLE):
        figure = Figure(figsize=(plots.WIDTH / plots.POINT, height / plots.POINT))
        figure.text(4 / plots.WIDTH, 1 - 16 / height, title, fontsize=12)
        for place, group in enumerate(groups):
            top = height - HEAD - place * (PANEL + GAP)
            box = (LEFT / plots.WIDTH, (top - PANEL) / height, 1 - (LEFT + 12) / plots.WIDTH, PANEL / height)
            axes = figure.add_axes(box)
            own = [row for arm in known for row in rows if row["arm"] == arm and row["group"] == group]
            said += [_panel(axes, own, arms, group)]
            axes.axhline(level, color=plots.FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
            axes.set_ylim(low - room, high + room)
            axes.set_ylabel(unit, fontsize=9.5, labelpad=2)
            axes.tick_params(labelsize=9.5, length=3, labelbottom=place == len(groups) - 1)
        axes.set_xlabel("layer", fontsize=9.5, labelpad=2)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncol=2, frameon=False, fontsize=10, handlelength=3.4)
        return plots._svg(figure, title, ". ".join(said))


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], arms: Sequence[str], group: str) -> str:
    words = []
    for row in rows:
        style = plots._line(arms, row["arm"])
        layers = list(range(1, len(row["value"]) + 1))
        every = max(1, len(layers) // 8)
        axes.plot(layers, row["value"], label=row["arm"], markersize=5, markevery=every, **style)
        if "low" in row:
            axes.fill_between(layers, row["low"], row["high"], color=style["color"], alpha=0.18, linewidth=0)
        shown = ", ".join(f"{row['value'][place - 1]:.3g} at {place}" for place in layers[::every])
        words.append(f"{row['arm']}: {shown}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    axes.set_title(PROSE[group], fontsize=10, loc="left", pad=3)
    return f"{PROSE[group]} (n {rows[0]['n']}): " + "; ".join(words) if rows else PROSE[group]
