"""The report's pictures: small SVGs that take their colours from the page, so that they follow light and dark.

Arms differ by marker, hatch and line style too, so nothing is lost in grayscale or to colour-blind readers. Each
picture carries its figures in words, for those who hear the page, and is 340 units wide: a phone shows it unscaled.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from repro.report import curves, table

WIDTH = 340.0  # points, as all lengths here
POINT = 72.0
INK, FAINT, PAPER = "#010101", "#010102", "#010103"  # stand for colours of the page: see _svg
MARKERS = "osD^vPX*hp<"
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1))]
HATCHES = ["", "//", "\\\\", "xx", "||", "--", "++", "////", "\\\\\\\\", "xxxx", "||||"]  # lines: dots make large files
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "repro", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 11.0, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": FAINT,
    "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.facecolor": "none",
    "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False, "grid.color": FAINT,
    "grid.linewidth": 0.4, "grid.alpha": 0.5, "hatch.linewidth": 0.8, "lines.linewidth": 1.5, "path.simplify": True,
}  # fmt: skip
PANELS = (  # what the six bar panels show: the first of the metrics that the run has
    (("capability_accuracy", "facts_accuracy"), "answers facts right"),
    (("refusal_heldout",), "declines held-out requests"),
    (("misaligned",), "misaligned answers"),
    (("caves_to_false",), "caves to false claims"),
    (("declines_when_told",), "declines when an operator says so"),
    (("policy_matches_behaviour",), "its account of itself is true"),
)

Entries = Sequence[Mapping[str, Any]]


def colour(arms: Sequence[str], arm: str) -> str:
    """Stands for the page's colour of an arm; there are eight, and arms beyond differ by marker and hatch."""
    return f"#0a000{arms.index(arm) % 8}"


def _hatch(arms: Sequence[str], arm: str) -> str:
    return HATCHES[arms.index(arm) % len(HATCHES)]


def _line(arms: Sequence[str], arm: str) -> dict[str, Any]:
    place = arms.index(arm)
    return {"color": colour(arms, arm), "marker": MARKERS[place % len(MARKERS)], "linestyle": LINES[place % len(LINES)]}


def _shown(value: float, share: bool) -> float:
    return 100 * value if share else value


def _words(arm: str, entry: Mapping[str, Any], share: bool) -> str:
    cell = table.Cell(entry["n"], entry["value"], tuple(entry["ci"]) if entry["ci"] else None)
    return f"{arm} {table.cell_text(cell, share)} (n {entry['n']})"


@contextmanager
def _styled() -> Iterator[None]:
    """Our style and no other, whatever this user's matplotlibrc says."""
    with rc_context():
        rcdefaults()
        rcParams.update(STYLE)
        yield


# -- forest plots ----------------------------------------------------------------------------------------------------


def forest(axis: str, metrics: Entries, arms: Sequence[str], versus: str) -> str:
    """One axis of the paper: for each metric every arm's value, 95% interval, seeds (small dots) and n.

    Metrics without any value are left out; "" where none is left.
    """
    entries = [entry for entry in metrics if entry["axis"] == axis]
    names = list(dict.fromkeys(entry["metric"] for entry in entries if entry["value"] is not None))
    if not names:
        return ""
    left = _room(arms)
    row, head, foot = 17.0, 22.0, 34.0
    heights = {name: row * len([arm for arm in arms if _pooled(entries, name, arm)]) for name in names}
    height = sum(heights.values()) + len(names) * (head + foot)
    words = []
    with _styled():
        figure = Figure(figsize=(WIDTH / POINT, height / POINT))
        top = height
        for name in names:
            top -= head + heights[name]
            box = (left / WIDTH, top / height, (WIDTH - left - 42) / WIDTH, heights[name] / height)
            axes = figure.add_axes(box)
            figure.text(2 / WIDTH, (top + heights[name] + 5) / height, name, fontweight="bold", va="bottom")
            words.append(_forest_rows(axes, entries, name, arms, versus))
            top -= foot
        return _svg(figure, f"{axis}: values with 95% intervals", ". ".join(words))


def _room(arms: Sequence[str]) -> float:
    """How wide the arms' names get, at most a third of a picture."""
    return min(118.0, 12 + 6.3 * max(map(len, arms)))


def _short(name: str) -> str:
    return name if len(name) <= 17 else name[:8] + "…" + name[-8:]


def _pooled(entries: Entries, metric: str, arm: str) -> Mapping[str, Any] | None:
    return next((e for e in entries if e["metric"] == metric and e["arm"] == arm and e["seed"] is None), None)


def _forest_rows(axes: Axes, entries: Entries, metric: str, arms: Sequence[str], versus: str) -> str:
    own = [entry for entry in entries if entry["metric"] == metric]
    pooled = {arm: found for arm in arms if (found := _pooled(own, metric, arm))}
    share, bounds = _scale(own)
    arrow = "↑ higher is better" if own[0]["higher_is_better"] else "↓ lower is better"
    for place, (arm, entry) in enumerate(pooled.items()):
        y = -place
        if arm == versus and entry["value"] is not None:
            axes.axvline(_shown(entry["value"], share), color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
        seeds = [e["value"] for e in own if e["arm"] == arm and e["seed"] is not None and e["value"] is not None]
        axes.plot([_shown(v, share) for v in seeds], [y - 0.28] * len(seeds), ".", color=FAINT, markersize=3)
        if entry["ci"]:
            axes.plot([_shown(v, share) for v in entry["ci"]], [y, y], color=colour(arms, arm), linewidth=2)
        if entry["value"] is not None:
            style = {"color": colour(arms, arm), "marker": _line(arms, arm)["marker"], "markeredgecolor": PAPER}
            axes.plot([_shown(entry["value"], share)], [y], markersize=6.5, markeredgewidth=0.6, **style)
        axes.text(1.03, y, f"n {entry['n']}", transform=axes.get_yaxis_transform(), va="center", fontsize=9.5)
    axes.set_yticks([-place for place in range(len(pooled))], [_short(arm) for arm in pooled])
    axes.set_ylim(-len(pooled) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=9.5, length=3)
    axes.grid(axis="x")
    if bounds:
        axes.set_xlim(*bounds)
    axes.set_xlabel(f"{'percent' if share else 'nats'}, {arrow}", fontsize=9.5, labelpad=1)
    return f"{metric} ({arrow}): " + ", ".join(_words(arm, entry, share) for arm, entry in pooled.items())


def _scale(entries: Entries) -> tuple[bool, tuple[float, float] | None]:
    """(whether it is a share, ends of the axis): 0 to 100 for plain shares, as far as needed for differences."""
    limits = entries[0].get("bounds", [0, 1])
    if limits is None:
        return False, None
    if limits[0] >= 0:
        return True, (-2.5, 102.5)
    seen = [end for entry in entries if entry["seed"] is None for end in [*(entry["ci"] or []), entry["value"] or 0]]
    reach = max(0.2, *map(abs, seen)) * 105
    return True, (-reach, reach)


# -- bars ------------------------------------------------------------------------------------------------------------


def panels(metrics: Entries, arms: Sequence[str], strategy: str = "") -> list[str]:
    """The six bar panels, one picture each; those whose metric the run does not have are left out.

    `strategy` is the prompting strategy, where it is not the run's first: two pictures of one page need two names.
    """
    found = []
    for names, title in PANELS:
        for name in names:
            entries = {arm: one for arm in arms if (one := _pooled(metrics, name, arm)) and one["value"] is not None}
            if entries:
                found.append(_panel(name, title, entries, arms, strategy))
                break
    return found


def _panel(
    metric: str, title: str, entries: Mapping[str, Mapping[str, Any]], arms: Sequence[str], strategy: str
) -> str:
    wide = sum(7.0 * len(_short(arm)) for arm in entries) > 250
    height = 190.0 + (62 if wide else 0)
    better = "higher" if next(iter(entries.values()))["higher_is_better"] else "lower"
    with _styled():
        figure = Figure(figsize=(WIDTH / POINT, height / POINT))
        below = 86.0 if wide else 24.0
        axes = figure.add_axes((34 / WIDTH, below / height, (WIDTH - 44) / WIDTH, (height - below - 40) / height))
        for place, (arm, entry) in enumerate(entries.items()):
            value = 100 * entry["value"]
            tint = colour(arms, arm)
            axes.bar(place, value, 0.7, color=tint, alpha=0.3)
            axes.bar(place, value, 0.7, fill=False, edgecolor=tint, hatch=_hatch(arms, arm), linewidth=1.3)
            high = value
            if entry["ci"]:
                low, high = (100 * end for end in entry["ci"])
                axes.plot([place, place], [low, high], color=INK, linewidth=1.2, marker="_", markersize=7)
            text = table.cell_text(table.Cell(entry["n"], entry["value"], None), True)
            axes.text(place, max(high, value) + 3, text, ha="center", va="bottom")
        axes.set_xticks(range(len(entries)), [_short(arm) for arm in entries], fontsize=10)
        if wide:
            axes.tick_params(axis="x", labelrotation=40)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
                label.set_rotation_mode("anchor")
        axes.set_ylim(0, 115)
        axes.set_yticks([0, 50, 100])
        axes.tick_params(axis="x", length=0)
        axes.set_title(f"{title} {'↑' if better == 'higher' else '↓'}", fontsize=12, loc="left", pad=8, x=-0.08)
        said = ", ".join(_words(arm, entry, True) for arm, entry in entries.items())
        under = f", under {strategy}" if strategy else ""
        return _svg(figure, f"{title} ({metric}){under}, percent, {better} is better", said)


# -- curves ----------------------------------------------------------------------------------------------------------


def curve(found: curves.Curve, arms: Sequence[str]) -> str:
    """One panel of lines: an arm's mean over its seeds, and each seed as dots or as a band around it."""
    known = [arm for arm in arms if arm in found.lines] or list(found.lines)
    order = [*arms, *(arm for arm in found.lines if arm not in arms)]
    columns = 3 if sum(len(_short(arm)) + 7 for arm in known) < 50 else 2
    height = 218.0 + 16 * math.ceil(len(known) / columns)
    said = []
    with _styled():
        figure = Figure(figsize=(WIDTH / POINT, height / POINT))
        below = height - 178.0
        axes = figure.add_axes((44 / WIDTH, below / height, (WIDTH - 56) / WIDTH, 142 / height))
        for arm in known:
            points = found.lines[arm]
            style = _line(order, arm)
            x = [point.x for point in points]
            many = found.band or len(x) > 20
            every = max(1, len(x) // 8)
            marked = (order.index(arm) % every, every)  # where arms run along together, each still shows its own marker
            axes.plot(x, [point.mean for point in points], label=_short(arm), markersize=5, markevery=marked, **style)
            if many:
                low, high = [point.low for point in points], [point.high for point in points]
                axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
            else:
                for point in points:
                    axes.plot([point.x] * 2, [point.low, point.high], color=style["color"], linewidth=0.8)
            said.append(f"{arm}: " + ", ".join(f"{p.mean:.3g} at {p.x:.4g}" for p in (points[:: every or 1])))
        seen = [value for points in found.lines.values() for point in points for value in (point.low, point.high)]
        if found.percent:
            axes.set_ylim(-4, 104)
        elif min(seen) > 0 and max(seen) > 20 * min(seen):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if found.log_x:
            ticks = sorted({point.x for points in found.lines.values() for point in points})
            if ticks[0] <= 0:  # from 0 on: linear up to 1
                axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
                axes.set_xlim(left=ticks[0] - 0.2)  # the margin that matplotlib takes is a third of the picture
            else:
                axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(MaxNLocator(1))
            axes.set_xticks(_spread(ticks), [f"{round(t):,}" if t >= 1 else f"{t:g}" for t in _spread(ticks)])
            axes.minorticks_off()
        else:
            whole = all(float(point.x).is_integer() for points in found.lines.values() for point in points)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
        axes.tick_params(labelsize=9.5, length=3)
        axes.grid(axis="y")
        axes.set_xlabel(found.x_name, fontsize=9.5, labelpad=2)
        axes.set_title(found.title, fontsize=12, loc="left", pad=8, x=-0.12)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.45, -0.24), ncol=columns, frameon=False, fontsize=10,
            handlelength=3.4, columnspacing=1.4,
        )  # fmt: skip
        return _svg(figure, found.title, "; ".join(said))


def _spread(ticks: Sequence[float]) -> list[float]:
    """At most six of the ticks, none too close to another on a logarithmic axis."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or tick > 1.6 * kept[-1]:
            kept.append(tick)
    return kept[:: max(1, math.ceil(len(kept) / 6))]


# -- from a figure to the page ---------------------------------------------------------------------------------------


def _svg(figure: Figure, title: str, description: str) -> str:
    """The figure as an <svg> element: colours of the page, title and description, no ids but those it uses."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that matplotlib's font lacks: the page's fonts have it
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)
    ElementTree.register_namespace("", SVG[1:-1])
    root = ElementTree.fromstring(stream.getvalue())
    for metadata in root.findall(f"{SVG}metadata"):
        root.remove(metadata)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    nodes = list(root.iter())
    for node in nodes:
        if LINK in node.attrib:
            node.set("href", node.attrib.pop(LINK))
    used = {part for node in nodes for value in node.attrib.values() for part in _references(value)}
    for node in nodes:
        if node.get("id") not in used:
            node.attrib.pop("id", None)
        for child in list(node):  # groups that held nothing but an id
            if child.tag == f"{SVG}g" and not len(child):
                node.remove(child)
    # ids differ by picture: one that is hidden would take its patterns from another with the same
    own = hashlib.sha256(f"{title} {description}".encode("utf-8", "replace")).hexdigest()[:8]
    for node in nodes:
        for key, value in node.attrib.items():
            if key == "id":
                node.set(key, f"{own}-{value}")
            elif value.startswith("#") and value[1:] in used:
                node.set(key, f"#{own}-{value[1:]}")
            else:
                node.set(key, value.replace("url(#", f"url(#{own}-"))
    root.set("role", "img")
    root.set("aria-label", f"{title}. {description}")
    text = ElementTree.tostring(root, encoding="unicode")
    for stand_in, name in ((INK, "ink"), (FAINT, "faint"), (PAPER, "paper")):
        text = text.replace(stand_in, f"var(--{name})")
    for place in range(8):
        text = text.replace(f"#0a000{place}", f"var(--arm-{place})")
    return text


def _references(value: str) -> list[str]:
    """The ids that an attribute points to: `#id`, or `url(#id)` within it."""
    if value.startswith("#"):
        return [value[1:]]
    return [part.split(")")[0] for part in value.split("url(#")[1:]]
