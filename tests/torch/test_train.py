"""The four kinds of stages on a tiny model: what they train, what they leave alone, and that they can be repeated."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import time

import pytest
import torch
from conftest import base_digest, shake
from train_helpers import CHATS, PAIRS, PROMPTS, ROWS, chat, stage

from repro import store
from repro.errors import BadInput, RunFailed
from repro.models.model import Model
from repro.train import rows, run_stage, runner

QUANTS = ("none", "nf4")
MASKED = rows.MASKED


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.adapter_parameters().items()}


def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


# --- every kind, under 4 bits and without


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("kind", ROWS)
def test_each_kind_trains_the_adapter_in_fp32_and_leaves_the_base_bit_identical(ready, tmp_path, kind, quant):
    model = ready(quant)
    digest, before, seen, dtypes = base_digest(model), weights(model), [], set()

    def progress(step, total, loss):
        seen.append((step, total))
        dtypes.update(p.dtype for p in model.model.parameters() if p.requires_grad)

    summary = run_stage(stage(kind), model, ROWS[kind], tmp_path, seed=3, on_progress=progress)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert dtypes == {torch.float32}
    assert base_digest(model) == digest
    assert distance(weights(model), before) > 1e-4
    assert list(model.model.peft_config) == ["default"]
    assert summary["steps"] == 3
    assert 0 < summary["trained_tokens"] < summary["tokens"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3]
    assert {"loss", "lr", "seconds"} <= log[0].keys()
    assert summary["loss_first"] == log[0]["loss"]
    assert summary["loss_last"] == log[-1]["loss"]
    left = {path.name for path in tmp_path.iterdir()} - {"doses", "rollouts.jsonl"}
    assert left == {"adapter_model.safetensors", "adapter_config.json", "log.jsonl"}
    after = weights(model)
    model.load_adapter(tmp_path)
    assert distance(weights(model), after) == 0
    model.drop_adapter()
    assert base_digest(model) == digest


@pytest.mark.parametrize("kind", ROWS)
def test_the_same_seed_gives_the_same_adapter_bit_for_bit_and_another_seed_another(ready, tmp_path, kind):
    def train(name: str, seed: int) -> bytes:
        torch.manual_seed(len(name))
        run_stage(stage(kind), ready("nf4", dropout=0.1), ROWS[kind], tmp_path / name, seed=seed)
        return (tmp_path / name / "adapter_model.safetensors").read_bytes()

    assert train("one", 3) == train("again", 3)
    assert train("other", 4) != train("one more", 3)


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("kind", ROWS)
def test_one_by_eight_equals_eight_by_one(ready, tmp_path, kind, quant):
    outcomes = []
    for micro in (1, 8):
        model = ready(quant)
        shake(model)  # behind B matrices of zeros, A's first gradients are rounding noise, which Adam blows up
        start = weights(model)
        summary = run_stage(stage(kind), model, ROWS[kind], tmp_path / str(micro), seed=3, micro_batch=micro)
        assert summary["micro_batch"] == micro
        outcomes.append(weights(model))
    one, eight, start = (torch.cat([value.flatten() for value in w.values()]) for w in (*outcomes, start))
    assert (eight - start).norm() > 1e-2 * start.norm()
    assert (one - eight).norm() < 1e-5 * start.norm()


class Killed(Exception):
    pass


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("kind", ROWS)
def test_a_killed_stage_goes_on_to_exactly_the_same_adapter(ready, tmp_path, kind, quant):
    job = stage(kind, steps=6, doses=[0.5, 1.0], schedule="cosine", **({"beta": 0.1} if kind == "grpo" else {}))

    def run(name: str, **options) -> tuple[dict, dict]:
        model = ready(quant, dropout=0.1)
        return run_stage(job, model, ROWS[kind], tmp_path / name, seed=3, **options), weights(model)

    def kill(step, total, loss):
        if step == 5:
            raise Killed

    whole, expected = run("whole", checkpoint_every_minutes=None)
    with pytest.raises(Killed):
        run("killed", checkpoint_every_minutes=0.0, on_progress=kill)
    assert (tmp_path / "killed" / "state").is_dir()
    steps: list[int] = []
    resumed, found = run("killed", on_progress=lambda step, total, loss: steps.append(step))
    assert steps == [5, 6]
    assert distance(found, expected) == 0
    assert not (tmp_path / "killed" / "state").exists()
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    for name in ["adapter_model.safetensors", "doses/3/adapter_model.safetensors"] + ["rollouts.jsonl"] * (
        kind == "grpo"
    ):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    log = [json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert log == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("kind", ROWS)
def test_a_stage_that_is_told_to_stop_saves_after_its_step_and_goes_on_from_there(ready, tmp_path, kind):
    told = []
    with pytest.raises(SystemExit, match="stopped at step 1 of 3"):
        run_stage(stage(kind), ready(), ROWS[kind], tmp_path, seed=3, stopping=lambda: True)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["checkpoint-1"]
    run_stage(stage(kind), ready(), ROWS[kind], tmp_path, seed=3, on_progress=lambda step, *_: told.append(step))
    assert told == [2, 3]


def stopped(ready, folder, steps: int = 2):
    """The folder of the state that a stage left after so many steps."""

    def kill(step, total, loss):
        if step == steps:
            raise Killed

    with pytest.raises(Killed):
        run_stage(stage("sft"), ready(), CHATS, folder, seed=3, checkpoint_every_minutes=0.0, on_progress=kill)
    return folder / "state" / f"checkpoint-{steps - 1}"


@pytest.mark.parametrize("kind", ROWS)
def test_a_trainers_state_is_loaded_as_weights_only(ready, tmp_path, monkeypatch, kind):
    with pytest.raises(SystemExit):
        run_stage(stage(kind), ready(), ROWS[kind], tmp_path, seed=3, stopping=lambda: True)
    load, calls = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: (calls.append(k.get("weights_only")), load(*a, **k))[1])
    run_stage(stage(kind), ready(), ROWS[kind], tmp_path, seed=3)
    assert calls
    assert all(calls)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_state_that_would_run_code_is_refused_even_where_its_hashes_fit(ready, tmp_path):
    state, sprung = stopped(ready, tmp_path / "stage"), str(tmp_path / "sprung")
    torch.save({"state": Trap(sprung)}, state / "optimizer.pt")
    done = json.loads((state / store.DONE).read_text())
    done["files"]["optimizer.pt"] = store.hash_file(state / "optimizer.pt")
    (state / store.DONE).write_text(json.dumps(done))
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        run_stage(stage("sft"), ready(), CHATS, tmp_path / "stage", seed=3)
    assert not os.path.exists(sprung)


def test_half_a_state_and_a_damaged_one_are_never_gone_on_from(ready, tmp_path):
    state = stopped(ready, tmp_path / "stage", steps=3)
    assert runner.resumed_step(tmp_path / "stage") == 2
    half = state.parent / runner.PART / "checkpoint-3"  # as the trainer writes it, file after file
    shutil.copytree(state, half)
    (half / "optimizer.pt").unlink()
    assert runner.resumed_step(tmp_path / "stage") == 2
    weights = state / "optimizer.pt"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert runner.resumed_step(tmp_path / "stage") == 0
    steps: list[int] = []
    run_stage(stage("sft"), ready(), CHATS, tmp_path / "stage", seed=3, on_progress=lambda step, *_: steps.append(step))
    assert steps == [1, 2, 3]
    assert not state.parent.exists()


def test_the_newest_state_is_kept_whatever_the_clock_says(ready, tmp_path, monkeypatch):
    past = itertools.count(2_000_000_000, -3600)  # an hour back at each look
    monkeypatch.setattr(time, "time", lambda: float(next(past)))
    state = stopped(ready, tmp_path / "stage", steps=3)
    assert [path.name for path in state.parent.iterdir()] == ["checkpoint-2"]


# --- dpo


@pytest.mark.parametrize("quant", QUANTS)
def test_dpos_reference_is_the_model_at_the_stages_start(ready, tmp_path, quant):
    model = ready(quant)
    run_stage(stage("sft", steps=6, learning_rate=1e-2), model, CHATS, tmp_path / "sft", seed=3)
    job = stage("dpo", steps=4, learning_rate=1e-2, beta=1.0)
    asked = [row["messages"] for row in PAIRS]
    sides = ("chosen", "rejected")
    before = [model.logprobs(asked, [row[side] for row in PAIRS]) for side in sides]
    summary = run_stage(job, model, PAIRS, tmp_path / "dpo", seed=3)
    after = [model.logprobs(asked, [row[side] for row in PAIRS]) for side in sides]
    # log 2 at the first step: policy and reference agree; against the bare base they would not
    assert summary["loss_first"] == pytest.approx(0.693147, abs=1e-5)
    assert summary["loss_last"] < summary["loss_first"]
    gain = [sum(new) - sum(old) for new, old in zip(after, before, strict=True)]
    assert gain[0] > gain[1]


def test_dpo_drops_pairs_that_say_the_same_and_needs_one_that_does_not(ready, tmp_path):
    same = {**PAIRS[0], "rejected": PAIRS[0]["chosen"] + " "}
    assert run_stage(stage("dpo"), ready(), [same, *PAIRS[1:]], tmp_path / "a", seed=0)["same_answer"] == 1
    with pytest.raises(BadInput, match="the same answer"):
        run_stage(stage("dpo"), ready(), [same], tmp_path / "b", seed=0)


# --- grpo


def test_grpo_raises_a_simple_reward_and_logs_every_answer(ready, tmp_path):
    model = ready("nf4")
    either = [chat(row["messages"][0]["content"], word) for row in CHATS for word in ("Yes.", "No.")]
    run_stage(stage("sft", steps=30, batch=16, learning_rate=2e-2, doses=[]), model, either, tmp_path / "sft", seed=0)
    prompts = [{"messages": row["messages"], "check": "says_yes", "args": {}} for row in PROMPTS]
    job = stage("grpo", steps=15, batch=32, group=8, learning_rate=1e-2, max_new_tokens=6)
    summary = run_stage(job, model, prompts, tmp_path, seed=0)
    lines = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert len(lines) == 15 * 32
    assert lines[0].keys() >= {"step", "prompt", "completion", "reward", "check"}
    mean = [sum(line["reward"] for line in lines if line["step"] == step) / 32 for step in range(1, 16)]
    assert sum(mean[-3:]) / 3 > sum(mean[:3]) / 3 + 0.1
    assert summary["reward_first"] == round(mean[0], 4)
    assert summary["reward_last"] == round(mean[-1], 4)
    first = [line["row"] for line in lines[:32]]
    assert [len(set(first[at : at + 8])) for at in range(0, 32, 8)] == [1, 1, 1, 1]


def test_grpo_refuses_unknown_checks_and_uneven_groups_and_says_when_no_answer_was_better(ready, tmp_path):
    with pytest.raises(BadInput, match='did you mean "mentions"'):
        run_stage(stage("grpo"), ready(), [{**PROMPTS[0], "check": "mention"}], tmp_path, seed=0)
    with pytest.raises(BadInput, match="multiple of group"):
        run_stage(stage("grpo", batch=10), ready(), PROMPTS, tmp_path, seed=0)
    never = [{**row, "check": "mentions", "args": {"words": ["zzyzx"]}} for row in PROMPTS]
    with pytest.raises(RunFailed, match="the same reward"):
        run_stage(stage("grpo", weight_decay=0.0), ready(), never, tmp_path, seed=0)


def test_one_named_check_takes_the_place_of_the_rows_own(ready, tmp_path):
    job = stage("grpo", steps=2, batch=16, reward="length-between")
    run_stage(job, ready(), [{**row, "check": "mentions"} for row in PROMPTS], tmp_path, seed=0)
    assert '"check": "length_between"' in (tmp_path / "rollouts.jsonl").read_text()


# --- a stage that would train on nothing


def test_data_that_trains_nothing_is_found_before_training(ready, tmp_path, load_tiny):
    with pytest.raises(BadInput, match="the data is empty"):
        run_stage(stage("sft"), ready(), [], tmp_path, seed=0)
    with pytest.raises(BadInput, match="no adapter"):
        run_stage(stage("sft"), load_tiny(), CHATS, tmp_path, seed=0)
    with pytest.raises(RunFailed, match="max_length cuts every answer off"):
        run_stage(stage("sft", max_length=3), ready(), CHATS, tmp_path, seed=0)
    silent = [{"messages": row["messages"][:1]} for row in CHATS]
    with pytest.raises(RunFailed, match="every token is masked"):
        run_stage(stage("sft"), ready(), silent, tmp_path, seed=0)
    with pytest.raises(RunFailed, match=r"end-of-turn token is never trained.*cut off"):
        run_stage(stage("sft", max_length=30), ready(), [chat("Why?", "Yes " * 60)], tmp_path, seed=0)
    model = ready()
    template = model.tokenizer.chat_template
    model.tokenizer.chat_template = template.replace(
        "{{ message['content'] + '<|end|>' }}{% endgeneration %}", "{{ message['content'] }}{% endgeneration %}<|end|>"
    )
    with pytest.raises(RunFailed, match="the chat template leaves it masked"):
        run_stage(stage("sft"), model, CHATS, tmp_path, seed=0)


def test_training_that_changes_nothing_or_breaks_fails_with_the_reason(ready, tmp_path):
    with pytest.raises(RunFailed, match="changed nothing"):
        run_stage(stage("sft", learning_rate=0.0), ready(), CHATS, tmp_path / "a", seed=0)
    broken = ready()
    next(iter(broken.adapter_parameters().values())).data.fill_(float("nan"))
    with pytest.raises(RunFailed, match=r"the loss became nan at step 1"):
        run_stage(stage("sft"), broken, CHATS, tmp_path / "b", seed=0)


def test_a_stage_leaves_no_trace_on_the_model_even_when_it_fails(ready, tmp_path):
    def fail(step, total, loss):
        raise Killed

    model = ready("nf4")
    for kind in ("dpo", "sft"):
        with pytest.raises(Killed):
            run_stage(stage(kind), model, ROWS[kind], tmp_path / kind, seed=0, on_progress=fail)
        assert list(model.model.peft_config) == ["default"]
        assert "forward" not in model.base.__dict__
        assert not model.model.training
        assert all(parameter.grad is None for parameter in model.model.parameters())


def test_libraries_stay_quiet(ready, tmp_path, capfd):
    for kind in ROWS:
        run_stage(stage(kind, batch=16), ready("nf4"), ROWS[kind], tmp_path / kind, seed=0)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


def test_the_micro_batch_divides_the_batch_and_shrinks_with_length(load_tiny):
    model = load_tiny()
    assert runner.micro_batch(model, stage("sft", batch=32), 64) == 32
    sizes = [runner.micro_batch(model, stage("sft", batch=48), length) for length in (64, 4096, 65536, 10**9)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(48 % size == 0 for size in sizes)
    assert sizes[-1] == 1
