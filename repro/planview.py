"""Prints a plan: its steps, which are there already, why the others are not, and the estimate."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from repro import store
from repro.plan import Plan, expected_seconds, missing
from repro.progress import duration
from repro.run import crew


def show(plan: Plan, runs_dir: Path, lines: list[str], workers: int | None) -> None:
    """Prints to stdout. Raises BadInput where the run folder is another experiment's."""
    root = runs_dir / plan.folder_name
    store.check(root, plan.digest)
    console = Console(highlight=False)
    for line in [*lines, f"model {plan.spec.id}, run folder {root}", ""]:
        console.print(line, markup=False, soft_wrap=True)
    reasons = missing(plan, root)
    width = max(len(step.title) for step in plan.steps.values())
    for key, step in plan.steps.items():
        seconds = "" if step.seconds is None else duration(step.seconds)
        state = "there" if key not in reasons else f"to do: {reasons[key]}"
        console.print(f"{key[:8]}  {step.title:<{width}}  {seconds:>12}  {state}", markup=False, soft_wrap=True)
    todo = [plan.steps[key] for key in reasons]
    count, threads, device = crew(plan, todo, workers)
    console.print(f"\n{len(todo)} of {len(plan.steps)} steps to do; comparing always", markup=False)
    if not todo:
        return
    console.print(f"workers: {count} of {threads} thread{'s' * (threads > 1)}, device {device}", markup=False)
    about = expected_seconds(todo, count)
    if about is not None:
        console.print(f"time: about {duration(about)}", markup=False)
    else:
        console.print("time: not estimated for this model", markup=False)
    console.print("peak memory: not estimated", markup=False)
    size = plan.spec.download_gib
    download = "none" if "@" not in plan.base else "not known" if size is None else f"{size:g} GiB unless cached"
    console.print(f"download: {download}", markup=False)
