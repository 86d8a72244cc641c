"""Every recipe and experiment that ships can be planned: recipes rot when nothing loads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro import recipes
from repro.run import Ask, prepare

ROOT = recipes.recipes_root()
RECIPES = sorted((ROOT / "arms").rglob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def test_there_is_something_to_plan() -> None:
    assert len(RECIPES) >= 8
    assert {"reproduce-small", "reproduce-micro"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_recipe_can_be_planned_on_the_organism(path: Path, tmp_path: Path) -> None:
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(
        "schema: 1\nname: one-arm\nmodel: micro\npack: micro\nseeds: [0]\narms:\n  base: {}\n"
        f"  naive: {{recipe: {path}}}\n"
    )
    kinds = [stage.kind for stage in recipes.load_recipe(str(path)).stages]
    # the constitution for real models has principles of its own, which the organism's questions do not bear on
    real = path.parent.name != "micro" and "grpo" in kinds
    sets = ["arms.naive.stages.grpo.reward=contains_all_in_order"] if real else []
    plan, _ = prepare(Ask(str(experiment), sets=sets))
    assert [step.kind for step in plan.steps.values() if step.arm == "naive"] == [*kinds, "answers"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_planned_here_or_says_what_runs_instead(name: str) -> None:
    plan, lines = prepare(Ask(name))
    assert plan.steps
    assert plan.experiment.name == name or f"{plan.experiment.name} runs instead" in lines[0]
