"""What the report draws along training: behaviour at each kept dose, and loss or reward by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from repro.report import doses
from repro.runfolder import Stage, number

PROBED = (  # title, metric: all its groups together, since a probe has few items
    ("refusal trained ↓", "refusal_trained"),
    ("refusal held-out ↓", "refusal_heldout"),
    ("declines when told ↑", "declines_when_told"),
    ("policy matches behaviour ↑", "policy_matches_behaviour"),
)
STEPS_SHOWN = 50  # of a loss curve; more are averaged


@dataclass(frozen=True)
class Point:
    """One place on an arm's line: the mean over its seeds, the lowest and the highest seed."""

    x: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One panel: its lines by arm."""

    title: str
    x_name: str
    lines: dict[str, list[Point]]
    percent: bool = False
    log_x: bool = False
    band: bool = False  # low and high as a band though the points are few


def behaviour(results: Mapping[str, Any]) -> list[Curve]:
    """One panel for each behaviour that is followed along the training: by the probes, else over the kept doses."""
    return _probed(results.get("curves") or []) or _dosed(results)


def _probed(entries: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Percent by optimiser steps, an arm's probed stages one after the other."""
    found = []
    for title, metric in PROBED:
        lines: dict[str, list[Point]] = {}
        for arm in dict.fromkeys(entry["arm"] for entry in entries):
            lines[arm] = _steps([entry for entry in entries if entry["arm"] == arm], metric)
        lines = {arm: points for arm, points in lines.items() if len(points) > 1}
        if lines:
            found.append(Curve(title, "optimiser steps; percent of the probes", lines, percent=True, log_x=True))
    return found


def _steps(entries: Sequence[Mapping[str, Any]], metric: str) -> list[Point]:
    """The mean over seeds at each step; a later stage's count on from the last one before it."""
    before, longest = 0, 0
    at: dict[int, dict[Any, list[Mapping[str, Any]]]] = {}
    for index in sorted({entry["index"] for entry in entries}):
        before += longest
        own = [entry for entry in entries if entry["index"] == index]
        longest = max(entry["step"] for entry in own)
        for entry in own:
            if entry["metric"] == metric and (entry["step"] or not before):
                at.setdefault(before + entry["step"], {}).setdefault(entry["seed"], []).append(entry)
    points = []
    for step, seeds in sorted(at.items()):
        values = [100 * fmean([e["value"] for e in es], [e["n"] for e in es]) for es in seeds.values()]
        points.append(Point(step, fmean(values), min(values), max(values)))
    return points


def _dosed(results: Mapping[str, Any]) -> list[Curve]:
    """Percent by tokens, or by steps."""
    entries = results.get("doses") or []
    in_tokens = all(entry.get("tokens") for entry in entries)
    found = []
    for title, metric, group in doses.COLUMNS:
        own = [e for e in entries if e["metric"] == metric and group in (None, e["group"])]
        lines = {arm: _ladder([e for e in own if e["arm"] == arm], in_tokens) for arm in {e["arm"]: None for e in own}}
        lines = {arm: points for arm, points in lines.items() if len(points) > 1}
        if lines:
            x_name = f"{'tokens' if in_tokens else 'steps'} of the sft stage; percent"
            found.append(Curve(title, x_name, lines, percent=True, log_x=True))
    return found


def _ladder(entries: Sequence[Mapping[str, Any]], in_tokens: bool) -> list[Point]:
    """The first, second, ... dose of each seed, which need not lie at the same step."""
    seeds: dict[Any, dict[int, list[Mapping[str, Any]]]] = {}
    for entry in entries:
        seeds.setdefault(entry["seed"], {}).setdefault(entry["step"], []).append(entry)
    ladders = [[own[step] for step in sorted(own)] for own in seeds.values()]
    points = []
    for rank in range(max(map(len, ladders), default=0)):
        here = [own[rank] for own in ladders if rank < len(own)]
        values = [100 * fmean([e["value"] for e in es], [e["n"] for e in es]) for es in here]
        x = fmean(es[0]["tokens"] if in_tokens else es[0]["step"] for es in here)
        points.append(Point(x, fmean(values), min(values), max(values)))
    return points


def losses(stages: Sequence[Stage]) -> list[Curve]:
    """One panel for each kind of stage, by step: the loss, or the reward where there is one."""
    kinds: dict[tuple[str, int], dict[str, list[list[dict[str, Any]]]]] = {}
    for stage in stages:
        if stage.log and not stage.shared:
            before = {s.index for s in stages if s.arm == stage.arm and s.kind == stage.kind and s.index < stage.index}
            kinds.setdefault((stage.kind, len(before)), {}).setdefault(stage.arm, []).append(stage.log)
    found = []
    for (kind, nth), arms in kinds.items():
        what = "reward" if any("reward" in row for logs in arms.values() for log in logs for row in log) else "loss"
        lines = {arm: points for arm, logs in arms.items() if (points := _along(logs, what))}
        if lines:
            name = kind if nth == 0 else f"{kind}, stage {nth + 1} of its kind"
            found.append(Curve(f"{what} in {name}", "step", lines))
    return found


def _along(logs: Sequence[Sequence[Mapping[str, Any]]], what: str) -> list[Point]:
    by_step: dict[int, list[float]] = {}
    for log in logs:
        for row in log:
            if (value := number(row.get(what))) is not None:
                by_step.setdefault(row["step"], []).append(value)
    steps = sorted(by_step)
    size = -(-len(steps) // STEPS_SHOWN) or 1
    points = []
    for start in range(0, len(steps), size):
        part = [by_step[step] for step in steps[start : start + size]]
        low, high = fmean(min(values) for values in part), fmean(max(values) for values in part)
        points.append(Point(fmean(steps[start : start + size]), fmean(fmean(v) for v in part), low, high))
    return points
