"""What a worker does with the model: the right adapter for each question and stage, and every seed its own luck."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import repro
from repro import evals, store, worker
from repro.plan import Step
from repro.seeds import derive


class FakeModel:
    """Says which adapter it wears, and remembers how it came to each."""

    precision = "fp32: no reason"

    def peak_gib(self) -> None:
        return None


    def __init__(self) -> None:
        self.adapter = "bare"
        self.fresh_seeds: list[int] = []
        self.generated: list[str] = []

    def drop_adapter(self) -> None:
        self.adapter = "bare"

    def new_adapter(self, lora: Any, seed: int) -> None:
        self.adapter = "fresh"
        self.fresh_seeds.append(seed)

    def load_adapter(self, folder: Path, trainable: bool = False) -> None:
        self.adapter = f"{folder.name}{', trainable' if trainable else ''}"

    def generate(
        self, prompts: list[Any], *, max_new_tokens: int, temperature: float = 0.0, seeds: Any = None, progress: Any,
        on_batch: Any,
    ) -> list[Any]:
        luck = seeds or [None] * len(prompts)
        answers = [
            SimpleNamespace(text=f"{self.adapter} {prompt[-1]['content']} {seed}", finished=True, tokens=3)
            for prompt, seed in zip(prompts, luck, strict=True)
        ]
        for place, answer in enumerate(answers):  # batches of one
            on_batch([place], [answer])
            self.generated.append(answer.text)
        progress(len(prompts), len(prompts))
        return answers

    def logprobs(self, prompts: list[Any], continuations: list[str]) -> list[float]:
        return [-float(len(text)) for text in continuations]


def item(name: str, **more: Any) -> evals.Item:
    return evals.Item(
        name, "capability", "facts_accuracy", "facts", name, name, [{"role": "user", "content": name}], {}, **more
    )


def job(step: Step, root: Path, **folders: Path) -> worker.Job:
    return worker.Job(step, None, "none", "cpu", root, folders)


def quiet(*_: Any) -> None:
    pass


def answers(root: Path, step: Step) -> list[dict[str, Any]]:
    return store.read_jsonl(root / step.folder / "answers.jsonl")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A finished stage that kept two doses."""
    folder = tmp_path / "arms" / "naive" / "last"
    doses = [{"step": step, "folder": f"doses/{step}"} for step in (5, 10)]
    with store.building(folder, "stage", {"doses": doses}) as inside:
        (inside / "adapter").write_text("weights")
    return folder


def test_each_dose_is_asked_of_its_own_adapter_and_the_suite_of_the_last(tmp_path: Path, trained: Path) -> None:
    step = Step("k" * 64, "answers", "naive", 0, 1, "stage", items=(item("a"), item("b")), dose_items=(item("a"),),
                dosed="stage", max_new_tokens=8)  # fmt: skip
    worker._answer(job(step, tmp_path, stage=trained), FakeModel(), quiet)
    assert [(row["item"], row["dose"], row["text"].split()[0]) for row in answers(tmp_path, step)] == [
        ("a", None, "last"), ("b", None, "last"), ("a", 5, "5"), ("a", 10, "10"),
    ]  # fmt: skip


def test_an_arm_without_training_is_asked_bare_whatever_was_on_before(tmp_path: Path) -> None:
    model = FakeModel()
    model.adapter = "another-arms"
    step = Step("k" * 64, "answers", "base", 0, 0, None, items=(item("a"),), max_new_tokens=8)
    worker._answer(job(step, tmp_path), model, quiet)
    assert answers(tmp_path, step)[0]["text"].startswith("bare ")


def test_between_two_jobs_the_adapter_is_taken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(load=None)  # the real one would bring torch along; the base is loaded already
    monkeypatch.setitem(sys.modules, "repro.models", stand_in)
    monkeypatch.setattr(repro, "models", stand_in, raising=False)
    model, spec = FakeModel(), SimpleNamespace(model_dump_json=lambda: "spec")
    model.adapter = "another-arms"
    step = Step("k" * 64, "answers", "base", 0, 0, None)
    found = worker.load_base(worker.Job(step, spec, "none", "cpu", tmp_path, {}), [(("spec", "none"), model)], 1)
    assert found is model
    assert model.adapter == "bare"


def test_answers_come_in_the_order_of_the_questions_each_with_its_own_seed(tmp_path: Path) -> None:
    asked = evals.asks(
        [item("hot", samples=2, temperature=1.0), item("odds", continuations=("long", "be")), item("cold")]
    )
    moves: list[tuple[int, int]] = []
    found = worker.respond(FakeModel(), asked, 8, lambda *at: moves.append(at))
    assert [row.get("text") for row in found] == [
        f"bare hot {asked[0].seed}", f"bare hot {asked[1].seed}", None, "bare cold None",
    ]  # fmt: skip
    assert asked[0].seed != asked[1].seed
    assert found[2] == {"logprobs": [-4.0, -2.0]}
    assert moves[-1] == (4, 4)


# training


class Trainings:
    """Stands in for repro.train: keeps what each stage was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        module = SimpleNamespace(run_stage=self.run_stage)
        monkeypatch.setitem(sys.modules, "repro.train", module)
        monkeypatch.setattr(repro, "train", module, raising=False)

    def run_stage(
        self, stage: Any, model: Any, rows: Any, out: Path, *, seed: int, on_progress: Any, **_: Any
    ) -> dict[str, int]:
        self.calls.append({"adapter": model.adapter, "rows": rows, "seed": seed})
        on_progress(1, 1, 0.5)
        return {"steps": 1}


def stage_step(kind: str = "sft", seed: int = 0, index: int = 0, upstream: str | None = None, **more: Any) -> Step:
    settings = SimpleNamespace(lora=None, max_length=64)
    rows = ({"id": "1", "messages": [{"role": "user", "content": "hello"}], "chosen": "Yes."},)
    return Step("k" * 64, kind, "naive", seed, index, upstream, stage=settings, rows=rows, **more)


def test_the_seed_decides_a_stages_first_weights_and_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings, model = Trainings(monkeypatch), FakeModel()
    for seed in (0, 1):
        worker._train(job(stage_step(seed=seed), tmp_path), model, quiet)
    assert model.fresh_seeds == [derive(0, "adapter"), derive(1, "adapter")]
    assert [call["seed"] for call in trainings.calls] == [derive(seed, "stage", 0, "sft") for seed in (0, 1)]
    assert [call["adapter"] for call in trainings.calls] == ["fresh", "fresh"]


def test_a_later_stage_goes_on_with_the_earlier_ones_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings, model = Trainings(monkeypatch), FakeModel()
    worker._train(job(stage_step(index=1, upstream="first"), tmp_path, first=tmp_path / "one"), model, quiet)
    assert trainings.calls[0]["adapter"] == "one, trainable"
    assert model.fresh_seeds == []


def test_dpo_rejects_what_the_start_model_says_and_trains_the_stage_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    step = stage_step("dpo", index=2, upstream="second", start="first")
    worker._train(job(step, tmp_path, first=tmp_path / "one", second=tmp_path / "two"), FakeModel(), quiet)
    (call,) = trainings.calls
    assert [row["rejected"] for row in call["rows"]] == ["one hello None"]
    assert call["adapter"] == "two, trainable"


def test_a_parent_that_has_hung_up_does_not_make_a_step_fail() -> None:
    here, there = multiprocessing.Pipe()
    worker._tell(there, "moved", 1, 2)
    assert here.recv() == ("moved", 1, 2)
    here.close()
    worker._tell(there, "moved", 2, 2)
