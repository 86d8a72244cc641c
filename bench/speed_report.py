"""The part of docs/performance.md that bench/speed.py measures: bars, where the time goes, growth."""

from __future__ import annotations

from typing import Any

Found = dict[str, Any]


def lines(found: Found) -> list[str]:
    """Markdown of the sections that were measured; the others are left out."""
    out = ["", f"### reproduce-small on the organism ({found.get('cores', '?')} cores)", ""]
    out += ["`make bench`, medians of 5 where short. A bar that is missed is marked.", ""]
    out += ["| what | measured | bar |", "| --- | --- | --- |"]
    out += [f"| {what} | {text}{'' if met else ' **missed**'} | {bar} |" for what, text, bar, met in _bars(found)]
    if "run" in found:
        out += ["", "#### Where the time goes", "", *_where(found["run"])]
    if "growth" in found:
        out += ["", "#### How it grows", "", "CPU seconds for 1, 2, 5 and 10 times the seeds (answering: items).", ""]
        out += ["| what | CPU seconds | exponent |", "| --- | --- | --- |"]
        for name, one in found["growth"].items():
            costs = " / ".join(f"{cost:.2f}" for cost in one["cpu_seconds"])
            out.append(f"| {name} | {costs} | {one['exponent']:.2f} |")
    return out


def _bars(found: Found) -> list[tuple[str, str, str, bool]]:
    bars: list[tuple[str, str, str, bool]] = []
    if "start" in found:
        times = found["start"]["times_empty"]
        text = f"{times['repro --help']:.1f} times (a Typer of two commands: {times['typer']:.1f})"
        met = times["repro --help"] <= 16 and found["start"]["heavy"] == "[]"
        bars.append(("`repro --help` against `python -c pass`", text, "16 times, nothing heavy imported", met))
    if "run" in found:
        share = found["run"]["overhead"]
        what = "share of the run that is no training, answering or judging"
        bars.append((what, f"{share:.1%}", "under 10%", share < 0.1))
    if "warm" in found:
        took = found["warm"]["seconds"]
        bars.append(("a run where all is there", f"{took:.1f} s", "3 s", took < 3))
    if "stock" in found:
        one = found["stock"]
        for name, how in (("ratio", "one after the other, 2 threads"), ("ratio_two_at_a_time", "two at a time")):
            text = f"{one[name]:.2f} times as fast"
            bars.append((f"against TRL + PEFT scripts, {how}", text, "1.5 times", one[name] >= 1.5))
    if "ray" in found:
        ratio = found["ray"]["ratio"]
        what = "a Ray sweep of 8 cells on two workers, against one"
        bars.append((what, f"{ratio:.2f} times as fast", "1.7 times", ratio >= 1.7))
    if "growth" in found:
        worst = max(one["exponent"] for one in found["growth"].values())
        bars.append(("growth up to 10 times, worst exponent", f"{worst:.2f}", "1.05", worst <= 1.05))
    if "packing" in found:
        ratio = found["packing"]["ratio"]
        bars.append(("documents packed, against padded", f"{ratio:.2f} times as fast", "none", True))
    if "compile" in found:
        one = found["compile"]
        text = one.get("failed") or f"{one['ratio_a_step']:.2f} a step, {one['ratio_of_30']:.2f} over 30 with compiling"
        bars.append(("torch.compile, times as fast", text, "none", True))
    return bars


def _where(run: Found) -> list[str]:
    """The wall time by phase, then the workers' time by what they did."""
    wall, workers = run["seconds"], run["workers"]
    rows = [("start-up, imports and planning", run["planning"]), ("steps, in the workers", run["steps"]),
            ("judging", run["judging"]),
            ("statistics, tables, report", run["comparison"] - run["judging"])]  # fmt: skip
    out = [f"The whole took {wall:.0f} s with {workers} workers.", ""]
    out += ["| phase | seconds | share |", "| --- | --- | --- |"]
    out += [f"| {name} | {took:.1f} | {took / wall:.0%} |" for name, took in rows]
    out += ["", "| in the workers | steps | seconds | around them: loading, tokenising, set-up, saving |"]
    out += ["| --- | --- | --- | --- |"]
    for kind, one in run["work"].items():
        out.append(f"| {kind} | {one['steps']} | {one['inside']:.1f} | {one['around']:.1f} |")
    return [*out, f"| imports, and idle at the end | | {run['waiting']:.1f} | |"]
