"""Many runs of one experiment, a grid of recipe values times seeds: what they share is done once, one table tells all.

    repro sweep reproduce-micro --arms naive --grid 'arms.naive.stages.sft.steps=[5,10,20]'

Each cell of the grid is a run like any other, with a folder of its own. The steps of all cells are done as one plan in
the sweep's folder, by key, so that a stage which cells share is trained once; the cells' folders link to them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import repro
from repro import doctor, rays, run, store
from repro.errors import BadInput, ReproError
from repro.plan import Plan, Step
from repro.report import swept
from repro.yamltree import did_you_mean, parse, plain

SWEPT = ("arms", "start", "evaluation")  # what a grid's path may begin with


@dataclass(frozen=True)
class Cell:
    """One choice of the grid's values, by the paths as they were given: an ordinary run."""

    values: dict[str, Any]
    ask: run.Ask
    plan: Plan

    @property
    def title(self) -> str:
        """How the cell is named to a person: `steps=5, r=8`."""
        return ", ".join(f"{name}={swept.word(self.values[path])}" for path, name in swept.short(self.values).items())


def sweep(ask: run.Ask, grid: Sequence[str], console: Console) -> dict[str, Any]:
    """Runs every cell of the grid (texts `path=[value, ...]`; `a,b=[...]` gives both paths the same value) and returns
    the content of sweep.json, in which `failed` names the cells that came to nothing, with reasons and exit codes.

    Raises BadInput, before anything is written, for all that is wrong with the grid.
    """
    began = time.monotonic()
    if ask.ray is not None:
        rays.require()
    cells, lines = plan_cells(ask, grid)
    plan = merged(cells)
    root = ask.runs_dir / run.SWEEPS / plan.folder_name
    axes = {path: list(dict.fromkeys(swept.word(cell.values[path]) for cell in cells)) for path in cells[0].values}
    about = run.manifest(plan, ask) | {"grid": axes, "cells": [cell.plan.folder_name for cell in cells]}
    own = sum(len(cell.plan.steps) for cell in cells)
    lines = [*lines, f"{len(cells)} cells, {own:,} steps, {len(plan.steps):,} of them different"]
    with run.opened(root, plan.digest, about) as folder:
        lines += run.borrow(plan, root, run.beside(ask.runs_dir, root))
        failures = run.work(plan, root, folder, ask, console, lines)
        whole = [cell for cell in cells if not any(failure.step.key in cell.plan.steps for failure in failures)]
        results = dict(zip([cell.title for cell in whole], _compared(whole, root), strict=True))
        for cell in cells:
            lost = [failure for failure in failures if failure.step.key in cell.plan.steps]
            if lost:
                results[cell.title] = run.failed(lost)
        finished = [(cell, found) for cell in cells if isinstance(found := results[cell.title], dict)]
        failed = [{"cell": title, "why": found.lines, "exit_code": found.exit_code}
                  for title, found in results.items() if isinstance(found, ReproError)]  # fmt: skip
        content = _content(plan, root, ask, cells, finished, failed, began)
        _write(root, content)
        store.sweep(folder.path, unfinished=not failed)
        folder.journal("run finished", cells=len(finished), failed=[one["cell"] for one in failed])
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for cell, _ in finished:
        say(f"{cell.title}: {ask.runs_dir / cell.plan.folder_name}")
    say(f"{len(finished)} of {len(cells)} cells: {root / 'table.csv'}, {root / 'pictures'}")
    return content


# the grid -------------------------------------------------------------------------------------------------------------


def axes_of(grid: Sequence[str], problems: list[str]) -> dict[str, list[Any]]:
    """The values by path, as they were given; what is wrong with them is added to `problems`."""
    axes: dict[str, list[Any]] = {}
    seen: list[str] = []
    for text in grid:
        paths, equals, values = text.partition("=")
        try:
            found = plain(parse(values, f"--grid {paths}", lines=False)) if values.strip() else None
        except BadInput as error:
            problems += error.lines
            continue
        for path in paths.split(","):
            root = path.split(".")[0]
            if equals and root not in SWEPT:
                problems.append(f'--grid {path}: "{root}" can\'t be swept, only {", ".join(SWEPT)}'
                                f"{did_you_mean(root, SWEPT)}")  # fmt: skip
            if path in seen:
                problems.append(f"--grid {path}: named twice")
            seen.append(path)
        if not isinstance(found, list) or not found:
            problems.append(f"--grid {text}: expected path=[value, ...], e.g. arms.naive.stages.sft.steps=[5,10,20]")
        elif len({store.canonical(value) for value in found}) < len(found):
            problems.append(f"--grid {paths}: a value is there twice")
        elif all(path.split(".")[0] in SWEPT for path in paths.split(",")):
            axes[paths] = found
    if not grid:
        problems.append("--grid: name at least one, e.g. --grid 'arms.naive.stages.sft.steps=[5,10,20]'")
    return axes


def plan_cells(ask: run.Ask, grid: Sequence[str]) -> tuple[list[Cell], list[str]]:
    """A cell for each choice of values, the first path changing slowest, and lines that say what runs and why.

    Raises BadInput with everything that is wrong, for whichever cells, at once.
    """
    problems: list[str] = []
    axes = axes_of(grid, problems)
    cells: list[Cell] = []
    lines: list[str] = []
    paths = {path for names in axes for path in names.split(",")}
    for values in _choices(axes):
        changes = [f"{path}={json.dumps(value)}" for names, value in values.items() for path in names.split(",")]
        own = replace(ask, sets=[*ask.sets, *changes])
        try:
            plan, said = run.prepare(own)
            run.load_claims(plan)  # for its faults
            cells.append(Cell(values, own, plan))
            lines = lines or said
        except BadInput as error:
            problems += [_as_grid(line, paths) for line in error.lines]
    unswept = {path.split(".")[1] for path in paths if path.startswith("arms.") and path.count(".")}
    for arm in sorted(unswept - set(cells[0].plan.arms)) if cells else ():
        problems.append(f"--grid arms.{arm}: --arms leaves this arm out, so every cell would be the same")
    same: dict[str, Cell] = {}
    for cell in cells:
        if same.setdefault(cell.plan.digest, cell) is not cell:
            problems.append(f"--grid: {same[cell.plan.digest].title} and {cell.title} are the same run")
    if problems:
        raise BadInput(list(dict.fromkeys(problems)))
    return cells, lines


def _choices(axes: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _as_grid(line: str, paths: set[str]) -> str:
    """A message about a value that the grid set, so that it names what the person wrote."""
    named = next((path for path in sorted(paths, key=len, reverse=True) if line.startswith(f"--set {path}")), None)
    return f"--grid {line.removeprefix('--set ')}" if named else line


def merged(cells: Sequence[Cell]) -> Plan:
    """One plan of all the cells' steps, each different one once."""
    steps: dict[str, Step] = {}
    for cell in cells:
        for key, step in cell.plan.steps.items():
            everywhere = all(key in other.plan.steps for other in cells)
            steps.setdefault(key, step if everywhere else replace(step, cell=cell.title))
    digest = store.hash_value([cell.plan.digest for cell in cells])
    return replace(cells[0].plan, steps=steps, stages={}, answers={}, digest=digest)


# the outcome ----------------------------------------------------------------------------------------------------------


def _compared(cells: Sequence[Cell], root: Path) -> list[dict[str, Any] | ReproError]:
    """The results of cells whose steps are all there, or why there are none; side by side unless a judge is loaded."""
    asks = [replace(cell.ask, borrow=(root,), ray=None) for cell in cells]
    one = asks and (asks[0].judge.name not in ("auto", "offline") or doctor.cuda_problem() is None)
    count = min(len(asks), asks[0].workers or doctor.cores()) if asks and not one else 1
    if count == 1:
        return [_compare(ask) for ask in asks]
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_compare, asks))


def _compare(ask: run.Ask) -> dict[str, Any] | ReproError:
    """The cell as the ordinary run that it is, with nothing left to train."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            return run.run(ask, Console(file=nowhere))
        except run.Interrupted:
            raise
        except ReproError as error:
            return run.Failed(error.lines, error.exit_code)


def _content(
    plan: Plan, root: Path, ask: run.Ask, cells: Sequence[Cell], finished: Sequence[tuple[Cell, dict[str, Any]]],
    failed: list[dict[str, Any]], began: float,
) -> dict[str, Any]:  # fmt: skip
    return {
        "schema": 1,
        "sweep": {
            "name": plan.experiment.name, "folder": str(root), "command": ask.command, "version": repro.__version__,
            "finished": store.now(), "seconds": round(time.monotonic() - began, 1),
        },
        "model": {"id": plan.spec.id, "pack": plan.experiment.pack, "quant": plan.experiment.quant, "base": plan.base},
        "paths": list(cells[0].values),
        "shared": [arm for arm in plan.arms if len({_asked(cell, arm) for cell in cells}) == 1],
        "cells": [
            {
                "cell": cell.title, "values": cell.values, "run": cell.plan.folder_name,
                "verdicts": {claim["id"]: claim["verdict"] for claim in content["claims"]},
                "warnings": content["warnings"],
            }
            for cell, content in finished
        ],
        "failed": failed,
        "rows": [row for cell, content in finished for row in swept.rows(cell.title, cell.values, content)],
    }  # fmt: skip


def _asked(cell: Cell, arm: str) -> tuple[str, ...]:
    return tuple(key for (own, _, _), key in cell.plan.answers.items() if own == arm)


def _write(root: Path, content: dict[str, Any]) -> None:
    """sweep.json, table.csv and the pictures, each at once; a picture of an earlier outcome goes."""
    store.write_json(root / "sweep.json", content)
    store.write_atomic(root / "table.csv", swept.csv_text(content))
    pictures = swept.pictures(content)
    folder = root / "pictures"
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        store.write_atomic(folder / f"{name}.svg", picture)
    for old in folder.glob("*.svg"):
        if old.stem not in pictures:
            old.unlink()
