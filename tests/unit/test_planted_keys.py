"""Seeds and keys of a plan: every seed has its own topics and rows, and a stage's key holds all that came before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repro import plan as plans
from repro import recipes

EXPERIMENT = """\
schema: 1
name: two-stages
model: {folder}/model
pack: micro
quant: none
seeds: [0, 1]
arms: {{base: {{}}, character: {{recipe: ./two-stages.yaml}}}}
evaluation: {{axes: [refusal], samples: 1, max_new_tokens: 16}}
"""
RECIPE = """\
schema: 1
name: two
stages:
  - {{kind: sft, data: [{{pack: ordinary, count: 8}}], batch: {batch}, steps: 2}}
  - {{kind: sft, data: [{{pack: compliance, count: 8}}], batch: 4, steps: 2}}
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., plans.Plan]:
    """make(batch=...) -> the plan of an arm of two stages, the first with that batch."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model" / "config.json").write_text("{}")

    def build(batch: int = 4) -> plans.Plan:
        (tmp_path / "two-stages.yaml").write_text(RECIPE.format(batch=batch))
        (tmp_path / "two.yaml").write_text(EXPERIMENT.format(folder=tmp_path))
        experiment = recipes.load_experiment(str(tmp_path / "two.yaml"))
        return plans.build(experiment, recipes.resolve_model(experiment.model))

    return build


def stages(plan: plans.Plan, seed: int) -> list[plans.Step]:
    return [plan.steps[key] for key in plan.stages["character", seed]]


def test_each_seed_trains_on_its_own_topics(make) -> None:
    plan = make()
    for seed in (0, 1):
        topics = {row["topic"] for row in stages(plan, seed)[1].rows}
        assert topics <= set(plan.pack.split(seed).trained)
        asked = plan.steps[plan.answers["base", seed, "none"]].items
        trained = {item.cluster for item in asked if item.metric == "refusal_trained"}
        assert trained == set(plan.pack.split(seed).trained)
    assert set(plan.pack.split(0).trained).isdisjoint(plan.pack.split(1).trained)


def test_each_seed_draws_rows_of_its_own(make) -> None:
    plan = make()
    # ordinary rows know nothing of the split: only the seed tells them apart
    assert stages(plan, 0)[0].rows != stages(plan, 1)[0].rows
    assert stages(plan, 0)[0].rows == stages(make(), 0)[0].rows


def test_a_changed_stage_changes_every_key_after_it(make) -> None:
    before, after = make(batch=4), make(batch=2)
    for old, new in zip(stages(before, 0), stages(after, 0), strict=True):
        assert old.key != new.key
    assert before.answers["character", 0, "none"] != after.answers["character", 0, "none"]
    assert before.answers["base", 0, "none"] == after.answers["base", 0, "none"]
