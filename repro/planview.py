"""Prints a plan: its steps, which are there already, why the others are not, and the estimate."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from repro import changes, estimate, recipes, store
from repro.plan import Plan, expected_seconds, missing
from repro.progress import duration
from repro.run import beside, crew, elsewhere


def memory_lines(plan: Plan) -> list[str]:
    """Peak GPU memory of each kind of stage and of answering, whether it fits, and what to change where it doesn't."""
    fits = estimate.fits(plan)
    if not fits or plan.gpu is None:
        why = "not estimated without a GPU: give one with --gpu-gib 6"
        return [f"peak GPU memory: {'none, on the CPU' if plan.experiment.pack == 'micro' else why}"]
    lines = [f"peak GPU memory (of {plan.gpu.total_gib:.1f} GiB):"]
    for fit in fits:
        size = "prompts at a time" if fit.what == "answers" else "micro-batch"
        verdict = f"fits with {size} {fit.micro_batch}" if fit.fits else f"does not fit, even with {size} 1"
        lines.append(f"  {fit.what:<8}{fit.peak_gib:5.1f} GiB  {verdict}")
    if not all(fit.fits for fit in fits):
        lines.append(f"  {estimate.advice(plan, recipes.presets())}")
    return lines


def show(plan: Plan, runs_dir: Path, lines: list[str], workers: int | None, explain: bool = False) -> None:
    """Prints to stdout; with `explain`, below each step that is made again what changed. Raises BadInput where the run
    folder is another experiment's."""
    root = runs_dir / plan.folder_name
    store.check(root, plan.digest)
    console = Console(highlight=False)
    for line in [*lines, f"model {plan.spec.id}, run folder {root}", ""]:
        console.print(line, markup=False, soft_wrap=True)
    reasons = missing(plan, root)
    taken = elsewhere(plan, reasons, beside(runs_dir, root))
    width = max(len(step.title) for step in plan.steps.values())
    for key, step in plan.steps.items():
        seconds = "" if step.seconds is None else duration(step.seconds)
        state = "there" if key not in reasons else f"to do: {reasons[key]}"
        state = f"there, in {taken[key].relative_to(runs_dir)}" if key in taken else state
        console.print(f"{key[:8]}  {step.title:<{width}}  {seconds:>12}  {state}", markup=False, soft_wrap=True)
        for line in changes.explain(plan, step, root, reasons) if explain else ():
            console.print(f"{'':<10}{line}", markup=False, soft_wrap=True)
    todo = [plan.steps[key] for key in reasons if key not in taken]
    count, threads, device = crew(plan, todo, workers)
    console.print(f"\n{len(todo)} of {len(plan.steps)} steps to do; comparing always", markup=False)
    if not todo:
        return
    console.print(f"workers: {count} of {threads} thread{'s' * (threads > 1)}, device {device}", markup=False)
    about = expected_seconds(todo, count)
    rough = "" if plan.gpu is None or device == "cpu" else " (rough: from the GPU's data sheet, not measured)"
    known = "not estimated for this model and machine" if about is None else f"about {duration(about)}{rough}"
    console.print(f"time: {known}", markup=False)
    for line in memory_lines(plan):
        console.print(line, markup=False, soft_wrap=True)
    size = plan.spec.download_gib
    download = "none" if "@" not in plan.base else "not known" if size is None else f"{size:g} GiB unless cached"
    console.print(f"download: {download}", markup=False)
