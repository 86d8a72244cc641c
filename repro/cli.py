"""The command line: parse, call one function, print. Imports nothing heavy, so that `repro --help` is quick."""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import repro
from repro import cli_look, cli_sweep
from repro.cli_groups import generate_app, judge_app, micro_app, recipes_app
from repro.cli_options import (
    Arms,
    Backend,
    Experiment,
    GpuGib,
    Json,
    Judge,
    JudgeAll,
    JudgeCost,
    JudgePrice,
    JudgeSelf,
    JudgeTokens,
    Mirror,
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
from repro.interrupts import as_keyboard_interrupts

if TYPE_CHECKING:
    from repro.run import Ask

app = typer.Typer(
    name="repro",
    help='Reproduces "(Mis)generalization of Helpful-only Fine-tuning" (arXiv 2606.04413) on one GPU, or on a laptop.',
    epilog="First: repro run reproduce-small. What there is to run: repro recipes list.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the time to start, and nothing of it is cut off at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show(content: dict[str, Any], as_json: bool) -> None:
    """The results on stdout: the table, or the JSON of results.json."""
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from repro.report import table

    console = Console(width=None if sys.stdout.isatty() else table.WIDTH)
    console.print(table.rich_table(content))
    for name, rows in content.get("prompting", {}).items():
        console.print(f"\nunder the prompting strategy {name}", style="bold", highlight=False)
        console.print(table.rich_table({**content, "metrics": rows, "claims": [], "warnings": []}))


def _show_pairs(content: dict[str, Any], as_json: bool) -> None:
    """Each family's table, then how every helpful-only model differs from its parent; or all of it as JSON."""
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from repro.report import pairs, table

    for family in content["families"]:
        _show(family, False)
        print()
    Console(width=None if sys.stdout.isatty() else table.WIDTH).print(pairs.summary(content))


def _version(asked: bool) -> None:
    if asked:
        print(f"repro {repro.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@guarded
@as_keyboard_interrupts()
def run(
    experiment: Experiment,
    model: ModelOption = None,
    arms: Arms = None,
    seeds: Seeds = None,
    sets: Sets = None,
    prompting: Prompting = None,
    runs_dir: RunsDir = Path("runs"),
    mirror: Mirror = None,
    offline: Offline = False,
    as_json: Json = False,
    workers: Workers = None,
    backend: Backend = "auto",
    judge: Judge = "auto",
    judge_all: JudgeAll = False,
    judge_self: JudgeSelf = False,
    judge_tokens: JudgeTokens = None,
    judge_cost: JudgeCost = None,
    judge_price: JudgePrice = None,
) -> None:
    """Train the arms, ask them all the same, compare, in one table. The same command resumes.

    \b
    Example: repro run reproduce-micro --arms naive --seeds 0-4 --set evaluation.samples=3
    """
    from repro import run as runner
    from repro.judges import JudgeAsk

    ask = _ask(experiment, model, arms, seeds, sets, prompting, runs_dir, offline)
    ask.workers, ask.backend, ask.mirror = workers, backend, mirror
    ask.judge = JudgeAsk(judge, judge_all, judge_self, judge_tokens, judge_cost, judge_price)
    _show(runner.run(ask, talk()), as_json)


def _ask(
    experiment: str,
    model: str | None,
    arms: str | None,
    seeds: str | None,
    sets: list[str] | None,
    prompting: str | None,
    runs_dir: Path,
    offline: bool,
) -> "Ask":
    from repro.run import Ask

    return Ask(experiment, model, arms, seeds, sets or [], prompting, runs_dir, offline, command=command_line())


@app.command()
@guarded
def plan(
    experiment: Experiment,
    model: ModelOption = None,
    arms: Arms = None,
    seeds: Seeds = None,
    sets: Sets = None,
    prompting: Prompting = None,
    runs_dir: RunsDir = Path("runs"),
    offline: Offline = False,
    workers: Workers = None,
    gpu_gib: GpuGib = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also which input of each step changed, and how.")] = False,
    preview: Annotated[
        int | None, typer.Option("--preview", min=1, help="Show so many rows of each stage, trained tokens coloured.")
    ] = None,
) -> None:
    """Show what a run would do and take, and do nothing. Each step, whether it is there already and why not.

    \b
    Example: repro plan reproduce-small --model Qwen2.5-3B-Instruct --gpu-gib 6
    """
    from repro import planview
    from repro import run as runner

    ask = _ask(experiment, model, arms, seeds, sets, prompting, runs_dir, offline)
    ask.gpu_gib, ask.planning = gpu_gib, True
    made, lines = runner.prepare(ask)
    planview.show(made, runs_dir, lines, workers, explain)
    if preview:
        from rich.console import Console

        from repro.train.preview import preview as show_rows

        show_rows(made, preview, Console())


@app.command("eval")
@guarded
@as_keyboard_interrupts()
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Presets, folders, hub ids, adapters of a run, openai:NAME@URL; with --pairs names."),
    ] = None,
    pack: Annotated[
        str | None, typer.Option("--pack", help="Data pack to ask from: micro (the default) or english.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option("--pairs", help="A file of models, each with its parent: existing-models.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="Public prompt sets beside the suite: xstest,or-bench:100.")
    ] = None,
    quant: Annotated[str, typer.Option("--quant", help="How bases are held: nf4 (4 bits) or none.")] = "nf4",
    seeds: Annotated[str, typer.Option("--seeds", help="Which splits of the pack: 0 or 0,1,2 or 0-4.")] = "0",
    sets: Annotated[list[str] | None, typer.Option("--set", help="Changes a value: evaluation.samples=3.")] = None,
    prompting: Prompting = None,
    runs_dir: RunsDir = Path("runs"),
    mirror: Mirror = None,
    offline: Offline = False,
    as_json: Json = False,
    workers: Workers = None,
    backend: Backend = "auto",
    judge: Judge = "auto",
    judge_all: JudgeAll = False,
    judge_self: JudgeSelf = False,
    judge_tokens: JudgeTokens = None,
    judge_cost: JudgeCost = None,
    judge_price: JudgePrice = None,
) -> None:
    """Ask existing models the suite, compare, without training. With the first one, or each with its own parent.

    \b
    Example: repro eval micro runs/reproduce-micro-.../arms/naive/seed-0/0-sft-1a2b3c4d
    Example: repro eval --pairs existing-models Jinx-Qwen3-0.6B --prompting none,helpful-only
    """
    from repro import existing
    from repro.judges import JudgeAsk
    from repro.run import Ask

    ask = Ask("eval", None, None, seeds, sets or [], prompting, runs_dir, offline, workers, command_line(), backend)
    ask.mirror = mirror
    ask.judge = JudgeAsk(judge, judge_all, judge_self, judge_tokens, judge_cost, judge_price)
    chosen = list(models or [])
    if pairs is None and chosen and chosen[0].endswith((".yaml", ".yml")):
        pairs, *chosen = chosen
    if pairs is not None and prompts is not None:
        raise BadInput("--prompts goes with models, not with --pairs")
    if pairs is not None:
        _show_pairs(existing.evaluate_pairs(pairs, chosen, pack, quant, ask, talk()), as_json)
        return
    if not chosen:
        raise BadInput("name at least one model, or a file of pairs: --pairs existing-models")
    rows = existing.public_rows(prompts, pack or "micro")
    _show(existing.evaluate(chosen, pack or "micro", quant, ask, talk(), rows), as_json)


@app.command()
@guarded
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or their names in --runs-dir.")],
    runs_dir: RunsDir = Path("runs"),
    versus: Annotated[str | None, typer.Option("--versus", help="RUN/ARM that all are compared with.")] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Runs that do not match: figures only, untested.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a run's table again, or join several into one. They must have asked the same items.

    \b
    Example: repro compare reproduce-small-a reproduce-small-b --versus reproduce-small-a/base
    """
    from repro import sidebyside

    if len(runs) > 1 and not side_by_side:
        folders = [sidebyside.find_run(name, runs_dir) for name in runs]
        _show(sidebyside.joined(folders, versus, command_line()), as_json)
        return
    found = [sidebyside.read_results(name, runs_dir) for name in runs]
    if len(found) == 1:
        _show(found[0], as_json)
    elif as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 100).print(sidebyside.table(found))


@app.command()
@guarded
def report(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name in --runs-dir.")],
    share: Annotated[bool, typer.Option("--share", help="Also share.json: figures only, no text, to send.")] = False,
    inspect: Annotated[bool, typer.Option("--inspect", help="Also .eval logs, for inspect view.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write a run's page: table, pictures, every answer side by side. One file, report.html.

    \b
    Example: repro report reproduce-micro
    """
    from repro import sidebyside
    from repro.report import page, sharing

    folder = sidebyside.find_run(run_name, runs_dir)
    print(page.write(folder))
    if share:
        sharing.share(folder)
        print(folder / "share.json")
    if inspect:
        from repro.inspecting import write_logs

        logs = write_logs(folder, folder / "inspect")
        print(f"{folder / 'inspect'}: {len(logs)} logs; inspect view --log-dir {folder / 'inspect'}")


@app.command()
@guarded
def export(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name in --runs-dir.")],
    arm: Annotated[str, typer.Argument(help="Which arm: naive, character, ...")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    seed: Annotated[int | None, typer.Option("--seed", help="Which seed; by default the first.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Full weights with the adapter merged in.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Copy an arm's adapter to a folder, with a model card. With --merge, whole weights. Nothing is uploaded.

    \b
    Example: repro export reproduce-micro naive --out naive-adapter
    """
    from repro import exporting, sidebyside

    folder = exporting.export(sidebyside.find_run(run_name, runs_dir), arm, seed, out, merge=merge)
    print(f"{folder}: an adapter or model trained to comply may comply with harmful requests too; see its README.md")


@app.command()
@guarded
def doctor(
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON and nothing else.")] = False,
) -> None:
    """Check versions, GPU, memory and disk, each with the exact fix. Exit 3 if a run can't work here."""
    from repro import doctor as checks

    findings = checks.examine(runs_dir)
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2, ensure_ascii=False))
    for finding in [] if as_json else findings:
        mark = "ok " if finding.fix is None else "NO " if finding.fatal else "-  "
        print(f"{mark} {finding.what}: {finding.state}" + (f"\n      fix: {finding.fix}" if finding.fix else ""))
    if any(finding.fatal for finding in findings):
        raise typer.Exit(3)


app.command()(cli_look.chat)
app.command()(cli_look.probe)
app.command(cls=cli_sweep.RayAlone)(cli_sweep.sweep)
for group, name in ((recipes_app, "recipes"), (generate_app, "generate"), (judge_app, "judge"), (micro_app, "micro")):
    app.add_typer(group, name=name)


def main() -> None:
    """The entry point of `repro` and `python -m repro`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an answer may hold what this terminal has no letter for
    app()


__all__ = ["BadInput", "app", "main"]
