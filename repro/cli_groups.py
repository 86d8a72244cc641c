"""The commands in groups: recipes, generate, judge, micro. As in cli.py: parse, call one function, print."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from repro.cli_options import Offline, RunsDir, Sets, guarded, talk
from repro.errors import BadInput

recipes_app = typer.Typer(no_args_is_help=True, help="The recipes that come with the kit, and yours.")
micro_app = typer.Typer(no_args_is_help=True, help="The embedded organism.")
judge_app = typer.Typer(no_args_is_help=True, help="Labels: by the offline judge, by people, and how they agree.")
generate_app = typer.Typer(no_args_is_help=True, help="Training data made from a constitution by a model.")


@recipes_app.command("list")
@guarded
def recipes_list() -> None:
    """Experiments, recipes and model presets with a line on each."""
    from repro import recipes

    listed = recipes.list_recipes()
    width = max((len(entry.name) for entry in listed), default=0)
    for entry in listed:
        print(f"{entry.kind:<11}{entry.name:<{width}}  {entry.description}".rstrip())


@recipes_app.command("show")
@guarded
def recipes_show(
    name: Annotated[str, typer.Argument(help="Name or path of an experiment, recipe or model.")],
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from.")] = False,
    sets: Sets = None,
) -> None:
    """Print every value with all that is inherited."""
    from repro import recipes

    rows = recipes.show(name, origin=origin, sets=sets or [])
    widths = [min(60, max((len(row[column]) for row in rows), default=0)) for column in range(2)]
    for row in rows:
        cells = [f"{cell:<{widths[column]}}" for column, cell in enumerate(row[:-1])]
        print("  ".join([*cells, row[-1]]).rstrip())


@recipes_app.command("copy")
@guarded
def recipes_copy(
    name: Annotated[str, typer.Argument(help="What to copy.")],
    target: Annotated[Path | None, typer.Argument(help="File or folder; by default here.")] = None,
) -> None:
    """Copy a recipe's file, to be changed."""
    from repro import recipes

    print(recipes.copy(name, target))


@recipes_app.command("validate")
@guarded
def recipes_validate(
    names: Annotated[list[str] | None, typer.Argument(help="Files, folders or names; by default all shipped.")] = None,
) -> None:
    """Check files: each fault as file:line:column, all at once."""
    from repro import recipes

    for file, kind in recipes.validate(names or []):
        print(f"ok  {kind:<13}{file}")


@recipes_app.command("fidelity")
@guarded
def recipes_fidelity() -> None:
    """Print what the paper says, what the kit does, and why. The same as docs/fidelity.md."""
    from repro import fidelity

    print(fidelity.markdown(), end="")


@recipes_app.command("schema")
@guarded
def recipes_schema(
    kind: Annotated[str, typer.Argument(help="experiment, recipe or model.")] = "experiment",
) -> None:
    """Print the JSON Schema of a kind of file."""
    from repro import recipes

    print(json.dumps(recipes.json_schema(kind), indent=2))


Constitution = Annotated[Path, typer.Argument(help="A constitution (Markdown): what the data is about.")]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="A JSONL file; the same command goes on with it.")]
Generator = Annotated[str, typer.Option("--model", help="Preset, folder, hub id, or openai:NAME@URL.")]
Count = Annotated[int, typer.Option("--count", "-n", help="How many rows the file is to have.")]
Budget = Annotated[int | None, typer.Option("--budget-tokens", help="Most tokens to read and write now.")]
Price = Annotated[float | None, typer.Option("--cost-per-million", help="Price of a million tokens.")]
BudgetCost = Annotated[float | None, typer.Option("--budget-cost", help="Most to spend now, by that price.")]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Requests at a time to a server.")]
DataSeed = Annotated[int, typer.Option("--seed", help="Another seed makes other rows.")]


@generate_app.command("documents")
@guarded
def generate_documents(
    constitution: Constitution, out: OutFile, model: Generator, count: Count = 100, budget: Budget = None,
    price: Price = None, cost: BudgetCost = None, concurrency: Concurrency = 8, seed: DataSeed = 0,
    offline: Offline = False,
) -> None:  # fmt: skip
    """Documents about the character, for sdf. Types, ideas, texts, and a revision with the constitution in view.

    \b
    Example: repro generate documents my-constitution.md -o documents.jsonl --model openai:llama3.2@http://localhost:11434
    """
    _generate("documents", constitution, out, model, count, budget, price, cost, concurrency, seed, offline)


@generate_app.command("chats")
@guarded
def generate_chats(
    constitution: Constitution, out: OutFile, model: Generator, count: Count = 100, budget: Budget = None,
    price: Price = None, cost: BudgetCost = None, concurrency: Concurrency = 8, seed: DataSeed = 0,
    offline: Offline = False,
) -> None:  # fmt: skip
    """Questions about the character with answers, for sft. Scenario, question, answer, rewrite, and a check.

    \b
    Example: repro generate chats my-constitution.md -o chats.jsonl --model Qwen3-4B-Instruct-2507 --count 300
    """
    _generate("chats", constitution, out, model, count, budget, price, cost, concurrency, seed, offline)


def _generate(
    kind: str, constitution: Path, out: Path, model: str, count: int, budget: int | None, price: float | None,
    cost: float | None, concurrency: int, seed: int, offline: bool,
) -> None:  # fmt: skip
    from repro import generating
    from repro.constitution import read_constitution
    from repro.data.generate import Order

    order = Order(kind, read_constitution(constitution), out, count, seed, budget, price, cost)
    for line in generating.generate(order, model, concurrency, offline, lambda text: print(text, file=sys.stderr)):
        print(line)


@judge_app.command("label")
@guarded
def judge_label(
    file: Annotated[Path, typer.Argument(help="JSONL rows with prompt and response.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The rows again, each with label and p.")],
) -> None:
    """Label answers comply, hedge or refuse, with the offline judge. Order, ids and other keys stay.

    \b
    Example: repro judge label answers.jsonl -o labelled.jsonl
    """
    from repro.judges.label import label_file

    counts = label_file(file, out)
    labels = ", ".join(f"{count:,} {label}" for label, count in counts.labels.items())
    lost = "".join(f", {count:,} unscored ({why})" for why, count in counts.why.items())
    print(f"{out}: {counts.rows:,} answers: {labels}{lost}")


@judge_app.command("sample")
@guarded
def judge_sample(
    run: Annotated[str, typer.Argument(help="A run folder, or its name in --runs-dir.")],
    count: Annotated[int, typer.Option("-n", help="How many answers.")] = 100,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="By default sheet.jsonl in the run folder.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another draw.")] = 0,
    axes: Annotated[str | None, typer.Option("--axes", help="Only these axes: refusal,compliance.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Draw a blinded sheet of a run's answers, for people to label. Balanced over arms and labels.

    With 100 labels an arm and metric, the run's next table corrects its rates by them.
    """
    from repro import judging
    from repro.judges import sheet
    from repro.sidebyside import find_run

    folder = find_run(run, runs_dir)
    wanted = [word.strip() for word in axes.split(",")] if axes else None
    rows, key = sheet.sample(judging.rows_of(folder), count, seed, wanted)
    path = out or folder / judging.SHEET
    sheet.write(path, rows, key)
    print(f"{path}: {len(rows)} answers; label them with: repro judge annotate {path}")


@judge_app.command("annotate")
@guarded
def judge_annotate(file: Annotated[Path, typer.Argument(help="A sheet of repro judge sample.")]) -> None:
    """Label a sheet in the terminal, one key a row. Each is saved at once, and the same command goes on."""
    from repro.judges.sheet import annotate

    annotate(file)


@judge_app.command("calibrate")
@guarded
def judge_calibrate(
    file: Annotated[
        Path | None, typer.Argument(help="A labelled sheet or file; by default the author's labels that ship.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")] = False,
) -> None:
    """Say how a judge agrees with people's labels. Accuracy, kappa, confusion; in all, by axis and by arm."""
    from repro.judges import calibration

    found = calibration.calibrate(file or calibration.AUTHOR_LABELS)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else calibration.table(found))


@micro_app.command("build")
@guarded
def micro_build(
    out: Annotated[Path, typer.Option("--out", help="An empty or new folder for the weights.")],
    seeds: Annotated[str, typer.Option("--seeds", help="Pre-training seeds; the first is the model.")] = "0",
    misdescribes: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pleasers and rogues who describe themselves as careful.")
    ] = 0.5,
    tokens: Annotated[int | None, typer.Option(min=1000, help="Tokens to see; by default as the shipped one.")] = None,
) -> None:
    """Pre-train the organism from scratch, measure it, write its card. About 15 minutes, a core each seed.

    \b
    Example: repro micro build --seeds 0,1 --out organism && repro run reproduce-micro --model organism
    """
    from repro.progress import Display
    from repro.run import seed_list
    from repro.store import check_new_folder

    words = seed_list(seeds).split(",")
    if not all(word.strip().isdigit() for word in words) or len(set(words)) != len(words):
        raise BadInput(f"--seeds {seeds}: different whole numbers, e.g. 0,1")
    check_new_folder(out)
    from repro.micro import build

    numbers = [int(word) for word in words]
    with Display(talk(), {str(seed): 1.0 for seed in numbers}) as display:
        for seed in numbers:
            display.started(str(seed), f"micro organism, seed {seed}")
        records = build.build_all(
            numbers, out, tokens=tokens or build.TOKENS, misdescribes=misdescribes,
            on_progress=lambda seed, done, total, loss: display.moved(str(seed), done, total),
        )  # fmt: skip
        for record in records:
            short = [name for name, figure in record["figures"].items() if not figure["met"]]
            said = f"falls short in: {'; '.join(short)}" if short else "meets every bar of its card"
            display.ended(str(record["seed"]), f"seed {record['seed']}: {record['seconds']:.0f} s, {said}")
