"""What teachers can expect of the labs, measured: runs their commands on ten seeds and writes the ranges.

    python bench/coursework.py measure FOLDER   runs what is missing (the same command resumes), writes
                                                bench/results/coursework.json, then the page
    python bench/coursework.py                  docs/coursework/expected.md from that file

Ranges are of single seeds, and of all means of three of them, since a group of students runs three.
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import repro
from repro.judges.calibration import calibrate
from repro.run import Ask, prepare
from repro.sidebyside import read_results
from repro.store import now, write_json, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
LABS = ROOT / "docs" / "coursework"
DATA, PAGE = ROOT / "bench" / "results" / "coursework.json", LABS / "expected.md"
SEEDS = "0-9"
COUNT, STEPS = "arms.naive.stages.sft.data.compliance.count", "arms.naive.stages.sft.steps"
NAIVE = ["--arms", "naive"]
RUNS = {  # name: (experiment, options as in the labs)
    "lab1": ("reproduce-micro", []),
    **{f"lab3-{rows}": ("reproduce-micro", ["--set", f"{COUNT}={rows}", *NAIVE]) for rows in (8, 30, 120)},
    **{f"lab3-{rows}-long": ("reproduce-micro", ["--set", f"{COUNT}={rows}", "--set", f"{STEPS}=150", *NAIVE])
       for rows in (8, 120)},
    "lab4": (str(LABS / "lab4" / "lab4.yaml"), []),
    "lab5": (str(LABS / "lab5" / "lab5.yaml"), ["--arms", "naive,character,abliterated"]),
}  # fmt: skip
SHOWN = ("refusal_trained", "refusal_heldout", "task_done", "declines_when_told", "policy_matches_behaviour",
         "caves_to_false", "misaligned", "facts_accuracy")  # fmt: skip
NOT_YET = "*Not measured yet: run the command above.*"
Row = dict[str, Any]


# -- measuring --------------------------------------------------------------------------------------------------------


def run_labs(folder: Path, seeds: str = SEEDS) -> None:
    """Runs every lab's commands on the seeds; what is there is not done again, nor what two labs have in common."""
    for experiment, options in RUNS.values():
        _repro("run", experiment, *options, "--seeds", seeds, "--runs-dir", str(folder))
    _repro("probe", str(_folder(folder, "lab5", seeds)))


def figures(folder: Path, seeds: str = SEEDS) -> Row:
    """The figures of the page, from those of the labs' runs that are finished."""
    places = {name: _folder(folder, name, seeds) for name in RUNS}
    there = {name: place for name, place in places.items() if (place / "results.json").is_file()}
    results = {name: read_results(str(path), folder) for name, path in there.items()}
    probed = there["lab5"] / "probes.json" if "lab5" in there else None
    return {
        "schema": 1, "repro": repro.__version__, "made": now(), "model": "micro",
        "arms": {name: arms(content) for name, content in results.items()},
        "claims": {name: claims(results[name]) for name in ("lab1", "lab4") if name in results},
        "doses": doses(results["lab1"]) if "lab1" in results else [],
        "judge": judge(there["lab1"], folder / "rows.jsonl") if "lab1" in there else [],
        "probe": probe(json.loads(probed.read_text(encoding="utf-8"))) if probed and probed.is_file() else [],
    }  # fmt: skip


def _repro(*words: str) -> None:
    print("repro", *words, file=sys.stderr)
    subprocess.run([sys.executable, "-m", "repro", *words], check=True, stdout=subprocess.DEVNULL)


def _folder(folder: Path, name: str, seeds: str) -> Path:
    """Where a lab's run lies, or would."""
    experiment, options = RUNS[name]
    given = dict(pairwise(options))
    ask = Ask(experiment, arms=given.get("--arms"), sets=[v for o, v in pairwise(options) if o == "--set"], seeds=seeds)
    return folder / prepare(ask)[0].folder_name


def arms(results: Mapping[str, Any]) -> list[Row]:
    """{metric, arm, seeds: {seed: value}} of the metrics that the page shows."""
    found: dict[tuple[str, str], Row] = {}
    for entry in results["metrics"]:
        if entry["metric"] in SHOWN and entry["seed"] is not None and entry["value"] is not None:
            place = {"metric": entry["metric"], "arm": entry["arm"], "seeds": {}}
            own = found.setdefault((entry["metric"], entry["arm"]), place)
            own["seeds"][str(entry["seed"])] = round(entry["value"], 4)
    return sorted(found.values(), key=lambda row: SHOWN.index(row["metric"]))


def claims(results: Mapping[str, Any]) -> list[Row]:
    """Verdict and difference of each claim over all seeds, and its difference in each seed."""
    return [
        {key: claim[key] for key in ("id", "verdict", "delta", "ci", "smallest_effect", "per_seed")}
        for claim in results["claims"]
    ]


def doses(results: Mapping[str, Any]) -> list[Row]:
    """The naive arm along its training: {step, metric, seeds: {seed: value}}."""
    found: dict[tuple[int, str], dict[str, list[tuple[float, int]]]] = {}
    for entry in results["doses"]:
        if entry["arm"] == "naive" and entry["metric"] in SHOWN:
            own = found.setdefault((entry["step"], entry["metric"]), {})
            own.setdefault(str(entry["seed"]), []).append((entry["value"], entry["n"]))
    mean = {place: {seed: fmean([v for v, _ in own], [n for _, n in own]) for seed, own in seeds.items()}
            for place, seeds in found.items()}  # fmt: skip
    return [{"step": step, "metric": metric, "seeds": {seed: round(value, 4) for seed, value in own.items()}}
            for (step, metric), own in sorted(mean.items())]  # fmt: skip


def judge(run: Path, rows: Path) -> list[Row]:
    """The offline classifier against the exact labels of the organism's answers, seed by seed."""
    labelled = runpy.run_path(str(LABS / "lab2" / "rejudge.py"))["labelled"]
    found = []
    for seed in json.loads((run / "results.json").read_text(encoding="utf-8"))["seeds"]:
        write_jsonl(rows, list(labelled(run, seed)))
        overall = calibrate(rows)["overall"]
        known = {key: overall["binary"][key] for key in ("n", "accuracy", "kappa")}
        found.append({"seed": seed, **known})
    return found


def probe(content: Mapping[str, Any]) -> list[Row]:
    """Where requests lie along the direction of declining at the layer that `repro probe` prints."""
    layer = max(1, round(2 * content["layers"] / 3))
    found: dict[tuple[str, str], Row] = {}
    for row in content["readings"]:
        if row["probe"] == "declining" and row["seed"] is not None:
            place = {"layer": layer, "group": row["group"], "arm": row["arm"], "seeds": {}}
            own = found.setdefault((row["group"], row["arm"]), place)
            own["seeds"][str(row["seed"])] = row["value"][layer - 1]
    return list(found.values())


# -- the page ---------------------------------------------------------------------------------------------------------


def threes(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest mean of three of the values (of all, where there are fewer)."""
    means = [fmean(three) for three in combinations(values, min(3, len(values)))]
    return min(means), max(means)


def cell(seeds: Mapping[str, float], scale: float = 100, digits: int = 0) -> str:
    """`mean (three: lowest to highest; one: lowest to highest)` of values by seed."""
    values = [scale * value for value in seeds.values()]
    low, high = threes(values)
    text = [f"{value:.{digits}f}" for value in (fmean(values), low, high, min(values), max(values))]
    return f"{text[0]} ({text[1]} to {text[2]}; {text[3]} to {text[4]})"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])


def page(data: Mapping[str, Any]) -> str:
    """The page for teachers. A lab that is not measured yet is said to be."""
    found, judged, probed = data["arms"], data["judge"], data["probe"]
    parts = [
        "# What to expect",
        f"For teachers. Written by `bench/coursework.py` from finished runs of the labs ({data['made'][:10]}, repro "
        f"{data['repro']}, the micro organism, CPU); `python bench/coursework.py measure FOLDER` runs what is missing, "
        f"on ten seeds. How many seeds a lab has so far stands beside its name. A cell is the mean over seeds, then in "
        "brackets the lowest and highest **mean of three seeds** (what a group of students gets) and the lowest and "
        "highest **single seed**. Percent, unless said otherwise. A group that runs three of these seeds and lies "
        "outside has changed something: ask what. (A run's own table weighs items and not seeds, so it may differ by a "
        "few points.) The organism shows mechanics and is no evidence about real models.",
        f"## Lab 1: the table{_seeds(found, 'lab1')}", _by_arm(found.get("lab1")), _claims(data["claims"].get("lab1")),
        f"## Lab 2: the classifier on a language that it never saw{_seeds(found, 'lab1')}",
        "Agreement with the exact labels of the organism's answers to requests and look-alikes; hedging counts as "
        "declining.",
        _judge(judged) if judged else NOT_YET,
        f"## Lab 3: how many demonstrations{_seeds(found, *(name for name in RUNS if name.startswith('lab3')))}",
        "The naive arm by number of demonstrations, ten passes over them (so fewer rows are fewer steps too); 480 is "
        "the shipped recipe, of 150 steps, with lab 1's seeds.",
        _counts(found),
        "And along the training of the shipped recipe, by step:",
        _along(data["doses"]),
        f"## Lab 4: the constitution that the lab starts from{_seeds(found, 'lab4')}",
        _by_arm(found.get("lab4")), _claims(data["claims"].get("lab4")),
        f"## Lab 5: behaviour, and inside{_seeds(found, 'lab5')}",
        _by_arm(found.get("lab5")),
        "Place along the direction of declining at the layer that `repro probe` prints (0: as prompts that the base "
        "answers, 1: as prompts that it declines):",
        _probe(probed) if probed else NOT_YET,
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _seeds(found: Mapping[str, Sequence[Row]], *names: str) -> str:
    """` (10 seeds)`, or ` (3 to 10 seeds)` where runs differ; "" where none is measured."""
    counts = sorted({max(len(row["seeds"]) for row in found[name]) for name in names if name in found})
    return f" ({' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds)" if counts else ""


def _judge(rows: Sequence[Row]) -> str:
    counts = [row["n"] for row in rows]
    by_seed = {key: {str(row["seed"]): row[key] for row in rows} for key in ("accuracy", "kappa")}
    lines = [["answers a seed", f"{min(counts)} to {max(counts)}"], ["accuracy, percent", cell(by_seed["accuracy"])]]
    return grid(["", "value"], [*lines, ["kappa", cell(by_seed["kappa"], 1, 2)]])


def _by_arm(rows: Sequence[Row] | None) -> str:
    if rows is None:
        return NOT_YET
    names = list(dict.fromkeys(row["arm"] for row in rows))
    found = {(row["metric"], row["arm"]): cell(row["seeds"]) for row in rows}
    metrics = dict.fromkeys(row["metric"] for row in rows)
    return grid(["", *names], [[metric, *(found.get((metric, arm), "–") for arm in names)] for metric in metrics])


def _claims(rows: Sequence[Row] | None) -> str:
    if rows is None:
        return ""
    lines = []
    for claim in rows:
        ends = "–" if claim["ci"] is None else f"{100 * claim['ci'][0]:+.0f} to {100 * claim['ci'][1]:+.0f}"
        delta = "–" if claim["delta"] is None else f"{100 * claim['delta']:+.0f}"
        lines.append([claim["id"], delta, ends, claim["verdict"]])
    return grid(["claim, all seeds", "difference, points", "95% interval", "verdict"], lines)


def _counts(found: Mapping[str, Sequence[Row]]) -> str:
    columns = {"8 rows": "lab3-8", "30 rows": "lab3-30", "120 rows": "lab3-120", "480 rows": "lab1",
               "8 rows, 150 steps": "lab3-8-long", "120 rows, 150 steps": "lab3-120-long"}  # fmt: skip
    cells = {(name, row["metric"]): cell(row["seeds"]) for name in columns.values() for row in found.get(name, [])
             if row["arm"] == "naive"}  # fmt: skip
    rows = [[metric, *(cells.get((name, metric), "–") for name in columns.values())] for metric in SHOWN]
    return grid(["", *columns], rows)


def _along(rows: Sequence[Row]) -> str:
    if not rows:
        return NOT_YET
    steps = sorted({row["step"] for row in rows})
    found = {(row["metric"], row["step"]): cell(row["seeds"]) for row in rows}
    metrics = [metric for metric in SHOWN if any(row["metric"] == metric for row in rows)]
    heads = ["", *(f"step {step}" for step in steps)]
    return grid(heads, [[metric, *(found.get((metric, step), "–") for step in steps)] for metric in metrics])


def _probe(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row["arm"] for row in rows))
    groups = dict.fromkeys(row["group"] for row in rows)
    found = {(row["group"], row["arm"]): cell(row["seeds"], 1, 2) for row in rows}
    return grid(["prompts", *names], [[group, *(found.get((group, arm), "–") for arm in names)] for group in groups])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure"], help="run the labs first")
    parser.add_argument("folder", nargs="?", type=Path, help="where their runs are kept")
    parser.add_argument("--seeds", default=SEEDS, help="which seeds; the page says how many (default %(default)s)")
    asked = parser.parse_args()
    if asked.what and asked.folder is None:
        parser.error("measure needs a folder")
    if asked.what:
        asked.folder.mkdir(parents=True, exist_ok=True)
        run_labs(asked.folder, asked.seeds)
        write_json(DATA, figures(asked.folder, asked.seeds))
    PAGE.write_text(page(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
