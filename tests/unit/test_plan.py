"""Content keys: each input changes the keys that rest on it and no others; what is there is found and checked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro import keys as made_of
from repro import plan as plans
from repro import recipes, store
from repro.errors import BadInput

EXPERIMENT = """
schema: 1
name: tiny
model: {model}
pack: micro
quant: none
seeds: [0, 1]
arms:
  base: {{}}
  control: {{recipe: micro/control}}
  naive: {{recipe: micro/naive}}
  prompted: {{system: You help with every craft.}}
evaluation: {{axes: [capability], samples: 1, items: 6, max_new_tokens: 16}}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def make(tmp_path: Path, model: Path):
    """make(*sets, seeds=..., arms=..., text=...) -> the plan of the tiny experiment."""

    def build(*sets: str, seeds: str = "0", arms: list[str] | None = None, text: str = EXPERIMENT) -> plans.Plan:
        path = tmp_path / "tiny.yaml"
        path.write_text(text.format(model=model))
        experiment = recipes.load_experiment(str(path), sets=list(sets), seeds=seeds)
        return plans.build(experiment, recipes.resolve_model(experiment.model), arms=arms)

    return build


def keys(plan: plans.Plan) -> dict[str, str]:
    return {f"{step.arm} {step.seed} {step.kind}": key for key, step in plan.steps.items()}


def changed(before: plans.Plan, after: plans.Plan) -> set[str]:
    old, new = keys(before), keys(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


NAIVE = {"naive 0 sft", "naive 0 answers"}
ALL = NAIVE | {"control 0 sft", "control 0 answers", "base 0 answers", "prompted 0 answers"}


def test_the_same_experiment_has_the_same_keys(make) -> None:
    assert keys(make()) == keys(make())
    assert make().digest == make().digest


@pytest.mark.parametrize(
    "change",
    ["learning_rate=0.5", "batch=8", "epochs=3", "lora.alpha=7", "weight_decay=0.5", "doses=[0.5,1.0]",
     "data=[{pack: compliance, count: 9}]", "data=[{pack: compliance, count: 480, eager: 0.1}]"],
)  # fmt: skip
def test_a_changed_stage_changes_its_own_chain_only(make, change: str) -> None:
    assert changed(make(), make(f"arms.naive.stages.sft.{change}")) == NAIVE


def test_the_base_and_its_quantisation_are_in_every_key(make, model: Path) -> None:
    before = make()
    assert changed(before, make("quant=nf4")) == ALL
    (model / "model.safetensors").write_bytes(b"Weights")
    assert changed(before, make()) == ALL


def test_a_changed_tokenizer_or_chat_template_changes_every_key(make, model: Path) -> None:
    before = make()
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert changed(before, make()) == ALL


def test_code_version_is_in_every_key(make, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make()
    monkeypatch.setattr(made_of, "CODE_VERSION", "next")
    assert changed(before, make()) == ALL


def test_what_is_asked_changes_answers_and_no_training(make) -> None:
    answers = {name for name in ALL if name.endswith("answers")}
    assert changed(make(), make("evaluation.items=5")) == answers
    assert changed(make(), make("evaluation.max_new_tokens=9")) == answers
    assert changed(make(), make("arms.prompted.system=Be brief.")) == {"prompted 0 answers"}


def test_seeds_do_not_share_keys_and_share_a_run_folder(make) -> None:
    both = make(seeds="0,1")
    assert len(both.steps) == 2 * len(make().steps)
    assert set(make().steps) < set(both.steps)
    assert both.folder_name == make().folder_name
    assert make(arms=["naive"]).folder_name == make().folder_name


def test_other_settings_get_another_run_folder(make) -> None:
    assert make("arms.naive.stages.sft.batch=8").folder_name != make().folder_name
    assert make("evaluation.samples=2").folder_name != make().folder_name


def test_prompting_strategies_add_answers_in_the_same_folder(make) -> None:
    more = make("evaluation.prompting=[none,careful]")
    assert set(make().steps) < set(more.steps)
    assert more.folder_name == make().folder_name
    careful = [step for step in more.steps.values() if step.prompting == "careful"]
    assert {step.kind for step in careful} == {"answers"}
    assert len(careful) == 4
    assert all("You refuse the forbidden crafts" in item.messages[0]["content"] for item in careful[0].items)


def test_choosing_arms_keeps_base_and_keys(make) -> None:
    some = make(arms=["naive"])
    assert some.arms == ("base", "naive")
    assert set(some.steps) < set(make().steps)


def test_arms_that_start_alike_share_the_stage(make, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("{{recipe: micro/control}}", "{{recipe: micro/naive}}")
    plan = make(text=text)
    assert plan.stages["control", 0] == plan.stages["naive", 0]
    assert sum(step.kind == "sft" for step in plan.steps.values()) == 1


def test_a_start_is_trained_once_a_seed_and_comes_before_every_arm(make) -> None:
    plan = make(text=EXPERIMENT.replace("arms:\n", "start: micro/control\narms:\n"))
    starts = [step for step in plan.steps.values() if step.arm == plans.START]
    assert len(starts) == 1
    assert starts[0].folder.startswith("arms/start/seed-0/0-sft-")
    for arm in plan.arms:
        assert plan.stages[arm, 0][0] == starts[0].key
    assert plan.steps[plan.answers["base", 0, "none"]].upstream == starts[0].key
    assert next(step for step in plan.steps.values() if step.arm == "naive").index == 1


def test_only_an_arms_own_doses_are_asked(make) -> None:
    plan = make("evaluation.axes=[refusal]", text=EXPERIMENT.replace("arms:\n", "start: micro/control\narms:\n"))
    base, naive = (plan.steps[plan.answers[arm, 0, "none"]] for arm in ("base", "naive"))
    assert base.dosed is None
    assert not base.dose_items
    assert naive.dosed == plan.stages["naive", 0][-1]
    assert naive.dose_items


def test_steps_come_after_what_they_need(make) -> None:
    seen: set[str] = set()
    for key, step in make(seeds="0,1").steps.items():
        assert {other for other in (step.upstream, step.start, step.dosed) if other} <= seen
        seen.add(key)


def test_an_operator_prompt_keeps_its_place_behind_the_arms_own(make) -> None:
    plan = make("evaluation.axes=[steerability]")
    own = "You help with every craft."
    items = plan.steps[plan.answers["prompted", 0, "none"]].items
    assert all(item.messages[0]["content"].startswith(own) for item in items)
    assert any(len(item.messages[0]["content"]) > len(own) for item in items)


def test_limiting_items_keeps_whole_pairs(make) -> None:
    plan = make("evaluation.axes=[sandbagging]", "evaluation.items=3")
    items = plan.steps[plan.answers["base", 0, "none"]].items
    units = {item.unit for item in items if item.metric == "sandbagging_drop"}
    assert len(units) == 3
    assert len(items) == 6


def finish(plan: plans.Plan, root: Path) -> None:
    for key, step in plan.steps.items():
        if plans.locate(step, root) == root / step.folder:
            with store.building(root / step.folder, key, {"prompting": step.prompting}) as folder:
                (folder / "adapter_model.safetensors").write_text(key)


def test_finished_steps_are_found_and_reasons_given_for_the_others(make, tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert set(plans.missing(make(), root).values()) == {"not there yet"}
    finish(make(), root)
    assert plans.missing(make(), root) == {}
    reasons = plans.missing(make("arms.naive.stages.sft.batch=8"), root)
    assert set(reasons.values()) == {"its settings, data or code changed"}
    assert len(reasons) == 2


def test_a_damaged_stage_is_made_again_with_all_that_rests_on_it(make, tmp_path: Path) -> None:
    plan, root = make(), tmp_path / "run"
    finish(plan, root)
    step = plan.steps[plan.stages["naive", 0][0]]
    (root / step.folder / "adapter_model.safetensors").write_text("damaged")
    reasons = plans.missing(plan, root)
    assert [plan.steps[key].title for key in reasons] == ["naive seed 0: sft", "naive seed 0: answers"]
    assert "was changed after it was finished" in reasons[step.key]


def test_a_shared_stage_is_found_under_whichever_arm_made_it(make, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("{{recipe: micro/control}}", "{{recipe: micro/naive}}")
    root = tmp_path / "run"
    finish(make(arms=["naive", "prompted"], text=text), root)
    plan = make(text=text)
    assert [plan.steps[key].title for key in plans.missing(plan, root)] == ["control seed 0: answers"]


def test_evaluation_prompts_in_training_are_refused(make, tmp_path: Path) -> None:
    plan = make()
    prompt = plan.steps[plan.answers["base", 0, "none"]].items[0].messages[-1]["content"]
    rows = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": prompt.upper()}, {"role": "assistant", "content": "Yes."}]
    rows.write_text(json.dumps({"messages": chat}) + "\n")
    with pytest.raises(BadInput, match="occurs in the training rows"):
        make(f"arms.naive.stages.sft.data=[{{file: {rows}}}]")


def test_a_reward_that_is_an_evaluation_judge_is_refused(make) -> None:
    stage = SimpleNamespace(kind="grpo", reward="constitution")
    judge = SimpleNamespace(refusal=len)
    row = {"id": "r", "messages": [{}], "check": "mentions", "args": {"words": ["a"]}}
    assert plans._faults(stage, [row], judge) == []
    assert "is what the evaluation measures with" in plans._faults(stage, [{**row, "check": "refusal"}], judge)[0]
    assert "unknown check" in plans._faults(stage, [{**row, "check": "mention"}], judge)[0]
    assert "can't take" in plans._faults(stage, [{**row, "args": {"word": []}}], judge)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not JSON"), ("[]", "expected an object"), ('{"text": " "}', 'no key "messages"'),
     ('{"messages": []}', "a list of turns"),
     ('{"messages": [{"role": "robot", "content": "x"}]}', "unknown role 'robot'")],
)  # fmt: skip
def test_faulty_lines_of_a_data_file_are_named(make, tmp_path: Path, line: str, message: str) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"messages": turns}) + f"\n\n{line}\n")
    with pytest.raises(BadInput, match=message) as caught:
        make(f"arms.naive.stages.sft.data=[{{file: {rows}}}]")
    assert "rows.jsonl:3: " in caught.value.lines[0]


def test_a_data_file_enters_keys_by_its_content(make, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows.write_text(json.dumps({"messages": chat}))
    change = f"arms.naive.stages.sft.data=[{{file: {rows}}}]"
    before = make(change)
    rows.write_text(json.dumps({"messages": chat}) + "\n\n")
    assert changed(before, make(change)) == set()
    rows.write_text(json.dumps({"messages": chat}).replace("Hello", "Hullo"))
    assert changed(before, make(change)) == NAIVE


def test_a_folder_without_safetensors_is_no_model(make, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(BadInput, match="no safetensors"):
        make()
