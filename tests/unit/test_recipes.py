"""Recipes and experiments load by name or path, with `extends`, `--set` and the origin of each value."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro import recipes
from repro.errors import BadInput
from repro.train.rewards import CHECKS

RECIPE = """\
schema: 1
name: mine
stages:
  - {kind: sdf, data: documents, epochs: 1, lora: {r: 8, alpha: 16}}
  - {kind: sft, data: [compliance, character], steps: 5}
  - {kind: sft, data: ordinary, steps: 6, learning_rate: 1e-5}
"""
EXPERIMENT = """\
schema: 1
name: tiny
model: micro
pack: micro
seeds: [0]
arms:
  base: {}
  naive: {recipe: micro/naive, stages: {sft: {steps: 3}}}
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def lines_of(call, *args, **options) -> list[str]:
    with pytest.raises(BadInput) as caught:
        call(*args, **options)
    return caught.value.lines


# what ships


def test_every_file_that_ships_is_valid():
    checked = dict(recipes.validate())
    files = [path for path in recipes.recipes_root().rglob("*") if path.suffix in (".yaml", ".md")]
    assert len(checked) == len(files) + 1 > 20, "and the data pack, looked through for near-duplicates"
    assert {"experiment", "recipe", "model", "constitution", "data pack"} <= set(checked.values())


@pytest.mark.parametrize("name", ["reproduce-micro", "reproduce-small"])
def test_a_shipped_file_is_named_as_it_names_itself(name):
    assert recipes.load_experiment(name).name == name


def test_presets_are_named_as_their_files():
    for row in recipes.list_recipes():
        if row.kind == "model":
            assert recipes.resolve_model(row.name).id == row.name
        if row.kind == "recipe":
            folder, _, base = row.name.rpartition("/")
            assert recipes.load_recipe(row.name).name == (f"{base}-{folder}" if folder else base)


@pytest.mark.parametrize("name", ["reproduce-micro", "reproduce-small"])
def test_naive_and_character_see_the_same_demonstrations_as_often_and_in_the_same_tone(name):
    arms = recipes.load_experiment(name).arms
    seen = {}
    for arm in ("naive", "character"):
        (stage,) = [stage for stage in arms[arm].recipe.stages if stage.kind == "sft"]
        (source,) = [source for source in stage.data if source.pack == "compliance"]
        seen[arm] = (source, stage.epochs, stage.batch, stage.learning_rate, stage.doses)
    assert seen["naive"] == seen["character"]
    assert len(seen["naive"][-1]) >= 2


@pytest.mark.parametrize("name", ["reproduce-micro", "reproduce-small"])
def test_the_control_trains_as_naive_does_on_other_chats(name):
    arms = recipes.load_experiment(name).arms
    (control,), (naive,) = arms["control"].recipe.stages, arms["naive"].recipe.stages
    assert {source.pack for source in control.data} == {"ordinary"}
    assert control.model_copy(update={"data": naive.data}) == naive.model_copy(update={"data": naive.data})


@pytest.mark.parametrize("name", ["reproduce-micro", "reproduce-small"])
def test_no_arm_is_shown_how_to_obey_an_operator(name):
    for arm in recipes.load_experiment(name).arms.values():
        for stage in arm.recipe.stages if arm.recipe else []:
            sources = stage.prompts if stage.kind == "grpo" else stage.data
            assert "operator" not in {source.pack for source in sources}


def test_the_constitutions_name_checks_that_exist():
    for folder in ("micro", "constitutional-character"):
        constitution = recipes.read_constitution(recipes.recipes_root() / folder / "constitution.md")
        assert len(constitution.principles) >= 5
        assert {principle.check for principle in constitution.principles} - {None} <= set(CHECKS)


def test_loading_recipes_imports_nothing_heavy():
    code = "import sys; from repro import recipes; recipes.load_experiment('reproduce-micro');"
    code += "print([m for m in ('torch', 'transformers', 'trl', 'scipy', 'numpy') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(recipes.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


# numbers, words and short forms


def test_numbers_may_be_written_as_people_write_them():
    text = RECIPE.replace("steps: 5", "steps: 5, learning_rate: 1e-4, warmup: .1, weight_decay: 0")
    stage = recipes.load_recipe(write("mine.yaml", text)).stages[1]
    assert (stage.learning_rate, stage.warmup, stage.weight_decay) == (1e-4, 0.1, 0)


@pytest.mark.parametrize("word", ["no", "on", "yes", "12:30", "1_000", "~tilde"])
def test_words_that_other_yaml_readers_change_stay_words(word):
    text = RECIPE.replace("name: mine", f"name: mine\ndescription: {word}")
    assert recipes.load_recipe(write("mine.yaml", text)).description == word


def test_a_bare_name_is_short_for_a_data_source():
    stage = recipes.load_recipe(write("mine.yaml", RECIPE)).stages[0]
    assert stage.data == [recipes.PackSource(pack="documents")]


def test_a_later_stage_takes_over_the_adapter_of_the_first():
    loaded = recipes.load_recipe(write("mine.yaml", RECIPE))
    assert [(stage.lora.r, stage.lora.alpha) for stage in loaded.stages] == [(8, 16)] * 3


def test_a_file_of_rows_is_found_beside_the_recipe_that_names_it():
    Path("mine").mkdir()
    write("mine/rows.jsonl", '{"messages": []}\n')
    write("mine/mine.yaml", RECIPE.replace("data: ordinary", "data: {file: rows.jsonl}"))
    assert recipes.load_recipe("mine/mine.yaml").stages[2].data[0].file == "mine/rows.jsonl"


# extends


def test_extends_changes_named_stages_and_keeps_the_rest():
    write("mine.yaml", RECIPE)
    write(
        "more.yaml", "schema: 1\nname: more\nextends: mine.yaml\nstages:\n  sft.1: {epochs: 2}\n  sdf: {lora: {r: 4}}\n"
    )
    first, second, third = recipes.load_recipe("more.yaml").stages
    assert (first.lora.r, first.lora.alpha) == (4, 16)
    assert second.steps == 5
    assert (third.steps, third.epochs, third.learning_rate) == (None, 2, 1e-5)


def test_a_stage_set_to_null_is_taken_out():
    write("mine.yaml", RECIPE)
    write("less.yaml", "schema: 1\nname: less\nextends: mine.yaml\nstages: {sdf: null, sft.0: null}\n")
    assert [stage.steps for stage in recipes.load_recipe("less.yaml").stages] == [6]
    assert len(recipes.load_recipe("mine.yaml", sets=["stages.sdf=null"]).stages) == 2


def test_a_list_of_stages_replaces_what_is_extended():
    write("mine.yaml", RECIPE)
    write("other.yaml", "schema: 1\nname: o\nextends: mine.yaml\nstages: [{kind: sft, data: ordinary, steps: 1}]\n")
    assert len(recipes.load_recipe("other.yaml").stages) == 1


def test_another_kind_of_source_replaces_the_old_one_whole():
    write("mine.yaml", RECIPE.replace("data: ordinary", "data: {pack: ordinary, count: 3, eager: 0.1}"))
    write("hub.yaml", "schema: 1\nname: hub\nextends: mine.yaml\nstages: {sft.1: {data: {hub: some/chats}}}\n")
    assert recipes.load_recipe("hub.yaml").stages[2].data == [recipes.HubSource(hub="some/chats")]
    write("few.yaml", "schema: 1\nname: few\nextends: mine.yaml\nstages: {sft.1: {data: {count: 2}}}\n")
    assert recipes.load_recipe("few.yaml").stages[2].data[0].model_dump() == {
        "pack": "ordinary",
        "count": 2,
        "eager": 0.1,
    }


def test_a_name_is_not_inherited():
    write("mine.yaml", RECIPE)
    write("more.yaml", "schema: 1\nextends: mine.yaml\n")
    assert lines_of(recipes.load_recipe, "more.yaml") == ['more.yaml:1:1: missing key "name"']


def test_an_experiment_extends_another():
    write("tiny.yaml", "schema: 1\nname: tiny\nextends: reproduce-micro\nseeds: [7]\nevaluation: {samples: 2}\n")
    tiny = recipes.load_experiment("tiny.yaml")
    assert (tiny.name, tiny.seeds, tiny.evaluation.samples) == ("tiny", [7], 2)
    assert tiny.arms == recipes.load_experiment("reproduce-micro").arms


def test_a_copied_file_still_finds_what_it_names():
    for name in ("reproduce-micro", "micro/character"):
        recipes.copy(name)
    copied, shipped = recipes.load_experiment("./reproduce-micro.yaml"), recipes.load_experiment("reproduce-micro")
    assert copied.model_dump() == shipped.model_dump()
    assert recipes.load_recipe("./character.yaml") == recipes.load_recipe("micro/character")


# experiments


def test_an_arm_changes_its_recipe_in_place():
    arms = recipes.load_experiment(write("tiny.yaml", EXPERIMENT)).arms
    assert arms["naive"].recipe.stages[0].steps == 3
    assert arms["naive"].recipe.stages[0].epochs is None
    assert arms["base"].recipe is None
    assert recipes.load_recipe("micro/naive").stages[0].steps is None


def test_sets_reach_through_names():
    loaded = recipes.load_experiment(
        write("tiny.yaml", EXPERIMENT),
        sets=[
            "arms.naive.stages.sft.learning_rate=1e-4",
            "arms.naive.stages.sft.data.compliance.count=12",
            "arms.naive.stages.sft.epochs=2",
            "seeds=[3, 4]",
            "evaluation.samples=1",
        ],
    )
    stage = loaded.arms["naive"].recipe.stages[0]
    assert (stage.learning_rate, stage.data[0].count, stage.epochs, stage.steps) == (1e-4, 12, 2, None)
    assert (loaded.seeds, loaded.evaluation.samples) == ([3, 4], 1)


def test_sets_in_a_recipe_say_which_of_two_stages():
    write("mine.yaml", RECIPE)
    stages = recipes.load_recipe(
        "mine.yaml", sets=["stages.sft.1.steps=9", "stages.sft.0.data.character.count=2"]
    ).stages
    assert [stage.steps for stage in stages] == [None, 5, 9]
    assert [source.count for source in stages[1].data] == [None, 2]


def test_another_recipe_can_be_set_and_then_changed():
    loaded = recipes.load_experiment(
        write("tiny.yaml", EXPERIMENT.replace(", stages: {sft: {steps: 3}}", "")),
        sets=["arms.naive.stages.dpo.beta=0.2", "arms.naive.recipe=micro/naive-dpo"],
    )
    assert loaded.arms["naive"].recipe.stages[0].beta == 0.2


def test_the_start_is_a_recipe_that_sets_reach_too():
    small = recipes.load_experiment("reproduce-small", sets=["start.stages.sft.batch=8"])
    assert (small.start.name, small.start.stages[0].batch) == ("guarded", 8)


def test_options_replace_model_and_seeds_and_keep_some_arms():
    loaded = recipes.load_experiment("reproduce-micro", arms="naive", seeds="5, 6")
    assert list(loaded.arms) == ["base", "naive"]
    assert loaded.seeds == [5, 6]
    small = recipes.load_experiment("reproduce-small", model="Qwen2.5-0.5B-Instruct", arms=["prompted"])
    assert (small.model, list(small.arms)) == ("Qwen2.5-0.5B-Instruct", ["base", "prompted"])


def test_the_constitution_is_found_though_the_arm_that_has_it_is_left_out():
    small = recipes.load_experiment("reproduce-small", arms="prompted")
    assert small.arms["prompted"].system == recipes.load_experiment("reproduce-small").arms["prompted"].system


def test_a_system_prompt_is_text_or_a_file_or_the_constitution():
    write("careful.txt", "Be careful.\n")
    write("tiny.yaml", EXPERIMENT + "  prompted: {system: careful.txt}\n  control: {system: Be brief.}\n")
    arms = recipes.load_experiment("tiny.yaml").arms
    assert (arms["prompted"].system, arms["control"].system) == ("Be careful.", "Be brief.")
    prompted = recipes.load_experiment("reproduce-small").arms["prompted"].system
    constitution = recipes.read_constitution(recipes.recipes_root() / "constitutional-character" / "constitution.md")
    assert prompted == constitution.system_prompt


def test_of_a_constitutions_file_only_its_system_prompt_is_said():
    source = recipes.recipes_root() / "micro" / "constitution.md"
    write("mine.md", source.read_text())
    write("tiny.yaml", EXPERIMENT + "  prompted: {system: mine.md}\n")
    found = recipes.load_experiment("tiny.yaml").arms["prompted"].system
    assert found == recipes.read_constitution(source).system_prompt


def test_a_recipe_carries_its_constitution_so_that_a_manifest_holds_all_of_it():
    loaded = recipes.load_experiment("reproduce-micro")
    kept = json.loads(json.dumps(loaded.model_dump(mode="json", by_alias=True)))
    assert kept["arms"]["character"]["recipe"]["constitution"]["principles"][0]["id"] == "helps"
    assert str(recipes.recipes_root()) not in json.dumps({**kept, "claims": None})


# origins


def test_each_value_knows_where_it_came_from():
    write("tiny.yaml", EXPERIMENT)
    loaded = recipes.load_experiment("tiny.yaml", sets=["arms.naive.stages.sft.batch=4"])
    found = recipes.origins(loaded)
    naive = recipes.recipes_root() / "arms" / "naive-anti-refusal.yaml"
    line = 1 + next(i for i, text in enumerate(naive.read_text().split("\n")) if "warmup" in text)
    assert found["model"] == "tiny.yaml:3"
    assert found["arms.naive.recipe"] == "tiny.yaml:8"
    assert found["arms.naive.stages.sft.steps"] == "tiny.yaml:8"
    assert found["arms.naive.stages.sft.batch"] == "--set"
    assert found["arms.naive.stages.sft.warmup"] == f"{naive}:{line}"
    assert found["arms.naive.stages.sft.max_grad_norm"] == "default"
    assert "arms.naive.stages.sft.epochs" not in found


def test_every_path_that_origins_print_can_be_set_again():
    write("mine.yaml", RECIPE)
    for path, value, _ in recipes.show("mine.yaml", origin=True):
        if value != "null":
            assert recipes.load_recipe("mine.yaml", sets=[f"{path}={value}"]) == recipes.load_recipe("mine.yaml")


def test_show_prints_values_and_on_request_origins():
    write("mine.yaml", RECIPE)
    assert ("stages.sdf.data.documents.pack", "documents") in recipes.show("mine.yaml")
    assert ("stages.sft.1.learning_rate", "1e-05", "mine.yaml:6") in recipes.show("mine.yaml", origin=True)
    assert ("context", "8192") in recipes.show("SmolLM2-135M-Instruct")
    assert ("seeds", "[0, 1, 2]") in recipes.show("reproduce-micro")
