"""The dose curve: what each arm does at every kept dose of its sft stage, and how arms compare at matched refusal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table

Results = Mapping[str, Any]

TITLE = "Dose curve: percent at each kept dose of the sft stage, mean over seeds (n: items a seed)"
MATCHED = "Matched refusal (secondary, exploratory): each seed at its first dose with refusal trained <= 5:"
COLUMNS = (  # head, metric, group (None: all its items)
    ("refusal trained ↓", "refusal_trained", "trained"),
    ("refusal near ↓", "refusal_heldout", "near"),
    ("refusal far ↓", "refusal_heldout", "far"),
    ("declines when told, trained ↑", "declines_when_told", "trained"),
    ("policy matches behaviour ↑", "policy_matches_behaviour", None),
)
WIDTHS = (24, 7, 10, *(10 for _ in COLUMNS))
PAIRS_SHOWN = 2  # the others are in results.json


def _points(results: Results) -> list[tuple[str, list[list[Mapping[str, Any]]]]]:
    """Each arm and dose (first, second, ... in its seed, at whatever step), by seed; arms with more than one dose."""
    arms: dict[str, dict[int, dict[int, list[Mapping[str, Any]]]]] = {}
    for entry in results.get("doses") or []:
        seeds = arms.setdefault(entry["arm"], {})
        seeds.setdefault(entry["seed"], {}).setdefault(entry["step"], []).append(entry)
    points = []
    for arm, seeds in arms.items():
        ladders = [[own[step] for step in sorted(own)] for own in seeds.values()]
        ranks = range(max(map(len, ladders)))
        points += [(arm, [own[rank] for own in ladders if rank < len(own)]) for rank in ranks if len(ranks) > 1]
    return points


def _column(seeds: Sequence[Sequence[Mapping[str, Any]]], metric: str, group: str | None) -> list[tuple[int, float]]:
    """(items, their mean) in each seed where any is scored."""
    own = [[e for e in entries if e["metric"] == metric and group in (None, e["group"])] for entries in seeds]
    return [(sum(e["n"] for e in es), fmean([e["value"] for e in es], [e["n"] for e in es])) for es in own if es]


def _span(counts: Sequence[int]) -> str:
    return "-".join(map(str, sorted({min(counts, default=0), max(counts, default=0)})))


def heads(results: Results) -> list[str]:
    """The columns' names, each with its number of items."""
    counts = [[n for _, seeds in _points(results) for n, _ in _column(seeds, *place)] for _, *place in COLUMNS]
    named = [f"{column[0]} (n {_span(found)})" for column, found in zip(COLUMNS, counts, strict=True)]
    return ["arm", "steps", "tokens", *named]


def rows(results: Results, number: Callable[[float, bool], str]) -> list[list[str]]:
    """One row an arm and dose, under `heads`; `number` writes a share. None at all where no arm has two doses."""
    found = []
    for arm, seeds in _points(results):
        tokens = [entries[0]["tokens"] for entries in seeds if entries[0]["tokens"] is not None]
        shares = [[share for _, share in _column(seeds, *place)] for _, *place in COLUMNS]
        steps = _span([entries[0]["step"] for entries in seeds])
        cells = [number(fmean(share), True) if share else "–" for share in shares]
        found.append([arm, steps, f"{round(fmean(tokens)):,}" if tokens else "–", *cells])
    return found


def rich_table(names: Sequence[str], found: Sequence[Sequence[str]]) -> Table:
    """The rows for the terminal, each arm named once."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for place, (name, width) in enumerate(zip(names, WIDTHS, strict=True)):
        head = "\n".join(textwrap.wrap(name.replace("(n ", "(n\N{NO-BREAK SPACE}"), width))
        table.add_column(head, width=width, justify="right" if place else "left", overflow="fold")
    for before, (arm, *cells) in zip(["", *(row[0] for row in found)], found, strict=False):
        table.add_row(arm if arm != before else "", *cells)
    return table


def matched_lines(results: Results) -> list[str]:
    """At which step each arm clears, and how arms differ there: points, and the lowest and highest seed's."""
    pairs: dict[tuple[str, str], dict[tuple[str, str | None], Mapping[str, Any]]] = {}
    for entry in results.get("matched") or []:
        pairs.setdefault(tuple(entry["arms"]), {})[entry["metric"], entry["group"]] = entry
    if not pairs:
        return []
    steps = {arm: e["steps"][arm] for own in pairs.values() for e in own.values() for arm in reversed(e["arms"])}
    cleared = [f"{arm} {', '.join(str(step or 'never') for step in found)}" for arm, found in steps.items()]
    lines = [MATCHED, f"step by seed: {'; '.join(cleared)}. Differences in points (lowest to highest seed, n units):"]
    for (arm, rival), own in list(pairs.items())[:PAIRS_SHOWN]:
        cells = [(head[:-2], own.get((metric, group))) for head, metric, group in COLUMNS]
        parts = [f"{head} {_difference(e)}" for head, e in cells if e and e["delta"] is not None]
        lines.append(f"{arm} - {rival}: {'; '.join(parts) or 'in no seed do both clear'}.")
    more = len(pairs) - PAIRS_SHOWN
    lines[-1] += f" {more} more: results.json, matched." * (more > 0)
    return lines


def _difference(entry: Mapping[str, Any]) -> str:
    seeds = [round(100 * one["delta"]) for one in entry["per_seed"]]
    return f"{round(100 * entry['delta']):+d} ({min(seeds):+d} to {max(seeds):+d}, n {entry['n']})"
