"""What a sweep shows: one long table (CSV), a compact one for the terminal, and metrics drawn along a value.

Reads the content of sweep.json, nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from repro.report import curves, plots, probe_plot, table

HEADS = ("arm", "seed", "axis", "metric", "higher_is_better", "value", "ci_low", "ci_high", "n", "unscored",
         "versus", "delta", "delta_low", "delta_high")  # fmt: skip
LEGEND = (
    "Percent [95% interval], pooled over seeds. A sweep explores: nothing is corrected for the number of cells, and "
    "table.csv has every seed and metric, each with its difference from the arm compared with."
)

Content = Mapping[str, Any]


def word(value: Any) -> str:
    """A grid's value as people write it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(word, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {word(entry)}" for key, entry in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def short(paths: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """{path: its last word}, or the whole path where two would be called the same."""
    last = {path: path.split(",")[0].rpartition(".")[2] for path in paths}
    return {path: name if list(last.values()).count(name) == 1 else path for path, name in last.items()}


def rows(cell: str, values: Mapping[str, Any], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A cell's rows of the long table: each metric, arm and seed (None: pooled) of its results.json."""
    other = table.rival(results)
    found = []
    for entry in results["metrics"]:
        versus = entry["versus"].get(other) or {}
        kept = {key: entry[key] for key in ("arm", "seed", "axis", "metric", "higher_is_better", "value", "ci", "n",
                                            "unscored", "bounds")}  # fmt: skip
        compared = {"versus": other if versus else None, "delta": versus.get("delta"), "delta_ci": versus.get("ci")}
        found.append({"cell": cell, "values": dict(values), **kept, **compared})
    return found


def csv_text(content: Content) -> str:
    """The long table, numbers unrounded, empty where there is none; an empty seed is all of them together."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*content["paths"], *HEADS])
    for row in content["rows"]:
        (low, high), (below, above) = row["ci"] or (None, None), row["delta_ci"] or (None, None)
        numbers = [row["value"], low, high, row["n"], row["unscored"], row["versus"], row["delta"], below, above]
        place = [row["arm"], row["seed"], row["axis"], row["metric"], str(row["higher_is_better"]).lower()]
        values = [word(row["values"][path]) for path in content["paths"]]
        writer.writerow(["" if cell is None else cell for cell in [*values, *place, *numbers]])
    return stream.getvalue()


# the compact table ----------------------------------------------------------------------------------------------------


def rich_table(content: Content) -> Group:
    """One line a cell and arm for the paper's headline metrics; an arm that is the same in every cell takes one."""
    pooled = {(row["cell"], row["arm"], row["metric"]): row for row in content["rows"] if row["seed"] is None}
    better = {row["metric"]: row["higher_is_better"] for row in pooled.values()}
    shown = [(metric, words) for names, words in plots.PANELS for metric in [m for m in names if m in better][:1]]
    lines = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in (*short(content["paths"]).values(), "arm"):
        lines.add_column(head, overflow="fold")
    for metric, words in shown:
        lines.add_column(f"{words} {'↑' if better[metric] else '↓'}", justify="right")
    cells = content["cells"]
    for place, cell in enumerate(cells):
        for arm in dict.fromkeys(row["arm"] for row in content["rows"]):
            shared = len(cells) > 1 and arm in content["shared"]
            if not shared or place == 0:
                values = ["all" if shared else word(cell["values"][path]) for path in content["paths"]]
                figures = [_text(pooled.get((cell["cell"], arm, metric))) for metric, _ in shown]
                lines.add_row(*map(Text, (*values, arm, *figures)))
    return Group(lines, Text(LEGEND, style="dim"))


def _text(row: Mapping[str, Any] | None) -> str:
    """The value, and its interval in the line below."""
    if row is None:
        return ""
    ci = None if row["ci"] is None else (row["ci"][0], row["ci"][1])
    shown = table.cell_text(table.Cell(row["n"], row["value"], ci), row["bounds"] is not None)
    return shown.replace(" [", "\n[", 1)


# pictures -------------------------------------------------------------------------------------------------------------


def pictures(content: Content) -> dict[str, str]:
    """{name: SVG file}: each metric along the first path with numbers, an arm a line with its interval as a band; one
    picture for each choice of the other values."""
    names = short(content["paths"])
    cells = [cell["values"] for cell in content["cells"]]
    along = next((path for path in content["paths"] if all(_number(values[path]) for values in cells)), None)
    if along is None or len({values[along] for values in cells}) < 2:
        return {}
    panels: dict[tuple[str, str], dict[str, list[curves.Point]]] = {}
    wide = set()
    for row in content["rows"]:
        if row["seed"] is None and row["value"] is not None:
            others = ", ".join(f"{names[p]}={word(row['values'][p])}" for p in content["paths"] if p != along)
            low, high = row["ci"] or (row["value"], row["value"])
            share = row["bounds"] is not None
            if not share or row["bounds"][0] < 0:
                wide.add(row["metric"])
            point = [100 * value if share else value for value in (row["value"], low, high)]
            lines = panels.setdefault((row["metric"], others), {})
            lines.setdefault(row["arm"], []).append(curves.Point(row["values"][along], *point))
    arms = list(dict.fromkeys(row["arm"] for row in content["rows"]))
    found = {}
    for (metric, others), lines in panels.items():
        ordered = {arm: sorted(points, key=lambda point: point.x) for arm, points in lines.items()}
        steps = [point.x for points in ordered.values() for point in points]
        log_x = min(steps) > 0 and max(steps) >= 8 * min(steps)
        title = f"{metric} ({others})" if others else metric
        curve = curves.Curve(title, names[along], ordered, metric not in wide, log_x, band=True)
        name = "-".join([metric, *others.replace("=", "-").split(", ")]) if others else metric
        found["".join(c if c.isalnum() or c in "._-" else "-" for c in name)] = probe_plot.standalone(
            plots.curve(curve, arms)
        )
    return found


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
