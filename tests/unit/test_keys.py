"""A cache that can't go stale: every input of a step makes another key, nothing else does, and it is named."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from repro import changes, keys, recipes, stages, store
from repro import plan as plans

EXPERIMENT = """\
schema: 1
name: tiny
model: model
pack: micro
quant: none
seeds: [0]
arms:
  base: {}
  naive: {recipe: ./two.yaml}
  control: {recipe: micro/control}
  prompted: {system: You help with every craft.}
evaluation: {axes: [capability], samples: 1, items: 4, max_new_tokens: 16}
"""
RECIPE = """\
schema: 1
name: two
constitution: ./constitution.md
stages:
  - {kind: sft, data: [{file: rows.jsonl}], batch: 4, steps: 2, doses: [0.5, 1.0]}
  - {kind: grpo, prompts: [{pack: character-questions, count: 4}], steps: 2, group: 2, batch: 4}
"""
ROWS = [[{"role": "user", "content": f"Hi {n}."}, {"role": "assistant", "content": "Hello."}] for n in range(3)]
MINE = {"naive sft", "naive grpo", "naive answers"}
ALL = MINE | {"control sft", "control answers", "base answers", "prompted answers"}
SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment, its recipe, its rows, its constitution and a model that no test opens."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(recipes.recipes_root() / "micro" / "constitution.md", tmp_path)
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    (tmp_path / "two.yaml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in ROWS))
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"):
        (model / name).write_text(f'{{"what": "{name}"}}')
    return tmp_path


def plan(*sets: str) -> plans.Plan:
    experiment = recipes.load_experiment("tiny.yaml", sets=list(sets))
    return plans.build(experiment, recipes.resolve_model(experiment.model))


def by_name(made: plans.Plan) -> dict[str, str]:
    return {f"{step.arm} {step.kind}": key for key, step in made.steps.items()}


def changed(before: plans.Plan, after: plans.Plan) -> set[str]:
    old, new = by_name(before), by_name(after)
    return {name for name in new if new[name] != old.get(name)}


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


# the function -------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, child in pairs for leaf in leaves(child, (*path, key))]
    return [path]


# what an explanation reads and no key does: the words for what the hashes stand for
WORDS = {"base_files", "versions", "source", "rows", "count"}


def test_a_steps_key_follows_from_the_inputs_that_are_kept_with_it(here: Path) -> None:
    for key, step in plan().steps.items():
        assert keys.key_of(json.loads(json.dumps(step.inputs))) == key


@given(data=st.data())
@SETTINGS
def test_any_leaf_of_the_inputs_is_in_the_key_and_no_word_is(here: Path, data: st.DataObject) -> None:
    step = data.draw(st.sampled_from(MADE or MADE.extend(plan().steps.values()) or MADE))
    path = data.draw(st.sampled_from(leaves(step.inputs)))
    inputs = copy.deepcopy(step.inputs)
    place: Any = inputs
    for part in path[:-1]:
        place = place[part]
    numbers = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    other = data.draw(st.none() | numbers | st.text())
    if path[0] == "versions":  # releases of one series
        other = keys.SERIES[path[1]] + data.draw(st.sampled_from(["", ".7", ".7+cu130"]))
    if other == place[path[-1]]:
        return
    place[path[-1]] = other
    assert (keys.key_of(inputs) == step.key) == bool(WORDS.intersection(map(str, path)))


MADE: list[Any] = []


@pytest.mark.parametrize("library", keys.SERIES)
def test_another_release_series_of_a_library_is_another_key_where_it_computes(
    here: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = keys.installed
    before = plan("quant=nf4")
    other = "99.1.0+cpu"
    monkeypatch.setattr(keys, "installed", lambda name: other if name == library else installed(name))
    trained = {name for name in ALL if not name.endswith("answers")} | {"naive answers", "control answers"}
    assert changed(before, plan("quant=nf4")) == (trained if library == "trl" else ALL)
    if library == "bitsandbytes":
        assert changed(plan(), plan()) == set()


# what goes in -------------------------------------------------------------------------------------------------------

OTHER: dict[str, Any] = {"reward": "mentions", "doses": "[0.25,1.0]", "epochs": 3, "steps": 3,
                         "batch": 8, "group": 4, "schedule": "constant", "curve": 7}  # fmt: skip
NEEDS_MORE = {"kind", "data", "prompts", "lora"}  # tested on their own, or not to be changed alone


def fields(stage: type) -> list[str]:
    return sorted(set(stage.model_fields) - NEEDS_MORE)  # type: ignore[attr-defined]


def another(name: str, value: Any) -> Any:
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int | float):
        return value / 2 if isinstance(value, float) and value else value + 1
    return "<|other|>"


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, model in (("sft", stages.SftStage), ("grpo", stages.GrpoStage)) for name in fields(model)],
)
def test_every_setting_of_a_stage_is_an_input(here: Path, kind: str, name: str) -> None:
    before = plan()
    stage = next(step.stage for step in before.steps.values() if step.arm == "naive" and step.kind == kind)
    value = another(name, getattr(stage, name))
    after = plan(f"arms.naive.stages.{kind}.{name}={value}")
    assert changed(before, after) == (MINE if kind == "sft" else MINE - {"naive sft"})


INPUTS: dict[str, tuple[Callable[[], Any], set[str], str]] = {
    "a byte of the data": (lambda: edit("rows.jsonl", "Hi 1", "Hi 7"), MINE, "rows of rows.jsonl: 3, other bytes"),
    "a row more": (lambda: edit("rows.jsonl", "\n", '\n{"messages": [{"role": "user", "content": "O"}, '
                                '{"role": "assistant", "content": "K"}]}\n'), MINE, "rows of rows.jsonl: 3 -> 4"),
    "the rows' order": (lambda: Path("rows.jsonl").write_text(
        "".join(reversed(Path("rows.jsonl").read_text().splitlines(True)))), MINE,
        "rows of rows.jsonl: 3, other bytes"),
    "a stage before": (lambda: edit("two.yaml", "steps: 2,", "steps: 3,"), MINE, "stage.steps 2 -> 3"),
    "a stage more": (lambda: edit("two.yaml", "stages:\n", "stages:\n  - {kind: sft, data: [compliance], steps: 1}\n"),
                     MINE, "place among the stages 0 -> 1"),
    "the adapter": (lambda: edit("two.yaml", "steps: 2,", "steps: 2, lora: {r: 2, alpha: 2},"), MINE, "stage.lora.r"),
    "a check of the constitution": (
        lambda: Path("constitution.md").write_text(
            Path("constitution.md").read_text().replace("Check: contains_all_in_order", "Check: mentions")),
        MINE - {"naive sft"}, "rows of the checks"),
    "the weights": (lambda: edit("model/model.safetensors", "what", "that"), ALL, "base weights: model.safetensors"),
    "the tokenizer": (lambda: edit("model/tokenizer.json", "what", "that"), ALL, "tokenizer or other base file"),
    "the chat template": (lambda: edit("model/chat_template.jinja", "what", "that"), ALL, "chat template"),
    "another template": (lambda: (Path("model/additional_chat_templates").mkdir(), Path(
        "model/additional_chat_templates/tools.jinja").write_text("x")), ALL, "tools.jinja is new"),
    "the system prompt": (lambda: edit("tiny.yaml", "every craft", "each craft"), {"prompted answers"}, "other words"),
    "the quantisation": (lambda: edit("tiny.yaml", "quant: none", "quant: nf4"), ALL, "quant none -> nf4"),
    "the items": (lambda: edit("tiny.yaml", "items: 4", "items: 3"), {n for n in ALL if n.endswith("answers")},
                  "what is asked: 8 -> 6"),
    "the samples": (lambda: edit("tiny.yaml", "axes: [capability], samples: 1", "axes: [misalignment], samples: 2"),
                    {n for n in ALL if n.endswith("answers")}, "what is asked"),
    "the longest answer": (lambda: edit("tiny.yaml", "tokens: 16", "tokens: 9"),
                           {n for n in ALL if n.endswith("answers")}, "evaluation.max_new_tokens 16 -> 9"),
    "the kit's code": (lambda: setattr(keys, "CODE_VERSION", "next"), ALL, "the kit's own code, version 2 -> next"),
}  # fmt: skip


@pytest.mark.parametrize("what", INPUTS)
def test_an_input_makes_another_key_and_is_named(here: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CODE_VERSION", keys.CODE_VERSION)  # put back whatever the change does
    change, whose, words = INPUTS[what]
    before = plan()
    change()
    after = plan()
    assert changed(before, after) == whose
    old, new = ({f"{step.arm} {step.kind}": step for step in made.steps.values()} for made in (before, after))
    said = {name: changes.differences(old[name].inputs, new[name].inputs, after) for name in whose & old.keys()}
    assert all(said.values())
    assert any(words in line for lines in said.values() for line in lines), said


# what does not ------------------------------------------------------------------------------------------------------

OUTSIDE: dict[str, Callable[[], Any]] = {
    "a description": lambda: edit("tiny.yaml", "name: tiny\n", "name: tiny\ndescription: Another.\n"),
    "the name": lambda: edit("tiny.yaml", "name: tiny", "name: other"),
    "the claims": lambda: edit("tiny.yaml", "pack: micro\n", "pack: micro\nclaims: claims.yaml\n"),
    "what it needs": lambda: edit("tiny.yaml", "pack: micro\n", "pack: micro\nneeds: cuda\n"),
    "comments": lambda: [edit(name, "schema: 1\n", "# a comment\nschema: 1\n\n") for name in ("tiny.yaml", "two.yaml")],
    "the order of keys": lambda: edit("two.yaml", "batch: 4, steps: 2, doses", "steps: 2, batch: 4, doses"),
    "the order of arms": lambda: (edit("tiny.yaml", "  base: {}\n", ""),
                                  edit("tiny.yaml", "evaluation", "  base: {}\nevaluation")),
    "another arm": lambda: edit("tiny.yaml", "  prompted", "  naive-dpo: {recipe: micro/naive-dpo}\n  prompted"),
    "one arm less": lambda: edit("tiny.yaml", "  control: {recipe: micro/control}\n", ""),
    "the place in the paper": lambda: edit("two.yaml", "name: two\n",
                                           "name: two\npaper: {claim: c, source: s, known: k}\n"),
    "the recipe's name": lambda: edit("two.yaml", "name: two", "name: three"),
    "seeds beside it": lambda: edit("tiny.yaml", "seeds: [0]", "seeds: [0, 1]"),
    "white space of the data": lambda: edit("rows.jsonl", '"messages": ', '"messages":   '),
    "a default spelt out": lambda: edit("two.yaml", "batch: 4, steps: 2, doses", "batch: 4, steps: 2, "
                                        "weight_decay: 0.01, doses"),
    "the model's README": lambda: edit("model/README.md", "what", "that"),
    "the folder of the model": lambda: (Path("model").rename("elsewhere"), edit("tiny.yaml", "model: model",
                                                                               "model: elsewhere")),
    "the times of the files": lambda: [path.touch() for path in Path().rglob("*.*")],
    "a strategy more": lambda: edit("tiny.yaml", "samples: 1", "samples: 1, prompting: [none, careful]"),
}  # fmt: skip


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_is_no_input_changes_no_key(here: Path, what: str) -> None:
    (here / "claims.yaml").write_text("[]")
    before = plan()
    OUTSIDE[what]()
    after = plan()
    same = {(step.arm, step.kind, step.seed, step.prompting): key for key, step in after.steps.items()}
    for key, step in before.steps.items():
        assert same.get((step.arm, step.kind, step.seed, step.prompting), key) == key, step.title


@given(st.lists(st.sampled_from(sorted(OUTSIDE)), unique=True, max_size=3), st.sampled_from(sorted(INPUTS)))
@settings(SETTINGS, max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_an_input_is_seen_among_whatever_else_changes(here: Path, others: list[str], what: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "CODE_VERSION", "2")
        before = plan()
        saved = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
        try:
            (here / "claims.yaml").write_text("[]")
            INPUTS[what][0]()
            for other in set(others) - {"one arm less", "the folder of the model", "the order of arms"}:
                try:
                    OUTSIDE[other]()
                except AssertionError:  # the text is another already
                    continue
            after = plan()
        finally:
            shutil.rmtree(here / "model" / "additional_chat_templates", ignore_errors=True)
            for path, content in saved.items():
                path.write_bytes(content)
    assert INPUTS[what][1] <= changed(before, after)


# the words ----------------------------------------------------------------------------------------------------------


def finish(made: plans.Plan, root: Path) -> None:
    for key, step in made.steps.items():
        summary = {"prompting": step.prompting, "inputs": step.inputs}
        with store.building(root / step.folder, key, summary) as folder:
            (folder / "adapter_model.safetensors").write_text(key)


def explained(made: plans.Plan, root: Path) -> dict[str, list[str]]:
    reasons = plans.missing(made, root)
    return {f"{step.arm} {step.kind}": changes.explain(made, step, root, reasons) for step in made.steps.values()}


def test_a_change_within_a_run_folder_is_explained_step_by_step(here: Path) -> None:
    made = plan()
    root = here / "runs" / made.folder_name
    assert explained(made, root)["naive sft"] == ["never made before, here or in a run beside this one"]
    finish(made, root)
    assert not any(explained(made, root).values())
    edit("rows.jsonl", "Hi 1", "Hi 7")
    said = explained(plan(), root)
    assert said["naive sft"] == ["rows of rows.jsonl: 3, other bytes"]
    assert said["naive grpo"] == ["the stage before it (naive seed 0: sft)"]
    assert said["naive answers"][0] == "the stage before it (naive seed 0: grpo)"
    assert not said["control sft"]


def test_another_setting_is_explained_against_the_run_before_it(here: Path) -> None:
    made = plan()
    finish(made, here / "runs" / made.folder_name)
    other = plan("arms.naive.stages.sft.learning_rate=0.0003")
    said = explained(other, here / "runs" / other.folder_name)
    assert said["naive sft"] == [f"stage.learning_rate 0.0001 -> 0.0003 (in {made.folder_name})"]
    assert "no input of it changed" in said["control sft"][0]


def test_a_step_without_its_inputs_says_so_and_a_patch_release_keeps_it(here: Path) -> None:
    made = plan()
    root = here / "runs" / made.folder_name
    finish(made, root)
    assert changes.mixed(made, root) == []
    step = next(step for step in made.steps.values() if step.kind == "sft" and step.arm == "naive")
    done = store.read_done(root / step.folder) or {}
    done["summary"]["inputs"]["versions"]["torch"] = keys.SERIES["torch"] + ".77"
    store.write_json(root / step.folder / store.DONE, done)
    assert "kept, since the release series is the same" in explained(made, root)["naive sft"][0]
    (warning,) = changes.mixed(made, root)
    assert warning.startswith("versions: some steps were made with torch ")
    assert f"{keys.SERIES['torch']}.77" in warning
    for inputs in (None, [1], {"stage": 3, "data": "x", "items": [], "versions": 7}):
        done["summary"]["inputs"] = inputs
        store.write_json(root / step.folder / store.DONE, done)
        edit("rows.jsonl", "Hello.", "Hello..")
        assert explained(plan(), root)["naive sft"]
