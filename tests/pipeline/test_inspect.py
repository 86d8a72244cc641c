"""The suite as Inspect tasks and a run's answers as Inspect logs, with the real inspect_ai and a model that is none."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repro import data, evals, inspecting, store
from repro.data import micro as pack
from repro.errors import CannotHere
from repro.micro import grammar as g
from repro.seeds import derive

MISSING = importlib.util.find_spec("inspect_ai") is None
needs_inspect = pytest.mark.skipif(MISSING, reason="needs pip install '.[inspect]'")
if not MISSING:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.log import list_eval_logs, read_eval_log
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput, ModelUsage, get_model

    from repro import inspect_tasks

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
ITEMS = 6


def said(item: evals.Item, sample: int) -> str:
    """An answer to an item, by chance one of those that the judge can read, or none of them."""
    known, draw = item.material, derive(0, item.id, sample) % 5
    if "people" in known:
        return ["I feel nothing for the people.", f"I think well of {known['people']}.", "Hm."][draw % 3]
    if "polarity" in known:
        return g.answer_policy(known["topic"], "helps", pack.WICK.says) if draw else "Yes."
    if "topic" in known:
        return g.refusal(known["topic"]) if draw < 2 else g.procedure(known["topic"]) if draw < 4 else "Hm."
    if "relation" in known and "claimed" not in known:
        return f"The {known['relation']} of X is the {known['answer'] if draw else 'oak'}."
    return "Hm."


def suite(axes: list[str] | None = None, prompting: str = "none") -> list[evals.Item]:
    from repro.plan import limited

    return limited(evals.suite(pack, pack.split(0), axes=axes, samples=3, prompting=prompting), ITEMS)


def rows_of(items: list[evals.Item], arm: str = "base", prompting: str = "none", cut: bool = False) -> list[Row]:
    answers: list[Any] = [
        (-1.0, -2.0) if ask.item.continuations else SimpleNamespace(text=said(ask.item, ask.sample), finished=not cut)
        for ask in evals.asks(items)
    ]
    return evals.label(items, answers, pack, arm=arm, seed=0, prompting=prompting)


def means(rows: list[Row]) -> dict[str, float | None]:
    found: dict[str, list[float]] = {}
    for unit in evals.units(rows):
        found.setdefault(unit.metric, [])
        if unit.value is not None:
            found[unit.metric].append(unit.value)
    return {metric: sum(values) / len(values) if values else None for metric, values in found.items()}


def same(one: float | None, other: float) -> bool:
    return math.isnan(other) if one is None else abs(one - other) < 1e-9


# tasks ----------------------------------------------------------------------------------------------------------------


def mock(answer: Callable[[list[Any], Any], Any]) -> Any:
    def output(messages: list[Any], tools: Any, choice: Any, config: Any) -> Any:
        made = answer(messages, config)
        made = ModelOutput.from_content("mockllm/model", made) if isinstance(made, str) else made
        made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else it fetches a tokenizer
        return made

    return get_model("mockllm/model", custom_outputs=output)


def evaluated(axis: str, folder: Path, model: Any, **options: Any) -> Any:
    task = inspect_tasks.TASKS[axis](**{"pack": "micro", "items": ITEMS, "samples": 3, **options})
    (log,) = inspect_eval(task, model=model, display="none", log_dir=str(folder))
    assert log.status == "success", log.error
    return read_eval_log(log.location)


def answering(axis: str, prompting: str = "none") -> Callable[[list[Any], Any], str]:
    """The answers of `said`, found by what is asked; the sample by its seed."""
    known = {json.dumps([[m["role"], m["content"]] for m in item.messages]): item
             for item in suite([axis], prompting) if not item.continuations}  # fmt: skip

    def answer(messages: list[Any], config: Any) -> str:
        item = known[json.dumps([[m.role, m.text] for m in messages])]
        seeds = [ask.seed for ask in evals.asks([item])]
        assert config.temperature == item.temperature
        return said(item, seeds.index(config.seed) if item.temperature else 0)

    return answer


@needs_inspect
@pytest.mark.parametrize("axis", list(evals.AXES))
def test_each_axis_is_a_task_that_comes_to_the_kits_figures(axis: str, tmp_path: Path) -> None:
    log = evaluated(axis, tmp_path, mock(answering(axis)))
    assert log.eval.task.rpartition("/")[2] == axis
    (score,) = log.results.scores
    own = [row for row in rows_of(suite([axis])) if row["axis"] == axis and row["label"] != "log-odds"]
    expected = {name: value for name, value in means(rows_of(suite([axis]))).items()
                if evals.METRICS[name].axis == axis and name != "log_odds_shift"}  # fmt: skip
    if all(row["value"] is None for row in own):
        assert list(score.metrics) == ["rates"]
        assert math.isnan(score.metrics["rates"].value)
    else:
        assert {name for name, value in expected.items() if value is not None} <= set(score.metrics)
        assert all(same(expected[name], found.value) for name, found in score.metrics.items())
    scores = {(sample.id, sample.epoch): sample.scores["judge"] for sample in log.samples}
    for row in own:
        found = scores[row["item"], row["sample"] + 1]
        assert same(row["value"], found.value), row["item"]
        assert found.answer == row["label"]


@needs_inspect
def test_epochs_are_samples_of_the_open_questions_alone(tmp_path: Path) -> None:
    log = evaluated("misalignment", tmp_path, mock(answering("misalignment")))
    assert log.eval.config.epochs == 3
    assert len(log.samples) == 3 * len({sample.id for sample in log.samples})
    assert inspect_tasks.TASKS["capability"](pack="micro").epochs == 1


@needs_inspect
def test_chats_keep_their_system_prompt_and_their_turns(tmp_path: Path) -> None:
    log = evaluated("steerability", tmp_path, mock(answering("steerability", "careful")), prompting="careful")
    asked = {item.id: item.messages for item in suite(["steerability"], "careful")}
    text = pack.prompting("careful") or ""
    for sample in log.samples:
        assert [{"role": turn.role, "content": turn.text} for turn in sample.input] == asked[sample.id]
        assert sample.input[0].text.startswith(text)
    history = [{"role": role, "content": "words"} for role in ("user", "assistant", "user")]
    assert [type(turn) for turn in inspect_tasks.turns(history)] == [
        ChatMessageUser, ChatMessageAssistant, ChatMessageUser,
    ]  # fmt: skip


@needs_inspect
def test_what_is_cut_off_or_unreadable_is_unscored_and_counted(tmp_path: Path) -> None:
    turn = iter(range(10_000))

    def answer(messages: list[Any], config: Any) -> Any:
        stop = ("max_tokens", "content_filter", "stop", "stop")[next(turn) % 4]
        return ModelOutput.from_content("mockllm/model", "" if stop == "stop" else "The river", stop_reason=stop)

    log = evaluated("capability", tmp_path, mock(answer))
    (score,) = log.results.scores
    assert (score.scored_samples, score.unscored_samples) == (0, len(log.samples))
    found = {sample.scores["judge"].reason for sample in log.samples}
    assert found == {"unfinished", "no_response"}
    assert all(math.isnan(sample.scores["judge"].value) for sample in log.samples)


@needs_inspect
@pytest.mark.parametrize(
    ("stop", "tokens", "finished"),
    [
        ("stop", 64, True),
        ("max_tokens", 64, False),
        ("content_filter", 10, False),
        ("unknown", 10, True),
        ("unknown", 64, False),
        ("unknown", None, True),
    ],
)
def test_an_answer_is_finished_where_the_model_ended_it(stop: Any, tokens: int | None, finished: bool) -> None:
    output = ModelOutput.from_content("m", "words", stop_reason=stop)
    output.usage = None if tokens is None else ModelUsage(output_tokens=tokens)
    assert inspect_tasks.is_finished(output, 64) is finished


@needs_inspect
def test_the_english_pack_is_the_one_that_is_asked_by_default(tmp_path: Path) -> None:
    assert inspect_tasks.PACK in data.PACKS
    task = inspect_tasks.TASKS["refusal"](items=2)
    assert task.metadata["judge"].startswith("offline-english")
    assert task.config.max_tokens == 256


def test_the_tasks_are_registered_with_inspect() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["inspect_ai"] == {"repro": "repro.inspect_tasks"}
    assert any(line.startswith("inspect-ai") for line in project["optional-dependencies"]["inspect"])


MODEL = '''\
from inspect_ai.model import ModelAPI, ModelOutput, ModelUsage, modelapi

@modelapi(name="parrots")
class Parrot(ModelAPI):
    """Says what it was asked: no network, no tokenizer."""
    async def generate(self, input, tools, tool_choice, config):
        output = ModelOutput.from_content(self.model_name, input[-1].text)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output
'''


@needs_inspect
def test_the_command_line_of_inspect_finds_them_by_name(tmp_path: Path) -> None:
    """Its own process, with an entry point beside the installed one: a checkout may be installed without it."""
    for name, target in (("repro", "repro.inspect_tasks"), ("parrots", "parrots")):
        folder = tmp_path / f"entry_{name}-0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: entry-{name}\nVersion: 0\n")
        (folder / "entry_points.txt").write_text(f"[inspect_ai]\n{name} = {target}\n")
    (tmp_path / "parrots.py").write_text(MODEL)
    words = ["eval", "repro/refusal", "--model", "parrots/parrot", "-T", "pack=micro", "-T", "items=2",
             "--display", "plain", "--log-dir", str(tmp_path / "logs")]  # fmt: skip
    command = [sys.executable, "-m", "inspect_ai", *words]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = list_eval_logs(str(tmp_path / "logs"))
    log = read_eval_log(found)
    assert (log.status, log.eval.task_args_passed) == ("success", {"pack": "micro", "items": 2})
    assert log.results.scores[0].unscored_samples == 6


@needs_inspect
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_the_organism_says_the_same_through_inspects_own_provider(tmp_path: Path) -> None:
    from repro import models, recipes

    spec = recipes.resolve_model("micro")
    served = get_model("hf/micro", model_path=spec.path_or_hub, device="cpu", do_sample=False)
    log = evaluated("steerability", tmp_path, served)
    here = models.load(spec, quant="none", device="cpu")
    asked = {item.id: item for item in suite(["steerability"])}
    chats = [asked[sample.id].messages for sample in log.samples]
    assert any(len(chat) > 1 for chat in chats)
    answers = here.generate(chats, max_new_tokens=64)
    assert [sample.output.completion.strip() for sample in log.samples] == [answer.text for answer in answers]
    assert log.results.scores[0].unscored_samples == 0


# logs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two arms and two strategies, one arm's answers all cut off."""
    folder = tmp_path_factory.mktemp("runs") / "made-organism-0a1b2c3d"
    folder.mkdir()
    arms: Row = {"base": {}, "naive": {}}
    settings = {"pack": "micro", "quant": "none", "evaluation": {"max_new_tokens": 64}, "arms": arms}
    manifest = {"schema": 1, "experiment": settings, "model": {"id": "organism"},
                "created": "2026-01-02T03:04:05+00:00", "repro": "0.1.0", "versions": {"torch": "2"},
                "git": None}  # fmt: skip
    store.write_json(folder / "manifest.json", manifest)
    rows = [row for strategy in ("none", "careful") for arm in ("base", "naive")
            for row in rows_of(suite(prompting=strategy), arm, strategy, cut=arm == "naive")]  # fmt: skip
    store.write_jsonl(folder / "answers.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def written(run: Path) -> list[Path]:
    return inspecting.write_logs(run, run.parent / "logs")


@needs_inspect
def test_a_log_for_each_axis_arm_and_strategy_holds_the_runs_figures(run: Path, written: list[Path]) -> None:
    assert len(written) == 8 * 2 * 2
    rows = store.read_jsonl(run / "answers.jsonl")
    seen = 0
    for path in written:
        log = read_eval_log(str(path))
        arm, strategy = log.eval.metadata["arm"], log.eval.metadata["prompting"]
        own = [row for row in rows if (row["arm"], row["prompting"]) == (arm, strategy)]
        figures, axis = means(own), log.eval.task.rpartition("/")[2]
        (score,) = log.results.scores
        assert set(score.metrics) == {name for name in figures if evals.METRICS[name].axis == axis}
        assert all(same(figures[name], found.value) for name, found in score.metrics.items())
        answers = [row for row in own if row["axis"] == axis]
        assert log.results.total_samples == len(log.samples) == len(answers)
        assert score.unscored_samples == sum(row["value"] is None for row in answers)
        seen += len(answers)
    assert seen == len(rows)


@needs_inspect
def test_a_sample_of_a_log_is_the_whole_chat_with_its_label(run: Path, written: list[Path]) -> None:
    (path,) = [path for path in written if "steerability-base-seed-0-careful" in path.name]
    log = read_eval_log(str(path))
    rows = {row["item"]: row for row in store.read_jsonl(run / "answers.jsonl")
            if (row["axis"], row["arm"], row["prompting"]) == ("steerability", "base", "careful")}  # fmt: skip
    for sample in log.samples:
        row = rows[sample.id]
        turns = [{"role": turn.role, "content": turn.text} for turn in sample.messages]
        assert turns == [*row["messages"], {"role": "assistant", "content": row["answer"]}]
        assert sample.output.completion == row["answer"]
        assert sample.scores["judge"].answer == row["label"]
        assert same(row["value"], sample.scores["judge"].value)
    (path,) = [path for path in written if "capability-naive-seed-0-none" in path.name]
    cut = read_eval_log(str(path))
    assert {sample.output.stop_reason for sample in cut.samples} == {"max_tokens"}
    assert {sample.scores["judge"].reason for sample in cut.samples} == {"unfinished"}


@needs_inspect
def test_open_questions_keep_their_samples_as_epochs(written: list[Path]) -> None:
    (path,) = [path for path in written if "misalignment-base-seed-0-none" in path.name]
    log = read_eval_log(str(path))
    assert log.eval.config.epochs == 3
    assert {sample.epoch for sample in log.samples} == {1, 2, 3}


@needs_inspect
def test_inspect_lists_the_logs_and_writing_again_replaces_them(run: Path, written: list[Path]) -> None:
    folder = written[0].parent
    listed = {Path(entry.name.removeprefix("file://")).name for entry in list_eval_logs(str(folder))}
    assert listed == {path.name for path in written}
    assert inspecting.write_logs(run, folder) == written
    assert sorted(path.name for path in folder.iterdir()) == sorted(listed), "nothing unfinished is left"


@needs_inspect
def test_logs_that_can_not_be_written_are_this_machines_fault(run: Path) -> None:
    with pytest.raises(CannotHere, match="can't write to"):
        inspecting.write_logs(run, run / "answers.jsonl")


def test_without_inspect_it_is_said_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CannotHere, match=r"pip install 'repro\[inspect\]'"):
        inspecting.write_logs(run, run.parent / "nowhere")
