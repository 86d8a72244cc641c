"""What is wrong with a recipe is said at once, one line each, with file, line, column and a guess at what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro import recipes
from repro.errors import BadInput

HEAD = "schema: 1\nname: mine\n"
STAGE = "stages:\n  - kind: sft\n    data: compliance\n    steps: 5\n"
RECIPE = HEAD + STAGE
EXPERIMENT = """\
schema: 1
name: tiny
model: micro
pack: micro
seeds: [0]
arms:
  base: {}
  naive: {recipe: micro/naive}
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults(call, *args, **options) -> list[str]:
    with pytest.raises(BadInput) as caught:
        call(*args, **options)
    assert caught.value.exit_code == 2
    return caught.value.lines


def recipe(text: str | bytes, **options) -> list[str]:
    Path("r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return faults(recipes.load_recipe, "r.yaml", **options)


def experiment(text: str, **options) -> list[str]:
    Path("e.yaml").write_text(text, encoding="utf-8")
    return faults(recipes.load_experiment, "e.yaml", **options)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "r.yaml:1:1: empty: expected a mapping (key: value)"),
        ("# nothing\n", "r.yaml:2:1: empty: expected a mapping (key: value)"),
        ("- a\n", "r.yaml:1:1: expected a mapping (key: value), got a list"),
        ("just words", 'r.yaml:1:1: expected a mapping (key: value), got "just words"'),
        (RECIPE + "---\n" + RECIPE, "r.yaml:7:1: a second document: one file holds one"),
        (RECIPE + "name: again\n", 'r.yaml:7:1: duplicate key "name" (first at line 2)'),
        (RECIPE.replace("steps: 5", "lora: {r: 4, alpha: 8, r: 2}\n    steps: 5"),
         'r.yaml:6:28: duplicate key "r" (first at line 6)'),
        (RECIPE.replace("sft", "&it sft"), "r.yaml:4:11: the anchor &it is refused: write values out, or use extends"),
        (RECIPE + "<<: {}\n", "r.yaml:7:1: the merge key << is refused: use extends"),
        (RECIPE.replace("5", "!!int 5"), "r.yaml:6:12: the tag tag:yaml.org,2002:int is refused"),
        (RECIPE.replace("5", "!python/object 5"), "r.yaml:6:12: the tag !python/object is refused"),
        (RECIPE + "? {a: 1}\n: 2\n", "r.yaml:7:3: a key must be a word"),
        (RECIPE + "description: [\n",
         "r.yaml:8:1: not valid YAML: expected the node content, but found '<stream end>'"),
        (RECIPE + "\tname: x\n", "r.yaml:7:1: not valid YAML: found character '\\t' that cannot start any token"),
        (RECIPE + 'description: "\\U00110000"\n', "r.yaml:7:17: not valid YAML: chr() arg not in range(0x110000)"),
        (RECIPE + "description: a\x07b\n", "r.yaml:7:15: the character '\\x07' is not allowed"),
        (RECIPE.encode() + b"description: \xff\n", "r.yaml:7:14: not UTF-8 text"),
        (HEAD + "stages: " + "[" * 30 + "]" * 30, "r.yaml:3:29: not valid YAML: nested deeper than 20"),
        (b"#" * 1_000_001, "r.yaml:1:1: larger than 1 MB"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_plain_yaml(text, line):
    assert recipe(text) == [line]


def test_an_alias_and_its_anchor_are_both_named():
    assert recipe(HEAD + "description: &a x\nextends: *a\n") == [
        "r.yaml:3:14: the anchor &a is refused: write values out, or use extends",
        "r.yaml:4:10: the alias *a is refused: write the value out, or use extends",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("steps", "stepz", 'r.yaml:6:5: unknown key "stepz" (did you mean "steps"?)'),
        ("name: mine\n", "", 'r.yaml:1:1: missing key "name"'),
        ("schema: 1", "schema: 2", "r.yaml:1:9: schema: must be at most 1, got the number 2"),
        ("schema: 1", "schema: true", "r.yaml:1:9: schema: expected a whole number, got true"),
        ("name: mine", "name: 12", "r.yaml:2:7: name: expected text, got the number 12 (put it in quotes)"),
        ("name: mine", "name: My Recipe",
         'r.yaml:2:7: name: "My Recipe" does not match ^[a-z0-9][a-z0-9-]*$'),
        ("kind: sft", "kind: sfft",
         'r.yaml:4:11: unknown kind "sfft", not one of sdf, sft, dpo, grpo, abliterate (did you mean "sft"?)'),
        ("kind: sft\n    data", "data", 'r.yaml:4:5: missing key "kind" (sdf, sft, dpo, grpo, abliterate)'),
        ("data: compliance", "data: complianse",
         'r.yaml:5:11: data: "complianse" is not one of compliance, ordinary, character, operator, guard, documents, '
         'neutral-documents, requests, character-questions (did you mean "compliance"?)'),
        ("data: compliance", "data: []", "r.yaml:5:11: data: needs entries: at least 1, got a list"),
        ("data: compliance", "data: {pack: compliance, cuont: 3}",
         'r.yaml:5:30: unknown key "cuont" (did you mean "count"?)'),
        ("data: compliance", "data: {pack: {count: 2}}",
         "r.yaml:5:18: pack: a mapping is not one of compliance, ordinary, character, operator, guard, documents, "
         "neutral-documents, requests, character-questions"),
        ("data: compliance", "data: {pack: compliance, count: 0}",
         "r.yaml:5:37: count: must be at least 1, got the number 0"),
        ("data: compliance", "data: [compliance, 3]",
         "r.yaml:5:24: data: expected a data source (a name, or a mapping with pack, file or hub), got the number 3"),
        ("data: compliance", "data: {hub: nope}", r'r.yaml:5:17: hub: "nope" does not match ^[\w.-]+/[\w.-]+$'),
        ("data: compliance", "data: documents",
         'r.yaml:5:11: data: "documents" does not fit this kind of stage, which takes compliance, ordinary, character, '
         "operator, guard"),
        ("data: compliance", "data: {file: rows.jsonl}", "r.yaml:5:18: no such file: rows.jsonl"),
        ("    steps: 5\n", "", "r.yaml:4:5: give exactly one of epochs, steps"),
        ("steps: 5", "steps: 5\n    epochs: 1", "r.yaml:4:5: give exactly one of epochs, steps"),
        ("steps: 5", "steps: 5.5", "r.yaml:6:12: steps: expected a whole number, got the number 5.5"),
        ("steps: 5", "steps: yes", 'r.yaml:6:12: steps: expected a whole number, got "yes"'),
        ("steps: 5", "steps:", "r.yaml:4:5: give exactly one of epochs, steps"),
        ("steps: 5", "epochs: true", "r.yaml:6:13: epochs: expected a number, got true"),
        ("steps: 5", "epochs: .nan", "r.yaml:6:13: epochs: expected a finite number, got the number nan"),
        ("steps: 5", "epochs: 1e999", "r.yaml:6:13: epochs: expected a finite number, got the number inf"),
        ("steps: 5", "steps: 5\n    learning_rate: 0", "r.yaml:7:20: learning_rate: must be above 0, got the number 0"),
        ("steps: 5", "steps: 5\n    learning_rate: '1e-4'",
         'r.yaml:7:20: learning_rate: expected a number, got "1e-4"'),
        ("steps: 5", "steps: 5\n    learning_rate: 1e-4x",
         'r.yaml:7:20: learning_rate: expected a number, got "1e-4x"'),
        ("steps: 5", "steps: 5\n    batch: 0", "r.yaml:7:12: batch: must be at least 1, got the number 0"),
        ("steps: 5", "steps: 5\n    lora: {r: 0}", "r.yaml:7:15: r: must be at least 1, got the number 0"),
        ("steps: 5", "steps: 5\n    lora: {rank: 4}", 'r.yaml:7:12: unknown key "rank"'),
        ("steps: 5", "steps: 5\n    lora: 4", "r.yaml:7:11: lora: expected a mapping, got the number 4"),
        ("steps: 5", "steps: 5\n    doses: [0.5]", "r.yaml:7:12: doses: must ascend, each once, and end at 1.0"),
        ("steps: 5", "steps: 5\n    doses: [0.5, 0.25, 1.0]",
         "r.yaml:7:12: doses: must ascend, each once, and end at 1.0"),
        ("steps: 5", "steps: 5\n    doses: [0, 1.0]", "r.yaml:7:13: doses: must be above 0, got the number 0"),
        ("steps: 5", "steps: 5\n    schedule: cosin",
         'r.yaml:7:15: schedule: "cosin" is not one of cosine, linear, constant (did you mean "cosine"?)'),
        ("stages:\n", "constitution: no.md\nstages:\n", "r.yaml:3:15: no such file: no.md"),
        (STAGE, "stages: {sft: {steps: 3}}\n", "r.yaml:3:9: stages: expected a list, got a mapping"),
        (STAGE, "stages: []\n", "r.yaml:3:9: stages: needs entries: at least 1, got a list"),
        (STAGE, "stages: [3]\n", "r.yaml:3:10: stages: expected a mapping, got the number 3"),
        (STAGE, "stages:\n", "r.yaml:3:8: stages: expected a list, got nothing"),
        (STAGE, STAGE + "extends: nowhere.yaml\n", "r.yaml:7:10: no such file: nowhere.yaml"),
        (STAGE, STAGE + "extends: [a]\n", "r.yaml:7:10: extends: expected text, got a list"),
        (STAGE, "stages:\n  - {kind: grpo, prompts: requests, steps: 3, reward: refusal}\n",
         'r.yaml:4:55: reward: "refusal" is what the evaluation measures with; a reward must be something else'),
        (STAGE, "stages:\n  - {kind: grpo, prompts: requests, steps: 3, reward: says_yes, batch: 9, group: 2}\n",
         "r.yaml:4:5: batch 9 is no multiple of group 2"),
        (STAGE, "stages:\n  - {kind: grpo, prompts: requests, steps: 3}\n",
         "r.yaml:1:1: the reward constitution needs the key constitution"),
        (STAGE, STAGE + "  - {kind: dpo, data: requests, steps: 1, lora: {r: 4}}\n",
         "r.yaml:1:1: the stages of a recipe train one adapter: their lora must be the same"),
    ],
)  # fmt: skip
def test_a_recipe_that_says_something_wrong(old, new, line):
    assert old in RECIPE
    assert recipe(RECIPE.replace(old, new, 1)) == [line]


def test_all_faults_of_a_file_are_shown_at_once():
    text = "schema: 1\nname: A\nstages:\n  - kind: sft\n    data: compliancy\n    steps: -1\n    bacth: 3\n"
    assert [line.split(": ")[0] for line in recipe(text)] == ["r.yaml:2:7", "r.yaml:6:12", "r.yaml:5:11", "r.yaml:7:5"]


def test_a_fault_is_placed_in_the_file_that_holds_it():
    Path("base.yaml").write_text(RECIPE.replace("steps: 5", "steps: no"))
    assert recipe(HEAD + "extends: base.yaml\nstages: {sft: {batch: big}}\n") == [
        'r.yaml:4:23: batch: expected a whole number, got "big"',
        'base.yaml:6:12: steps: expected a whole number, got "no"',
    ]


def test_a_circle_of_extends_is_named():
    Path("a.yaml").write_text(HEAD + "extends: b.yaml\n")
    Path("b.yaml").write_text(HEAD + "extends: r.yaml\n")
    assert recipe(HEAD + "extends: a.yaml\n") == [
        "b.yaml:3:10: extends in a circle: r.yaml -> a.yaml -> b.yaml -> r.yaml"
    ]
    assert recipe(HEAD + "extends: r.yaml\n") == ["r.yaml:3:10: extends in a circle: r.yaml -> r.yaml"]


def test_a_change_to_a_stage_that_is_not_there():
    Path("two.yaml").write_text(RECIPE + "  - {kind: sft, data: ordinary, steps: 1}\n")
    assert recipe(HEAD + "extends: two.yaml\nstages: {sfd: {steps: 1}, sft: {steps: 1}, sft.1: {stepz: 2}}\n") == [
        'r.yaml:4:10: there is no "sfd", only sft.0, sft.1',
        'r.yaml:4:27: "sft" is there 2 times: write sft.0 or sft.1',
        'r.yaml:4:52: unknown key "stepz" (did you mean "steps"?)',
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("model: micro", "model: micor", 'e.yaml:3:8: unknown model "micor" (did you mean "micro"?): give a preset'),
        ("model: micro", "model: Qwen2.5-0.5B-Instruct",
         "e.yaml:3:8: the model Qwen2.5-0.5B-Instruct understands the pack english only, this experiment's is micro"),
        ("pack: micro", "pack: macro",
         'e.yaml:4:7: pack: "macro" is not one of micro, english (did you mean "micro"?)'),
        ("[0]", "[]", "e.yaml:5:8: seeds: needs entries: at least 1, got a list"),
        ("[0]", "0", "e.yaml:5:8: seeds: expected a list, got the number 0"),
        ("[0]", "[0, 1, 0]", "e.yaml:5:8: seeds: must differ from each other"),
        ("[0]", "[-1]", "e.yaml:5:9: seeds: must be at least 0, got the number -1"),
        ("[0]", "[true]", "e.yaml:5:9: seeds: expected a whole number, got true"),
        ("[0]", "['0']", 'e.yaml:5:9: seeds: expected a whole number, got "0"'),
        ("[0]", "[1.0]", "e.yaml:5:9: seeds: expected a whole number, got the number 1.0"),
        ("[0]", "[4294967296]", "e.yaml:5:9: seeds: must be below 2147483648, got the number 4294967296"),
        ("  base: {}\n", "", "e.yaml:7:3: arms: the arm base is missing: everything is compared with it"),
        ("base: {}", "base: {system: x}", "e.yaml:7:3: arms: the arm base has neither recipe nor system"),
        ("naive: {recipe: micro/naive}", "naive: {}",
         'e.yaml:7:3: arms: the arm "naive" has neither recipe nor system'),
        ("naive:", "naiv:", 'e.yaml:8:3: unknown arm "naiv" (did you mean "naive"?)'),
        ("naive: {recipe", "naive: {recpie", 'e.yaml:8:11: unknown key "recpie" (did you mean "recipe"?)'),
        ("micro/naive", "micro/naiv",
         'e.yaml:8:19: unknown recipe "micro/naiv" (did you mean "micro/naive"?); there are:'),
        ("micro/naive", "mine.yaml", "e.yaml:8:19: no such file: mine.yaml"),
        ("micro/naive", "[a]", "e.yaml:8:19: expected the name or path of a recipe, got a list"),
        ("micro/naive}", "micro/naive, stages: {sfd: {steps: 1}}}",
         'e.yaml:8:41: there is no "sfd", only sft (did you mean "sft"?)'),
        ("micro/naive}", "micro/naive, stages: [1]}",
         "e.yaml:8:40: stages: expected a mapping by stage name, got a list"),
        ("micro/naive}", "micro/naive, stages: {sft: {batch: 0}}}",
         "e.yaml:8:54: batch: must be at least 1, got the number 0"),
        ("base: {}", "base: {stages: {sft: {batch: 1}}}",
         'e.yaml:7:10: the arm "base" has no recipe whose stages to change'),
        ("recipe: micro/naive", "system: constitution",
         "e.yaml:8:19: system: constitution needs exactly one among the experiment's recipes, here: none"),
        ("recipe: micro/naive", "system: no.md", "e.yaml:8:19: no such file: no.md"),
        ("arms:", "fallback: nothing\narms:", 'e.yaml:6:11: unknown experiment "nothing"; there are:'),
        ("arms:", "claims: no.yaml\narms:", "e.yaml:6:9: no such file: no.yaml"),
        ("arms:", "needs: gpu\narms:", 'e.yaml:6:8: needs: "gpu" is not one of cuda'),
        ("arms:", "start: {steps: 3}\narms:", "e.yaml:6:8: expected the name or path of a recipe, got a mapping"),
        ("arms:", "start: nothing\narms:", 'e.yaml:6:8: unknown recipe "nothing"'),
        ("arms:", "start: guarded\narms:",
         'e.yaml:1:1: the arm "naive" goes on training the start\'s adapter: lora must be the same'),
        ("arms:", "evaluation: {axis: [refusal]}\narms:", 'e.yaml:6:14: unknown key "axis" (did you mean "axes"?)'),
        ("arms:", "evaluation: {axes: [refusals]}\narms:", 'e.yaml:6:21: axes: "refusals" is not one of capability,'),
        ("arms:", "evaluation: {prompting: [none, none]}\narms:", "e.yaml:6:25: prompting: names something twice"),
        ("arms:", "arms: {}\nx:", "e.yaml:6:7: arms: the arm base is missing: everything is compared with it"),
    ],
)  # fmt: skip
def test_an_experiment_that_says_something_wrong(old, new, line):
    assert old in EXPERIMENT
    found = experiment(EXPERIMENT.replace(old, new, 1))
    assert any(fault.startswith(line) for fault in found), found
    assert len(found) == (2 if "recpie" in new or new.endswith("x:") else 1)


def test_faults_in_several_arms_and_their_recipes_come_together():
    Path("bad.yaml").write_text(RECIPE.replace("steps", "stepz"))
    text = EXPERIMENT.replace("micro/naive", "bad.yaml") + "  control: {recipe: nope.yaml}\nseed: 1\n"
    assert experiment(text) == [
        'bad.yaml:6:5: unknown key "stepz" (did you mean "steps"?)',
        "e.yaml:9:21: no such file: nope.yaml",
        'e.yaml:10:1: unknown key "seed" (did you mean "seeds"?)',
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("stages.sft.stepz=3", '--set stages.sft.stepz: unknown key "stepz" (did you mean "steps"?)'),
        ("stages.sfd.steps=3", '--set stages.sfd.steps: there is no "sfd", only sft (did you mean "sft"?)'),
        ("stages.3.steps=3", '--set stages.3.steps: there is no "3", only sft'),
        ("stages.sft.steps=-3", "--set stages.sft.steps: must be at least 1, got the number -3"),
        ("stages.sft.steps=", "r.yaml:4:5: give exactly one of epochs, steps"),
        ("stages.sft.steps.more=1", '--set stages.sft.steps.more: there is nothing called "more" inside the number 5'),
        ("stages.sft.data.ordinary.count=1",
         '--set stages.sft.data.ordinary.count: there is nothing called "ordinary" inside "compliance"'),
        ("stages.sft.lora.rank=1", '--set stages.sft.lora.rank: unknown key "rank"'),
        ("stage.sft.steps=3", '--set stage.sft.steps: unknown key "stage" (did you mean "stages"?)'),
        ("stages.sft.steps", "--set stages.sft.steps: expected path=value, e.g. stages.sft.learning_rate=1e-4"),
        ("=3", "--set =3: expected path=value, e.g. stages.sft.learning_rate=1e-4"),
        ("name=[", "--set name: not valid YAML: expected the node content, but found '<stream end>'"),
        ("name=&a x", "--set name: the anchor &a is refused: write values out, or use extends"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be(text, line):
    assert recipe(RECIPE, sets=[text]) == [line]


def test_sets_in_an_experiment_that_cannot_be_are_listed_together():
    sets = [
        "start.stages.sft.steps=1",
        "arms.nave.system=x",
        "arms.base.stages.sft.steps=1",
        "arms.naive.stages.sdf.steps=1",
        "evaluatoin.items=1",
    ]
    assert experiment(EXPERIMENT, sets=sets) == [
        '--set arms.nave.system: there is no arm "nave" here, only base, naive (did you mean "naive"?)',
        "--set start.stages.sft.steps: the experiment has no start",
        '--set arms.base.stages.sft.steps: the arm "base" has no recipe whose stages to change',
        '--set arms.naive.stages.sdf.steps: there is no "sdf", only sft (did you mean "sft"?)',
        '--set evaluatoin.items: unknown key "evaluatoin" (did you mean "evaluation"?)',
    ]


def test_options_that_cannot_be():
    assert experiment(EXPERIMENT, arms="naive,contrl") == ['--arms: there is no arm "contrl" here, only base, naive']
    assert experiment(EXPERIMENT, seeds="0,x") == ['--seeds: expected a whole number, got "x"']
    assert experiment(EXPERIMENT, seeds="1,1") == ["--seeds: must differ from each other"]
    (line,) = experiment(EXPERIMENT, model="micr")
    assert line.startswith('--model: unknown model "micr" (did you mean "micro"?)')


@pytest.mark.parametrize("load", [recipes.load_recipe, recipes.load_experiment])
def test_an_unknown_name_lists_what_there_is(load):
    (line,) = faults(load, "reproduce-smal" if load is recipes.load_experiment else "naiv")
    assert "did you mean" in line
    assert "there are:" in line


def test_a_folder_or_a_missing_path_is_no_recipe():
    Path("x.yaml").mkdir()
    assert faults(recipes.load_recipe, "x.yaml") == ["no such file: x.yaml"]
    assert faults(recipes.load_recipe, "a\0b.yaml")[0].startswith("no such file")
