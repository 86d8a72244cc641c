"""Every arm on both packs: an ablation changes what its name says alone, and what arms share is made once."""

from __future__ import annotations

import pytest

from repro import outcome, plan, recipes
from repro.schema import ARM_NAMES

PACKS = {"micro": ("reproduce-micro-full", "micro"), "english": ("reproduce-full", "Qwen2.5-0.5B-Instruct")}


@pytest.fixture(scope="module", params=PACKS)
def full(request: pytest.FixtureRequest) -> plan.Plan:
    name, model = PACKS[request.param]
    experiment = recipes.load_experiment(name, seeds="0")
    return plan.build(experiment, recipes.resolve_model(model), base="a fingerprint")


def chain(full: plan.Plan, arm: str) -> dict[str, plan.Step]:
    """The arm's own stages by kind."""
    start = len(full.experiment.start.stages) if full.experiment.start else 0
    return {full.steps[key].kind: full.steps[key] for key in full.stages[arm, 0][start:]}


def settings(step: plan.Step) -> dict:
    return step.stage.model_dump(exclude={"data"})


def test_the_full_experiments_have_every_arm_and_three_seeds(full: plan.Plan) -> None:
    assert set(full.arms) == set(ARM_NAMES)
    assert recipes.load_experiment(full.experiment.name).seeds == [0, 1, 2]


def test_stages_that_arms_share_are_trained_once(full: plan.Plan) -> None:
    character = chain(full, "character")
    assert chain(full, "character-no-rl") == {kind: character[kind] for kind in ("sdf", "sft")}
    assert chain(full, "character-operator")["sdf"] is character["sdf"]
    trained = [step for step in full.steps.values() if step.stage is not None and step.arm != plan.START]
    # 1 each: control, naive, naive-operator, naive-dpo, abliterated; 3 character; 0 character-no-rl;
    # 2 each: character-operator, character-no-sdf; 3 neutral-sdf; none: base, prompted
    assert len(trained) == 5 + 3 + 0 + 2 + 2 + 3
    assert len(full.answers) == len(ARM_NAMES)


@pytest.mark.parametrize(
    ("arm", "parent", "without", "added"),
    [("character-no-sdf", "character", "sdf", 0), ("character-no-rl", "character", "grpo", 0),
     ("neutral-sdf", "character", None, 0), ("character-operator", "character", None, 1),
     ("naive-operator", "naive", None, 1)],
)  # fmt: skip
def test_an_ablation_changes_what_its_name_says(full: plan.Plan, arm, parent, without, added) -> None:
    own, whole = chain(full, arm), chain(full, parent)
    assert list(own) == [kind for kind in whole if kind != without]
    for kind, step in own.items():
        assert settings(step) == settings(whole[kind])
        if kind == "sft":
            assert step.stage.data[: len(whole[kind].stage.data)] == whole[kind].stage.data
            assert [source.pack for source in step.stage.data[len(whole[kind].stage.data) :]] == ["operator"] * added
        elif arm == "neutral-sdf" and kind == "sdf":
            assert not {row["text"] for row in step.rows} & {row["text"] for row in whole[kind].rows}
        else:
            assert step.rows == whole[kind].rows


def test_neutral_documents_are_as_long_in_all_as_those_about_the_character(full: plan.Plan) -> None:
    neutral, about = (
        sum(len(row["text"].split()) for row in chain(full, arm)["sdf"].rows) for arm in ("neutral-sdf", "character")
    )
    assert neutral == pytest.approx(about, rel=0.04)


def test_only_arms_that_were_shown_how_to_obey_an_operator_count_as_trained_in_it(full: plan.Plan) -> None:
    tags = outcome.tags(full)["declines_when_told"]
    assert {arm for arm, tag in tags.items() if tag == "trained"} == {"naive-operator", "character-operator"}
