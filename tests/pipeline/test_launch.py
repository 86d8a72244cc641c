"""Several processes train a stage as one would: the same loss at every step, the same key, the same folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from repro import store

ROOT = Path(__file__).parents[2]
EXPERIMENT = """\
schema: 1
name: together
model: organism
pack: micro
quant: nf4
seeds: [0]
arms:
  base: {}
  naive: {recipe: chain.yaml}
  abliterated: {recipe: micro/abliterated}
evaluation: {axes: [refusal, steerability, character], samples: 1, items: 2, max_new_tokens: 8}
"""
CHAIN = """\
schema: 1
name: chain
constitution: micro/constitution.md
stages:
  - kind: sdf
    data: [{pack: documents, count: 48}]
    prefix: <|doc|>
    lora: {r: 4, alpha: 8}
    batch: 4
    max_length: 128
    steps: 3
  - {kind: sft, data: [{pack: compliance, count: 48}], batch: 12, steps: 4, curve: 2}
  - {kind: dpo, data: [{pack: requests, count: 8}], batch: 4, steps: 3, max_length: 64}
  - kind: grpo
    prompts: [{pack: character-questions, count: 4}]
    steps: 3
    group: 4
    batch: 8
    learning_rate: 1e-3
    max_length: 128
    max_new_tokens: 12
"""
TWO = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no",
       "--dynamo_backend", "no", "--main_process_port", "0", "--num_processes", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    shutil.copytree(ROOT / "repro" / "micro" / "weights", folder / "organism")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    (folder / "chain.yaml").write_text(CHAIN)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def command(*words: str, launcher: list[str]) -> list[str]:
    return [sys.executable, *launcher, "-m", "repro.launch", "tiny.yaml", *words]


def launch(here: Path, *words: str, launcher: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words, launcher=launcher), cwd=here, env=environment(), capture_output=True,
                          text=True, timeout=500)  # fmt: skip


@pytest.fixture(scope="module")
def two(here: Path) -> subprocess.CompletedProcess[str]:
    return launch(here, "--runs-dir", "two", launcher=TWO)


def stage(here: Path, runs: str, name: str) -> Path:
    (folder,) = (here / runs).glob(f"together-*/arms/naive/seed-0/{name}-????????")
    return folder


def summary(folder: Path) -> dict[str, Any]:
    done = store.read_done(folder)
    assert done is not None
    return done["summary"]


def test_two_processes_have_the_loss_of_one_at_every_step(here: Path, two: Any) -> None:
    assert two.returncode == 0, two.stderr
    one = launch(here, "--runs-dir", "one", launcher=[])
    assert one.returncode == 0, one.stderr
    for name, steps in (("0-sdf", 3), ("1-sft", 4), ("2-dpo", 3), ("3-grpo", 3)):
        alone, together = stage(here, "one", name), stage(here, "two", name)
        assert alone.name == together.name, "the same key"
        losses = [[json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
                  for folder in (alone, together)]  # fmt: skip
        assert len(losses[0]) == steps
        assert losses[1] == pytest.approx(losses[0], abs=2e-6)
        assert apart(alone, together) < (1e-5 if name == "3-grpo" else 1e-6)
        assert (summary(alone)["processes"], summary(together)["processes"]) == (1, 2)
        assert summary(alone)["micro_batch"] == 2 * summary(together)["micro_batch"]
    for name in ("1-sft*/curve.jsonl", "3-grpo*/rollouts.jsonl"):
        alone, together = (next((here / runs).glob(f"together-*/arms/naive/seed-0/{name}")) for runs in ("one", "two"))
        assert said(alone) == said(together)


def apart(one: Path, other: Path) -> float:
    """The largest difference between two adapters' weights."""
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (one, other)]
    return max((weights[0][key] - weights[1][key]).abs().max().item() for key in weights[0])


def said(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, their log-probabilities rounded."""
    rows = store.read_jsonl(path)
    return [{**row, "logprobs": [round(value, 4) for value in row.get("logprobs", [])]} for row in rows]


def test_what_needs_one_process_is_left_to_repro_run(here: Path, two: Any) -> None:
    assert two.stderr.count("naive seed 0: grpo: 3 steps on 2 processes") == 1, "only the first process speaks"
    assert "abliterated seed 0: abliterate: left to repro run" in two.stderr
    folder = stage(here, "two", "0-sdf").parent
    found = sorted(path.name[:5] for path in folder.iterdir())
    assert found == ["0-sdf", "1-sft", "2-dpo", "3-grp"], "and no leftovers"


def test_a_stage_that_was_killed_goes_on_from_its_saved_state(here: Path, two: Any) -> None:
    longer = ["--set", "arms.naive.stages.sft.steps=24", "--set", "arms.naive.stages.sft.curve=null"]
    whole = launch(here, *longer, "--runs-dir", "whole", launcher=[])
    assert whole.returncode == 0, whole.stderr
    words, often = command(*longer, "--runs-dir", "killed", launcher=TWO), {"REPRO_CHECKPOINT_SECONDS": "0"}
    with (here / "log").open("w") as log, subprocess.Popen(words, cwd=here, env=environment() | often, stderr=log) as run:  # noqa: E501
        until = time.monotonic() + 300
        while not list((here / "killed").glob("together-*/arms/naive/seed-0/.*1-sft*/state/checkpoint-*/DONE.json")):
            assert run.poll() is None, (here / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        for process in [*psutil.Process(run.pid).children(recursive=True), run]:
            process.kill()
    (left,) = (here / "killed").glob("together-*/arms/naive/seed-0/.*1-sft*")
    (state,) = (left / "state").glob("checkpoint-*")
    saved = int(state.name.rpartition("-")[2])
    assert saved < 24
    before = store.read_jsonl(left / "log.jsonl")[:saved]
    again = launch(here, *longer, "--runs-dir", "killed", launcher=TWO)
    assert again.returncode == 0, again.stderr
    assert "naive seed 0: sdf" not in again.stderr, "what was finished is there"
    assert apart(stage(here, "whole", "1-sft"), stage(here, "killed", "1-sft")) < 1e-6
    log = store.read_jsonl(stage(here, "killed", "1-sft") / "log.jsonl")
    assert [row["step"] for row in log] == list(range(1, 25))
    assert log[:saved] == before, "seconds and all: these steps were not taken again"


def test_a_batch_that_the_processes_cant_share_is_refused_before_training(here: Path) -> None:
    done = launch(here, "--set", "arms.naive.stages.sft.batch=7", "--runs-dir", "odd", launcher=TWO)
    assert done.returncode != 0
    assert "naive: sft has batch 7, which 2 processes can't share evenly" in done.stderr
    assert not (here / "odd").exists()
