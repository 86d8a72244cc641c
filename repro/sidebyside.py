"""Finished runs: reads their results and answers, joins runs that asked the same into one table, else shows figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.errors import MarkupError
from rich.table import Table
from rich.text import Text

from repro import evals, store
from repro.errors import BadInput
from repro.report import table as report
from repro.runfolder import document
from repro.yamltree import did_you_mean

NEEDED = ("item", "arm", "seed", "sample", "axis", "metrics", "group", "cluster", "unit", "prompting", "dose",
          "messages", "answer", "finished", "label", "value", "well_formed", "judge")  # fmt: skip
NAMED = 5  # items that a refusal to join names; the others are counted


def find_run(name: str, runs_dir: Path) -> Path:
    """A run folder by its path, its name, or an unambiguous beginning of its name."""
    for folder in (Path(name), runs_dir / name):
        if (folder / "manifest.json").is_file():
            return folder
    present = sorted(path.parent for path in runs_dir.glob("*/manifest.json")) if runs_dir.is_dir() else []
    begins = [folder for folder in present if folder.name.startswith(name)]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise BadInput(f'several runs begin with "{name}": {", ".join(folder.name for folder in begins)}')
    names = [folder.name for folder in present]
    raise BadInput(f'no run "{name}"{did_you_mean(name, names)}; in {runs_dir} there are: {", ".join(names) or "none"}')


def read_results(name: str, runs_dir: Path) -> dict[str, Any]:
    """The content of a run's results.json. BadInput where it is not finished or not readable."""
    folder = find_run(name, runs_dir)
    content = document(folder / "results.json", "the run's figures")
    if content is None:
        raise BadInput(f"{folder} has no results yet: the command that began it resumes it")
    if "results.json" in store.changed(folder):
        path = folder / "results.json"
        raise BadInput(f"{path}: it was changed after the run had finished; the same repro run writes it again")
    try:  # whoever reads it shows it, so that is the test: the file may have been edited, or be of another program
        report.render(content)
        table([content])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MarkupError) as error:
        why = f"{type(error).__name__}: {error!s:.100}"
        raise BadInput(f"{folder / 'results.json'}: is not as a run writes it ({why})") from None
    return content


def table(runs: list[dict[str, Any]]) -> Group:
    """One row a metric and arm, one column a run (value and 95% interval), and each claim's verdict in each run."""
    heads = [f"{place}: {report.title(content)}" for place, content in enumerate(runs, 1)]
    columns = [_figures(content) for content in runs]
    metrics = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    metrics.add_column("metric")
    metrics.add_column("arm")
    for head in heads:
        metrics.add_column(head, overflow="fold")
    before = ""
    for metric, arm in dict.fromkeys(place for column in columns for place in column):
        cells = [column.get((metric, arm), "") for column in columns]
        metrics.add_row(metric if metric != before else "", arm, *map(Text, cells))
        before = metric
    blocks: list[Any] = [metrics]
    claims = [{claim["id"]: claim["verdict"] for claim in content["claims"]} for content in runs]
    if any(claims):
        verdicts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        verdicts.add_column("claim")
        for head in heads:
            verdicts.add_column(head, overflow="fold")
        for name in dict.fromkeys(name for found in claims for name in found):
            verdicts.add_row(name, *(found.get(name, "") for found in claims))
        blocks.append(verdicts)
    legend = "Percent [95% interval]. Runs are shown, not tested against each other: their seeds and items may differ."
    return Group(*blocks, Text(legend, style="dim"))


def _figures(content: dict[str, Any]) -> dict[tuple[str, str], str]:
    found = {}
    for row in report.rows(content):
        if row.group is None:
            for arm, cell in row.cells.items():
                found[f"{row.metric} {row.arrow}", arm] = report.cell_text(cell, row.share)
    return found


# joining --------------------------------------------------------------------------------------------------------------

Place = tuple[str, int]  # prompting strategy and seed
Asked = dict[tuple[str, int], tuple[str, str]]  # by item and sample: what was asked, and how it is counted, as hashes


@dataclass
class Finished:
    """A run's answers and what they were asked under. `cut` says which last line was not whole, and left out."""

    folder: Path
    manifest: dict[str, Any]
    rows: list[dict[str, Any]]
    cut: str | None = None
    lost: str | None = None  # the item of that line, where as much of it is left
    tags: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment."""
        return dict(self.manifest["experiment"])

    @property
    def model(self) -> str:
        return str(self.manifest["model"]["id"])

    @cached_property
    def parts(self) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
        """The rows by prompting strategy, arm and seed."""
        found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault((row["prompting"], row["arm"], row["seed"]), []).append(row)
        return found

    @property
    def strategies(self) -> list[str]:
        return list(dict.fromkeys(strategy for strategy, _, _ in self.parts))

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for _, arm, _ in self.parts))

    @property
    def seeds(self) -> set[int]:
        return {seed for _, _, seed in self.parts}

    @property
    def versus(self) -> str:
        """The arm that the run compares its others with."""
        return "base" if "base" in self.arms else self.arms[0]

    def judges(self) -> dict[str, str]:
        """Who labelled each axis."""
        found: dict[str, set[str]] = {}
        for row in self.rows:
            found.setdefault(row["axis"], set()).add(row["judge"])
        return {axis: " and ".join(sorted(names)) for axis, names in found.items()}

    def asked(self, place: Place) -> Asked:
        """What was asked under a strategy and seed; an arm's own system prompt is the arm's, so those with one only
        count where there is no other."""
        told = {arm for arm, about in self.experiment["arms"].items() if about.get("system")}
        found: Asked = {}
        for arm in sorted(self.arms, key=lambda arm: arm in told):
            if found and (arm in told or not self.cut):
                break  # all arms are asked the same
            for row in self.parts.get((place[0], arm, place[1]), []):
                if row["axis"] == "compliance":
                    continue  # a second look at a request that is there already
                counted = [row[key] for key in ("axis", "metrics", "group", "cluster", "unit")]
                hashes = store.hash_value(row["messages"]), store.hash_value(counted)
                found.setdefault((row["item"], row["sample"]), hashes)
        return found


def read_finished(folder: Path) -> Finished:
    """The answers of a run, doses left out. A last line that is cut off is left out and named; any other fault is
    BadInput, as file:line."""
    manifest = _manifest(folder)
    path = folder / "answers.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise BadInput(f"{folder} has no answers yet: the command that began it resumes it") from None
    except OSError as error:
        raise BadInput(f"{path}: can't be read: {error.strerror}") from None
    run, last = Finished(folder, manifest, []), len(lines)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if number < last:
                raise BadInput(f"{path}:{number}: not JSON") from None
            known = re.match(r'\{"item": "([^"]+)"', line.decode(errors="replace"))
            run.lost = known[1] if known else None
            what = f" (item {known[1]})" if known else ""
            run.cut = f"{path}:{number}: the last line is cut off{what}: it is left out."
            continue
        missing = [key for key in NEEDED if key not in row] if isinstance(row, dict) else ["everything"]
        if missing:
            raise BadInput(f"{path}:{number}: no row of answers: lacks {', '.join(missing)}")
        if row["dose"] is None:
            run.rows.append(row)
    if not run.rows:
        raise BadInput(f"{path}: no answers")
    try:
        run.tags = json.loads((folder / "results.json").read_text(encoding="utf-8")).get("tags") or {}
    except (OSError, ValueError, AttributeError):
        run.tags = {}
    return run


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    content = document(path, "the run's resolved recipe") or {}
    try:
        content["experiment"]["arms"], content["experiment"]["evaluation"]["max_new_tokens"], content["model"]["id"]
    except (KeyError, TypeError):
        raise BadInput(f"{path}: not the manifest of a run") from None
    return content


def why_not(first: Finished, other: Finished) -> list[str]:
    """The reasons why two runs can't be joined; none where they can."""
    reasons = []
    for name, read in (
        ("data pack", lambda run: run.experiment["pack"]),
        ("quant", lambda run: run.experiment["quant"]),
        ("max_new_tokens", lambda run: run.experiment["evaluation"]["max_new_tokens"]),
    ):
        here, there = read(first), read(other)
        if here != there:
            reasons.append(f"{name}: {here} in {first.folder.name}, {there} in {other.folder.name}")
    judges, others = first.judges(), other.judges()
    for axis in judges.keys() & others.keys():
        if judges[axis] != others[axis]:
            reasons.append(f"judge of {axis}: {judges[axis]} and {others[axis]}")
    strategies = [name for name in first.strategies if name in other.strategies]
    seeds = sorted(first.seeds & other.seeds)
    if not strategies:
        reasons.append(f"prompting: {', '.join(first.strategies)} and {', '.join(other.strategies)}")
    if not seeds:
        reasons.append(f"seeds: {_numbers(first.seeds)} and {_numbers(other.seeds)}, none in common")
    return reasons + _other_items(first, other, [(name, seed) for name in strategies for seed in seeds])


def _numbers(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _other_items(first: Finished, other: Finished, places: Sequence[Place]) -> list[str]:
    """Which items the two do not share, have in other words, count otherwise, or answered another number of times."""
    kinds: dict[str, dict[str, None]] = {}  # by reason: items, in order
    for place in places:
        here, there = first.asked(place), other.asked(place)
        names = {item for item, _ in here} & {item for item, _ in there}
        forgiven = _forgiven(first, here, there) | _forgiven(other, there, here)
        for key in [*here, *(key for key in there if key not in here)]:
            if key in here and key in there:
                differs = [a != b for a, b in zip(here[key], there[key], strict=True)]
                kind = "with other prompts" if differs[0] else "counted under another metric or group" * differs[1]
            elif key[0] in names:
                kind = "with another number of samples"
            else:
                kind = f"only in {(first if key in here else other).folder.name}"
            if kind and key not in forgiven:
                kinds.setdefault(kind, {})[key[0]] = None
    found = []
    for kind, items in kinds.items():
        named = ", ".join(list(items)[:NAMED]) + (", ..." if len(items) > NAMED else "")
        found.append(f"{len(items)} item{'s' * (len(items) > 1)} {kind}: {named}")
    return found


def _forgiven(run: Finished, own: Asked, others: Asked) -> set[tuple[str, int]]:
    """What the run may lack because its last line is cut off: that one answer."""
    lacking = [key for key in others if key not in own and (run.lost is None or key[0] == run.lost)]
    return set(lacking) if run.cut and len(lacking) == 1 else set()


def joined(folders: Sequence[Path], versus: str | None = None, command: str | None = None) -> dict[str, Any]:
    """One content of results.json for the arms of several runs, named run/arm and paired over the items they share.

    All are compared with `versus` (default: what the first run compares with). BadInput where the runs do not match,
    with every reason.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise BadInput("a run is named twice")
    runs = dict(zip(labels(folders), map(read_finished, folders), strict=True))
    first = next(iter(runs.values()))
    reasons = [f"{other.folder.name} can't be joined with {first.folder.name}: {reason}"
               for other in list(runs.values())[1:] for reason in why_not(first, other)]  # fmt: skip
    if reasons:
        raise BadInput([*reasons, "--side-by-side shows the figures of such runs, without testing them"])
    strategies = [name for name in first.strategies if all(name in run.strategies for run in runs.values())]
    seeds = sorted(set.intersection(*(run.seeds for run in runs.values())))
    names = [f"{label}/{arm}" for label, run in runs.items() for arm in run.arms]
    versus = versus or f"{next(iter(runs))}/{first.versus}"
    if versus not in names:
        raise BadInput(f'there is no arm "{versus}"{did_you_mean(versus, names)}; there are: {", ".join(names)}')
    return _content(runs, strategies, seeds, versus, command)


def labels(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's without the hash, the hash alone where only that differs, else its path."""
    names = [folder.resolve().name for folder in folders]
    short = [re.sub(r"-[0-9a-f]{8}$", "", name) for name in names]
    choices = [short, [name.removeprefix(f"{short[0]}-") for name in names], names]
    return next((found for found in choices if len(set(found)) == len(found)), [str(path) for path in folders])


def _content(
    runs: Mapping[str, Finished], strategies: Sequence[str], seeds: Sequence[int], versus: str, command: str | None
) -> dict[str, Any]:
    from repro import claims, stats
    from repro.outcome import _unscored as unscored

    parts = {
        (strategy, f"{label}/{arm}", seed): rows
        for label, run in runs.items()
        for (strategy, arm, seed), rows in run.parts.items()
        if strategy in strategies and seed in seeds
    }
    units = {strategy: {(arm, seed): evals.units(rows) for (name, arm, seed), rows in parts.items() if name == strategy}
             for strategy in strategies}  # fmt: skip
    main = {(arm, seed): rows for (name, arm, seed), rows in parts.items() if name == strategies[0]}
    tags: dict[str, dict[str, str]] = {}
    for label, run in runs.items():
        for metric, by_arm in run.tags.items():
            tags.setdefault(metric, {}).update({f"{label}/{arm}": tag for arm, tag in by_arm.items()})
    experiment = next(iter(runs.values())).experiment
    models = dict.fromkeys(run.model for run in runs.values())
    judges = dict.fromkeys(name for run in runs.values() for name in run.judges().values())
    about = {"name": f"comparison of {', '.join(runs)}", "command": command}
    return claims.results(
        run=about | {"runs": {label: str(run.folder) for label, run in runs.items()}},
        model={"id": ", ".join(models), "pack": experiment["pack"], "quant": experiment["quant"]},
        judge={"name": ", ".join(judges), "kappa": None, "n": None},
        units=units[strategies[0]],
        metrics=evals.METRICS,
        gate={place: evals.gate(rows) for place, rows in main.items()},
        tags=tags,
        unscored={place: unscored(rows) for place, rows in main.items()},
        versus=versus,
        warnings=_remarks(runs, strategies, seeds),
        prompting={
            name: stats.metrics_table(units[name], evals.METRICS, versus=versus) for name in list(strategies)[1:]
        },
    )


def _remarks(runs: Mapping[str, Finished], strategies: Sequence[str], seeds: Sequence[int]) -> list[str]:
    versions = {label: run.manifest.get("code_version") for label, run in runs.items()}
    found = []
    if len(set(versions.values())) > 1:
        found.append(f"the runs' code differs ({versions}): what is the same to see may have been asked otherwise.")
    for label, run in runs.items():
        if run.cut:
            found.append(run.cut)
        if extra := run.seeds - set(seeds):
            found.append(f"{label}: seeds {_numbers(extra)} are left out: not every run has them.")
        if others := [name for name in run.strategies if name not in strategies]:
            found.append(f"{label}: the prompting {', '.join(others)} is left out: not every run has it.")
    return found
