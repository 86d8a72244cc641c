"""The commands that look into a run rather than at its figures: chat, probe. As in cli.py: parse, call one function."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from repro.cli_options import RunsDir, guarded

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name in --runs-dir.")]
Who = Annotated[str | None, typer.Option("--arms", help="Only these arms: base,naive,character.")]


@guarded
def chat(
    run_name: Run,
    arms: Who = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Which training seed; by default the first.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: the likeliest answer.")] = 0.0,
    system: Annotated[str | None, typer.Option("--system", help="A system prompt for all arms.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Talk to the arms of a run, their answers side by side. /help lists the commands; lines may come from a pipe.

    \b
    Example: repro chat reproduce-micro --arms base,naive,character
    """
    from repro import sidebyside
    from repro.talk import talk

    talk(sidebyside.find_run(run_name, runs_dir), arms, seed, temperature=temperature, system=system)


@guarded
def probe(
    run_name: Run,
    arms: Who = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Only these seeds: 0,1.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print probes.json's content and nothing else on stdout.")
    ] = False,
) -> None:
    """Find emotions and declining in each arm's activations. Layer by layer: probes.json, and pictures.

    \b
    Example: repro probe reproduce-micro --seeds 0
    """
    from repro import probes, sidebyside

    folder = sidebyside.find_run(run_name, runs_dir)
    content = probes.probe(folder, arms, seeds, say=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    print("\n".join([*probes.summary(content), f"{folder / 'probes.json'}, pictures in {folder / 'probes'}"]))
