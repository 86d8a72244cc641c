"""How helpful-only models differ from their own parents: one part a prompting strategy, one column a model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from repro.report import table

ABREAST = 4
NAME_WIDTH, CELL_WIDTH = 28, 17


def summary(content: Mapping[str, Any]) -> Group:
    """The whole summary as one rich renderable of at most 100 columns; `content` is existing.evaluate_pairs's."""
    pairs = content["pairs"]
    blocks: list[Any] = []
    for strategy in dict.fromkeys(name for pair in pairs for name in pair["prompting"]):
        named = "no system prompt" if strategy == "none" else f"the prompting strategy {strategy}"
        blocks.append(Text(f"Helpful-only models minus their parents, under {named}", style="bold"))
        for start in range(0, len(pairs), ABREAST):
            blocks += [_part(pairs[start : start + ABREAST], strategy), Text()]
    return Group(*blocks, *(Text(line, style="dim") for line in captions(content)))


def _part(pairs: Sequence[Mapping[str, Any]], strategy: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    made.add_column("", width=NAME_WIDTH, overflow="fold")
    for pair in pairs:
        made.add_column(f"{pair['model']}\n− {pair['parent']}", width=CELL_WIDTH, overflow="fold")
    columns = [pair["prompting"].get(strategy, {}) for pair in pairs]
    for metric in dict.fromkeys(name for column in columns for name in column):
        better = next(column[metric]["higher_is_better"] for column in columns if metric in column)
        cells = [_cell(column[metric]) if metric in column else Text() for column in columns]
        made.add_row(f"{metric} {'↑' if better else '↓'}", *cells)
    return made


def _cell(entry: Mapping[str, Any]) -> Text:
    if entry["delta"] is None:
        return Text("–")
    differs = table.side(entry, entry["higher_is_better"])
    points = round(100 * entry["delta"]) if entry["share"] else round(entry["delta"], 2)
    text = f"{points:+} {table.interval(entry['ci'], entry['share'])}".rstrip() + "*" * (differs != 0)
    return Text(text.removeprefix("+") if not points else text, style={1: "green", -1: "red", 0: ""}[differs])


def captions(content: Mapping[str, Any]) -> list[str]:
    """What the summary needs to be understood and repeated, one sentence a line."""
    legend = (
        "points [95% interval], paired over the same items; * differs from its parent (interval without 0, and p < .05 "
        "after Holm over its metrics); green is better, red worse; – nothing scored."
    )
    lines = textwrap.wrap(legend, table.WIDTH)
    unseen = [pair["model"] for pair in content["pairs"] if not pair["checked"]]
    if unseen:
        lines += textwrap.wrap(f"not checked that the id is what it says: {', '.join(unseen)}.", table.WIDTH)
    for lost in content["left_out"]:
        lines += textwrap.wrap(f"left out: {lost['model']}: {lost['why']}", table.WIDTH)
    lines += [f"run folder: {folder}" for folder in content["run"]["runs"]]
    return [*lines, f"repeat: {content['run']['command']}"] if content["run"]["command"] else lines
