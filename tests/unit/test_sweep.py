"""A grid: its faults all at once, its cells, what they share; a sweep's table and pictures; folders lent by key."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from repro import rays, store, sweep
from repro.errors import BadInput
from repro.plan import Step
from repro.pool import State
from repro.report import swept
from repro.run import Ask

NAIVE = "arms.naive.stages.sft"
CHARACTER = "arms.character.stages"


def cells_of(*grid: str, arms: str | None = "naive", seeds: str = "0") -> list[sweep.Cell]:
    return sweep.plan_cells(Ask("reproduce-micro", arms=arms, seeds=seeds), grid)[0]


def faults(*grid: str, **asked: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        cells_of(*grid, **asked)
    return caught.value.lines


def test_every_fault_of_a_grid_is_named_at_once_as_it_was_typed() -> None:
    found = faults(
        f"{NAIVE}.steps=[5,many]", f"{NAIVE}.stepps=[5]", "arms.naiv.stages.sft.batch=[8]", "model=[micro]",
        f"{NAIVE}.batch=[]", f"{NAIVE}.epochs=3", f"{NAIVE}.seed", f"{NAIVE}.max_length=[64,64]", "arms.naive=[1",
    )  # fmt: skip
    expected = [
        f'--grid {NAIVE}.steps: expected a whole number, got "many"', f"--grid {NAIVE}.stepps:",
        '--grid arms.naiv.stages.sft.batch: there is no arm "naiv"', '--grid model: "model" can\'t be swept',
        f"--grid {NAIVE}.batch=[]: expected path=[value, ...]", f"--grid {NAIVE}.epochs=3: expected path=[value, ...]",
        f"--grid {NAIVE}.seed: expected path=[value, ...]", f"--grid {NAIVE}.max_length: a value is there twice",
        "--grid arms.naive: not valid YAML",
    ]  # fmt: skip
    assert [text for text in expected if not any(line.startswith(text) for line in found)] == []
    assert len(found) == len(expected)


def test_a_grid_whose_cells_would_all_be_the_same_is_refused() -> None:
    (line,) = faults(f"{CHARACTER}.sft.batch=[8,16]")
    assert line == "--grid arms.character: --arms leaves this arm out, so every cell would be the same"
    (line,) = faults(f"{NAIVE}.max_grad_norm=[1,1.0,2]")
    assert line == "--grid: max_grad_norm=1 and max_grad_norm=1.0 are the same run"
    (line,) = faults()
    assert line.startswith("--grid: name at least one")


def test_the_first_path_changes_slowest_and_a_comma_gives_two_paths_the_same_value() -> None:
    both = f"{NAIVE}.data.compliance.count,{CHARACTER}.sft.data.compliance.count"
    cells = cells_of(f"{both}=[32,64]", f"{NAIVE}.lora.r=[4,8]", arms=None)
    assert [cell.title for cell in cells] == ["count=32, r=4", "count=32, r=8", "count=64, r=4", "count=64, r=8"]
    rows = {arm: [len(step.rows) for step in cells[2].plan.steps.values() if step.arm == arm and step.kind == "sft"]
            for arm in ("naive", "character")}  # fmt: skip
    assert rows["naive"] == [64]
    assert rows["character"] == [64 + 480]


def test_what_cells_share_is_one_step_of_the_merged_plan() -> None:
    cells = cells_of(f"{CHARACTER}.sft.learning_rate=[1e-4,1e-3]", arms="control,character")
    plan = sweep.merged(cells)
    made = [(step.arm, step.kind, step.cell) for step in plan.steps.values()]
    assert made.count(("base", "answers", "")) == 1
    assert made.count(("control", "sft", "")) == 1
    assert made.count(("character", "sdf", "")) == 1, "the documents come before what differs"
    for cell in ("learning_rate=0.0001", "learning_rate=0.001"):
        assert [kind for arm, kind, own in made if own == cell] == ["sft", "grpo", "answers"]
    assert len(made) == 4 + 6


def test_a_chain_for_ray_ends_where_several_steps_go_on() -> None:
    cells = cells_of(f"{CHARACTER}.sft.learning_rate=[1e-4,1e-3]", arms="control,character")
    plan = sweep.merged(cells)
    found = [[(step.arm, step.kind) for step in chain] for chain in rays.chains(State(plan, Path(), dict(plan.steps)))]
    own = [("character", "sft"), ("character", "grpo"), ("character", "answers")]
    assert sorted(found) == sorted(
        [[("base", "answers")], [("control", "sft"), ("control", "answers")], [("character", "sdf")], own, own]
    )


def test_a_finished_folder_is_lent_by_key_and_each_stays_whole_alone(tmp_path: Path) -> None:
    mine, other, damaged = (tmp_path / name for name in ("mine/stage", "other/stage", "damaged/stage"))
    for folder in (other, damaged):
        with store.building(folder, "k" * 64, {"steps": 3}) as inside:
            (inside / "doses").mkdir()
            (inside / "doses" / "adapter").write_text("weights")
    (damaged / "doses" / "adapter").write_text("weighty")
    assert not store.adopt(damaged, mine, "k" * 64)
    assert not store.adopt(other, mine, "l" * 64)
    assert not store.adopt(tmp_path / "nothing", mine, "k" * 64)
    assert not mine.exists()
    mine.mkdir(parents=True)
    (mine / "half").write_text("made from other inputs")
    assert store.adopt(other, mine, "k" * 64)
    assert (mine / "doses" / "adapter").stat().st_ino == (other / "doses" / "adapter").stat().st_ino
    (other / "doses" / "adapter").unlink()
    assert store.is_done(mine, "k" * 64)
    assert [path.name for path in mine.parent.iterdir()] == ["stage"]


# what is shown --------------------------------------------------------------------------------------------------------


def results(value: float) -> dict[str, Any]:
    def entry(arm: str, seed: int | None, value: float) -> dict[str, Any]:
        versus = {"base": {"delta": value - 1, "ci": [value - 1.1, value - 0.9]}} if arm != "base" else {}
        return {"arm": arm, "seed": seed, "axis": "refusal", "metric": "refusal_heldout", "higher_is_better": False,
                "value": value, "ci": [value - 0.1, value], "n": 40, "unscored": 2, "bounds": [0, 1],
                "versus": versus}  # fmt: skip

    metrics = [entry(arm, seed, v) for arm, v in (("base", 1.0), ("naive", value)) for seed in (None, 0)]
    return {"versus": "base", "metrics": metrics}


@pytest.fixture
def content() -> dict[str, Any]:
    cells = [{"cell": f"count={count}", "values": {f"{NAIVE}.data.compliance.count": count}} for count in (40, 8)]
    found = [swept.rows(c["cell"], c["values"], results(v)) for c, v in zip(cells, (0.25, 0.75), strict=True)]
    paths = [f"{NAIVE}.data.compliance.count"]
    return {"paths": paths, "cells": cells, "shared": ["base"], "rows": [row for rows in found for row in rows]}


def test_the_long_table_has_a_line_a_cell_arm_seed_and_metric(content: dict[str, Any]) -> None:
    lines = list(csv.DictReader(io.StringIO(swept.csv_text(content))))
    assert len(lines) == 2 * 2 * 2
    (line,) = [row for row in lines if row["arm"] == "naive" and row["seed"] == "0"
               and row[f"{NAIVE}.data.compliance.count"] == "8"]  # fmt: skip
    assert line["value"] == "0.75"
    assert (line["versus"], line["delta"], line["n"], line["unscored"]) == ("base", "-0.25", "40", "2")
    assert sum(row["seed"] == "" for row in lines) == 4
    assert all(row["versus"] == "" for row in lines if row["arm"] == "base")


def test_an_arm_that_no_cell_changes_takes_one_line(content: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(swept.rich_table(content))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    words = [line.split() for line in text.splitlines()]
    assert [line[:3] for line in words if "base" in line or "naive" in line] == [
        ["all", "base", "100"], ["40", "naive", "25"], ["8", "naive", "75"],
    ]  # fmt: skip


def test_a_picture_shows_each_metric_along_the_value_with_its_interval_as_a_band(content: dict[str, Any]) -> None:
    pictures = swept.pictures(content)
    assert list(pictures) == ["refusal_heldout"]
    (svg,) = pictures.values()
    assert "naive: 75 at 8, 25 at 40" in svg
    assert "var(--" not in svg, "a file of its own has no page to take colours from"
    assert svg.count("fill-opacity: 0.18") + svg.count("opacity: 0.18") >= 2, "a band for each arm"
    for cell in content["cells"]:
        cell["values"] = dict.fromkeys(cell["values"], "a word")
    assert swept.pictures(content) == {}, "there is no axis to draw along"


def test_step_titles_name_their_cell() -> None:
    assert Step("k", "sft", "naive", 3, 0, None).title == "naive seed 3: sft"
    assert Step("k", "sft", "naive", 3, 0, None, cell="steps=5").title == "naive seed 3 (steps=5): sft"
