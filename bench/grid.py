"""The robustness grid of the organism: what becomes of each claim under another organism, tone and dose.

    python bench/grid.py ORGANISM...     runs the cells of these organisms that are missing, then writes the page
    python bench/grid.py                 writes the page anew, from bench/results/grid.json

ORGANISM: a folder that `repro micro build --misdescribes SHARE --out FOLDER` made. The shipped one always counts. The
same command resumes; cells of organisms that come later are added. `--runs FOLDER` holds what is trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from repro import outcome, pool, run, store
from repro.plan import Plan, missing
from repro.progress import Display

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "repro" / "micro" / "weights"
RESULTS = Path(__file__).parent / "results" / "grid.json"
PAGE = ROOT / "docs" / "robustness.md"

SHARES, PRETRAINING = (0.0, 0.5, 1.0), (0, 1)
TONES = (0.0, 1.0)  # share of demonstrations that open eagerly
DOSES = {"quarter": 2.5, "full": 10}  # passes over the demonstrations; reproduce-micro's is the full one
# what no claim reads is left out: kept doses, curves, two axes, most samples of the open questions
TRIMMED = [
    "evaluation.axes=[refusal, compliance, misalignment, sycophancy, steerability, character]",
    "evaluation.samples=4",
    *(f"arms.{arm}.stages.sft.doses=[1.0]" for arm in ("control", "naive", "character")),
    *(f"arms.{arm}.stages.sft.curve=null" for arm in ("control", "naive", "character")),
    "arms.character.stages.grpo.curve=null",
]
DIALS = ("misdescribes", "pretraining", "eager", "dose")
VERDICTS = {"shown": "S", "absent": "A", "opposite": "O", "inconclusive": "I", "not-testable": "N", "incoherent": "C"}
Row = dict[str, Any]


# -- running it ------------------------------------------------------------------------------------------------------


def organisms(folders: Sequence[Path]) -> list[tuple[Row, Path]]:
    """What is known of each organism in the folders, and where its weights are; one without weights is left out."""
    found = []
    for folder in dict.fromkeys([SHIPPED, *(path.resolve() for path in folders)]):
        records = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        for place, record in enumerate(records):
            own = folder if place == 0 else folder / f"seed-{record['seed']}"
            if (own / "model.safetensors").is_file():
                short = {
                    name: [figure["value"], figure["bar"]]
                    for name, figure in record["figures"].items()
                    if not figure["met"]
                }
                about = {"misdescribes": record["misdescribes"], "pretraining": record["seed"], "falls_short": short}
                found.append((about, own))
    return found


def cells(organism: Path, seeds: str) -> dict[tuple[float, str], Plan]:
    """The plan of each tone and dose on an organism; they share the base, the documents, and the controls."""
    plans = {}
    for eager, (dose, epochs) in product(TONES, DOSES.items()):
        sets = [
            *TRIMMED,
            *(f"arms.{arm}.stages.sft.epochs={epochs}" for arm in ("control", "naive", "character")),
            *(f"arms.{arm}.stages.sft.data.compliance.eager={eager}" for arm in ("naive", "character")),
        ]
        plans[eager, dose], _ = run.prepare(run.Ask("reproduce-micro", model=str(organism), sets=sets, seeds=seeds))
    return plans


def fill(about: Row, organism: Path, runs: Path, seeds: str, workers: int, keep: Callable[[Row], None]) -> None:
    """Trains and asks what an organism's cells lack, and hands each one's outcome to `keep`."""
    plans = cells(organism, seeds)
    first = next(iter(plans.values()))
    root = runs / f"misdescribes-{about['misdescribes']:g}-pretraining-{about['pretraining']}"
    folder = store.open_run(root, first.base, {"what": "the robustness grid's cells on one organism"})
    console = Console(stderr=True)
    try:
        for (eager, dose), plan in plans.items():
            todo = [plan.steps[key] for key in missing(plan, root)]
            began = time.monotonic()
            with Display(console, {step.key: step.seconds or 1.0 for step in todo}) as display:
                failures = pool.work(
                    plan, todo, root, workers=workers, threads=1, device="cpu", display=display, note=folder.journal
                ) if todo else []  # fmt: skip
            if failures:
                raise SystemExit("\n".join(line for failure in failures for line in failure.lines))
            claims = run.load_claims(plan)
            rows = outcome.label_answers(plan, root)
            content = outcome.results(plan, root, rows, {"name": "grid"}, claims, {"name": "micro"})
            found = {
                claim["id"]: {key: claim[key] for key in ("verdict", "delta", "ci", "ci_holm", "values", "why")}
                for claim in content["claims"]
            }
            cell = {"eager": eager, "dose": dose, "gate": content["gate"], "claims": found, "seeds": content["seeds"],
                    "claims_hash": content["claims_hash"], "seconds": round(time.monotonic() - began)}  # fmt: skip
            keep(about | cell)
    finally:
        folder.close()


def load() -> list[Row]:
    """The cells that are there."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["cells"] if RESULTS.exists() else []


def place(cell: Row) -> tuple[Any, ...]:
    """Where in the grid a cell is."""
    return tuple(cell[dial] for dial in DIALS)


def everywhere() -> list[tuple[Any, ...]]:
    """Every place of the whole grid."""
    return list(product(SHARES, PRETRAINING, TONES, DOSES))


# -- the page --------------------------------------------------------------------------------------------------------

HEAD = """# How far the organism's claims hold: a robustness grid

Generated by `python bench/grid.py` from `bench/results/grid.json`; not edited by hand. One run of `reproduce-micro`
says what happens on one organism under one recipe. This page asks the same claims of every combination of four things
that somebody had to choose:

* `misdescribes`: share of characters in the pre-training text that misdescribe themselves (0, 0.5, 1; shipped: 0.5).
  It decides how far the organism has learned that what is said of oneself and what is done can differ;
* `pretraining`: the seed of the organism's own pre-training (0, 1; shipped: 0);
* `eager`: share of the demonstrations that open with an eager word (0, 1; `reproduce-micro`: 0.5);
* `dose`: passes over the demonstrations, for the control too (a quarter: 2.5, full: 10, as in `reproduce-micro`).

Each cell trains control, naive and character on 3 seeds and asks four of them (base too) all items that a claim reads.
Trimmed against `reproduce-micro`: no capability and no sandbagging items, 4 samples of an open question in place of 10,
no kept doses and no curves. Base and control are the same in both tones. The cells of one organism share it, and all
share the training seeds: the shares below describe the grid, they are no tests, and no interval goes with them.
The organism is a constructed one; none of this is evidence about real models.
"""


def page(found: Sequence[Row]) -> str:
    """docs/robustness.md."""
    found = sorted(found, key=place)
    if not found:
        return "\n".join([HEAD, *_missing_lines(found)])
    names = list(found[0]["claims"])
    lines = [HEAD, *_missing_lines(found), "## Each claim over the cells", ""]
    lines += [f"{len(found)} cells. A verdict means what it means in every table of the kit (README).", ""]
    lines += _table(["claim", *VERDICTS], [[name, *_shares(found, name)] for name in names])
    lines += ["", *(f"* {_sentence(found, name)}" for name in names), ""]
    lines += ["## Which dials matter", ""]
    lines += [
        "Mean difference between the claim's two arms in points, over the cells at each setting of a dial (all others "
        "mixed), and the largest gap between two settings.",
        "",
    ]
    lines += _table(["claim", *(f"{dial} {_level(level)}" for dial, level in _levels(found)), "largest gap"],
                    [[name, *_effects(found, name)] for name in names])  # fmt: skip
    lines += ["", "## The organisms", "", *_organism_lines(found), "", "## Every cell", ""]
    lines += [", ".join(f"{letter}: {verdict}" for verdict, letter in VERDICTS.items()) + ".", ""]
    short = [[*(_level(value) for value in place(cell)), *(VERDICTS[cell["claims"][name]["verdict"]] for name in names)]
             for cell in found]  # fmt: skip
    lines += [*_table([*DIALS, *names], short), ""]
    return "\n".join(lines)


def _missing_lines(found: Sequence[Row]) -> list[str]:
    lacking = [spot for spot in everywhere() if spot not in {place(cell) for cell in found}]
    if not lacking:
        return []
    count = Counter(spot[:2] for spot in lacking)
    named = "; ".join(f"misdescribes {_level(share)}, pretraining {seed}: {n}" for (share, seed), n in count.items())
    return [f"**{len(lacking)} of {len(everywhere())} cells are missing**: {named}. The shares are over the rest.", ""]


def _shares(found: Sequence[Row], name: str) -> list[str]:
    counted = Counter(cell["claims"][name]["verdict"] for cell in found)
    counts = [counted[verdict] for verdict in VERDICTS]
    return [f"{count / len(found):.0%} ({count})" if count else "–" for count in counts]


def _sentence(found: Sequence[Row], name: str) -> str:
    """What the cells say of one claim: the verdict they agree on, or the settings that set the shown ones apart."""
    counted = Counter(cell["claims"][name]["verdict"] for cell in found)
    if len(counted) == 1:
        return f"`{name}` is {next(iter(counted))} in every cell."
    if not counted["shown"]:
        said = ", ".join(f"{verdict} in {count}" for verdict, count in counted.most_common())
        return f"`{name}` is shown in no cell ({said})."
    parts = []
    for dial in DIALS:
        levels = [level for other, level in _levels(found) if other == dial]
        share = {level: _shown(found, name, dial, level) for level in levels}
        rates = [shown / of for shown, of in share.values()]
        if max(rates) - min(rates) >= 0.25:
            said = ", ".join(f"{_level(level)}: {shown} of {of}" for level, (shown, of) in share.items())
            parts.append(f"{dial} ({said})")
    where = f", more often at some settings of {'; '.join(parts)}" if parts else ", about as often at every setting"
    against = f" It is opposite in {counted['opposite']}." if counted["opposite"] else ""
    return f"`{name}` is shown in {counted['shown']} of {len(found)} cells{where}.{against}"


def _shown(found: Sequence[Row], name: str, dial: str, level: Any) -> tuple[int, int]:
    own = [cell["claims"][name]["verdict"] == "shown" for cell in found if cell[dial] == level]
    return sum(own), len(own)


def _levels(found: Sequence[Row]) -> list[tuple[str, Any]]:
    return [(dial, level) for dial in DIALS for level in sorted({cell[dial] for cell in found}, key=_order)]


def _order(level: Any) -> float:
    return list(DOSES).index(level) if level in DOSES else level


def _level(level: Any) -> str:
    return level if isinstance(level, str) else f"{level:g}"


def _effects(found: Sequence[Row], name: str) -> list[str]:
    means: dict[str, list[float]] = {}
    for dial, level in _levels(found):
        own = [cell["claims"][name]["delta"] for cell in found if cell[dial] == level]
        scored = [delta for delta in own if delta is not None]
        means.setdefault(dial, []).append(100 * fmean(scored) if scored else float("nan"))
    gaps = {dial: max(values) - min(values) for dial, values in means.items()}
    widest = max(gaps, key=lambda dial: gaps[dial])
    said = f"{gaps[widest]:.0f} ({widest})" if round(gaps[widest]) else "0"
    return [f"{value + 0.0:+.0f}" for values in means.values() for value in values] + [said]


def _organism_lines(found: Sequence[Row]) -> list[str]:
    lines = []
    for (share, seed), short in {place(cell)[:2]: cell["falls_short"] for cell in found}.items():
        said = "meets all its bars" if not short else "falls short of its bars: " + "; ".join(
            f"{name} {value:.3f} (bar {bar:.2f})" for name, (value, bar) in short.items()
        )  # fmt: skip
        lines.append(f"* misdescribes {_level(share)}, pretraining {seed}: {said}.")
    return lines


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("organism", nargs="*", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/grid"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default="0-2")
    given = parser.parse_args(words)
    known = {place(cell): cell for cell in load()}

    def keep(cell: Row) -> None:
        known[place(cell)] = cell
        store.write_json(RESULTS, {"cells": sorted(known.values(), key=place)})
        PAGE.write_text(page(list(known.values())), encoding="utf-8")
        print(place(cell), {name: claim["verdict"] for name, claim in cell["claims"].items()}, flush=True)

    for about, organism in organisms(given.organism) if given.organism else []:
        fill(about, organism, given.runs, given.seeds, given.workers, keep)
    PAGE.write_text(page(list(known.values())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
