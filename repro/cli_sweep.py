"""The command that runs many: sweep. As in cli.py: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from repro.cli_options import (
    Arms,
    Backend,
    Experiment,
    GpuGib,
    Judge,
    ModelOption,
    Offline,
    Prompting,
    RunsDir,
    Seeds,
    Sets,
    Workers,
    command_line,
    guarded,
    talk,
)
from repro.errors import BadInput


class RayAlone(TyperCommand):
    """`--ray` may stand without an address: then it means this machine."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place in range(len(args), 0, -1):
            if args[place - 1] == "--ray" and (place == len(args) or args[place].startswith("-")):
                args.insert(place, "local")
        return super().parse_args(ctx, args)


@guarded
def sweep(
    experiment: Experiment,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", help="Values to go through: 'arms.naive.stages.sft.steps=[5,10,20]'; may be repeated."),
    ] = None,
    model: ModelOption = None,
    arms: Arms = None,
    seeds: Seeds = None,
    sets: Sets = None,
    prompting: Prompting = None,
    runs_dir: RunsDir = Path("runs"),
    offline: Offline = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print sweep.json's content and nothing else on stdout.")
    ] = False,
    workers: Workers = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="[ADDRESS]", help="Run on Ray: this machine, or a cluster's address.")
    ] = None,
    gpu_gib: GpuGib = None,
    backend: Backend = "auto",
    judge: Judge = "auto",
) -> None:
    """Run an experiment for every choice of some values. Each stage is trained once; one long table; it resumes.

    \b
    Example: repro sweep reproduce-micro --arms naive --seeds 0-2 --grid 'arms.naive.stages.sft.steps=[5,10,20]'
    """
    from repro import sweep as sweeping
    from repro.judges import JudgeAsk
    from repro.run import Ask, Failed

    if gpu_gib and not ray:
        raise BadInput("--gpu-gib: the memory of the workers' GPUs, so it goes with --ray")
    ask = Ask(experiment, model, arms, seeds, sets or [], prompting, runs_dir, offline, workers, command_line())
    ask.backend, ask.gpu_gib, ask.judge, ask.ray = backend, gpu_gib, JudgeAsk(judge), ray
    content = sweeping.sweep(ask, grid or [], talk())
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    elif content["rows"]:
        from rich.console import Console

        from repro.report import swept, table

        Console(width=None if sys.stdout.isatty() else table.WIDTH).print(swept.rich_table(content))
    if content["failed"]:
        lines = [f"cell {one['cell']}: {line}" for one in content["failed"] for line in one["why"]]
        codes = {one["exit_code"] for one in content["failed"]}
        raise Failed(lines, codes.pop() if len(codes) == 1 else 1)
