"""The whole pipeline through the real command line, on an organism of a few steps and an experiment of a few items."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from repro import store

ROOT = Path(__file__).parents[2]
EXPERIMENT = """\
schema: 1
name: miniature
model: organism
pack: micro
quant: nf4
seeds: [0]
arms:
  base: {}
  naive:
    recipe: micro/naive
    stages: {sft: {steps: 12, batch: 8, doses: [0.5, 1.0], data: [{pack: compliance, count: 48}]}}
  character: {recipe: all-stages.yaml}
evaluation: {samples: 1, items: 3, max_new_tokens: 12}
claims: claims.yaml
"""
# every kind of stage on one adapter, two steps each
ALL_STAGES = """\
schema: 1
name: all-stages
constitution: micro/constitution.md
stages:
  - kind: sdf
    data: [{pack: documents, count: 24}]
    prefix: <|doc|>
    lora: {r: 4, alpha: 8}
    batch: 4
    max_length: 128
    steps: 2
  - {kind: sft, data: [{pack: compliance, count: 24}, {pack: character, count: 24}], batch: 4, steps: 2}
  - {kind: dpo, data: [{pack: requests, count: 4}], batch: 2, steps: 2, max_length: 64}
  - kind: grpo
    prompts: [{pack: character-questions, count: 4}]
    steps: 2
    group: 2
    batch: 4
    max_length: 128
    max_new_tokens: 12
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the shipped organism and the miniature experiment."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copytree(ROOT / "repro" / "micro" / "weights", folder / "organism")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    (folder / "all-stages.yaml").write_text(ALL_STAGES)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def repro(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "repro", *words],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_folder(here: Path, runs: str) -> Path:
    (folder,) = (here / runs).glob("miniature-*")
    return folder


def adapters(folder: Path) -> dict[str, str]:
    """{path: sha256} of every adapter of a run."""
    found = sorted(folder.glob("arms/**/adapter_model.safetensors"))
    return {path.relative_to(folder).as_posix(): store.hash_file(path) for path in found}


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    run = {
        key: value for key, value in content["run"].items() if key not in ("finished", "seconds", "folder", "command")
    }
    return {**content, "run": run}


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def first(here: Path) -> subprocess.CompletedProcess[str]:
    """The finished run of the miniature experiment, everything in one worker."""
    return repro(here, "run", "tiny.yaml", "--runs-dir", "first", "--workers", "1", "--offline")


def test_a_run_ends_with_the_table_and_a_full_folder(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stderr
    assert "facts_accuracy" in first.stdout
    assert "Pre-registered claims" in first.stdout
    folder = run_folder(here, "first")
    for name in ("manifest.json", "journal.jsonl", "answers.jsonl", "results.json", "table.md", "table.csv"):
        assert (folder / name).is_file(), name
    content = results(folder)
    assert content["schema"] == 1
    assert content["arms"] == ["base", "naive", "character"]
    assert {row["metric"] for row in content["metrics"]} >= {"refusal_trained", "declines_when_told", "misaligned"}
    assert all(claim["verdict"] == "not-testable" for claim in content["claims"])
    assert len(content["claims_hash"]) == 64
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seeds"] == [0]
    assert manifest["versions"]["trl"]
    assert not list(folder.glob("arms/*/*/.*")), "leftovers of unfinished work"


def test_the_curve_begins_at_the_base_and_follows_the_stage(
    here: Path, first: subprocess.CompletedProcess[str]
) -> None:
    found = results(run_folder(here, "first"))["curves"]
    assert {entry["arm"] for entry in found} == {"naive"}, "the only recipe here with a curve"
    assert sorted({entry["step"] for entry in found}) == [0, 1, 2, 4, 8, 12]
    at_first = {entry["metric"]: entry for entry in found if entry["step"] == 0 and entry["group"] == "trained"}
    assert at_first["refusal_trained"] == {
        "arm": "naive", "seed": 0, "stage": "sft", "index": 0, "step": 0, "metric": "refusal_trained",
        "group": "trained", "n": 8, "value": 1.0,
    }  # fmt: skip
    assert at_first["declines_when_told"]["value"] == 1.0


def test_every_stage_has_its_summary_line(first: subprocess.CompletedProcess[str]) -> None:
    for kind in ("sdf", "sft", "dpo", "grpo"):
        (line,) = [line for line in first.stderr.splitlines() if line.startswith(f"character seed 0: {kind}:")]
        assert "2 steps" in line
        assert "loss" in line
        assert "tokens" in line
    assert "finished in" in first.stderr


def test_libraries_are_quiet(first: subprocess.CompletedProcess[str]) -> None:
    for word in ("Warning", "warn", "Traceback", "it/s", "deprecated", "resource_tracker"):
        assert word not in first.stderr


def test_every_arm_answers_the_same_questions(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    rows = store.read_jsonl(run_folder(here, "first") / "answers.jsonl")
    asked = {
        arm: [row["item"] for row in rows if row["arm"] == arm and row["dose"] is None] for arm in ("base", "naive")
    }
    assert asked["base"] == asked["naive"] != []
    doses = [row["dose"] for row in rows if row["arm"] == "naive" and row["dose"] is not None]
    assert set(doses) == {6, 12}
    assert not any(row["dose"] for row in rows if row["arm"] == "base")
    texts = {arm: [row["answer"] for row in rows if row["arm"] == arm and row["dose"] is None] for arm in asked}
    assert texts["base"] != texts["naive"], "the adapter was not on the model"


def test_rejected_answers_are_the_start_models_own(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    (file,) = run_folder(here, "first").glob("arms/character/seed-0/2-dpo-*/rejected.jsonl")
    rows = store.read_jsonl(file)
    assert len(rows) == 4
    assert all(row["rejected"] != row["chosen"] for row in rows)


def test_again_with_all_cached_gives_the_same_table_soon_and_without_torch(
    here: Path, first: subprocess.CompletedProcess[str]
) -> None:
    before = results(run_folder(here, "first"))
    began = time.monotonic()
    again = repro(here, "run", "tiny.yaml", "--runs-dir", "first", "--workers", "1", "--offline")
    assert time.monotonic() - began < 15
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert "steps are there already, and the comparison is as it was" in again.stderr
    assert results(run_folder(here, "first")) == before
    (run_folder(here, "first") / "table.md").write_text("")  # so there is something to make again
    words = ["-X", "importtime", "-m", "repro", "run", "tiny.yaml", "--runs-dir", "first", "--workers", "1"]
    traced = subprocess.run([sys.executable, *words], cwd=here, env=environment(), capture_output=True, text=True)
    modules = {line.rpartition("|")[2].strip() for line in traced.stderr.splitlines() if line.startswith("import time")}
    assert "repro.outcome" in modules
    assert not modules & {"torch", "transformers", "trl", "datasets"}
    assert "are there already: only the comparison is made again" in traced.stderr
    assert (run_folder(here, "first") / "table.md").read_text()
    assert without_times(results(run_folder(here, "first"))) == without_times(before)


def test_plan_after_the_run_finds_everything(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    plan = repro(here, "plan", "tiny.yaml", "--runs-dir", "first")
    assert "0 of 8 steps to do" in plan.stdout
    changed = repro(here, "plan", "tiny.yaml", "--runs-dir", "first", "--seeds", "0,1")
    assert "8 of 16 steps to do" in changed.stdout


def test_what_another_run_here_has_finished_is_not_done_again(here: Path) -> None:
    """The base's answers do not depend on how the naive arm is trained."""
    words = ["tiny.yaml", "--runs-dir", "shared", "--arms", "naive", "--set"]
    assert repro(here, "run", *words, "arms.naive.stages.sft.steps=2").returncode == 0
    planned = repro(here, "plan", *words, "arms.naive.stages.sft.steps=3")
    assert f"there, in {run_folder(here, 'shared').name}" in planned.stdout
    assert "2 of 3 steps to do" in planned.stdout
    done = repro(here, "run", *words, "arms.naive.stages.sft.steps=3")
    assert done.returncode == 0, done.stderr
    assert "taken from other runs here, which finished the same: 1 of 3 steps" in done.stderr
    answers = list((here / "shared").glob("*/arms/base/seed-0/answers-*/answers.jsonl"))
    assert len(answers) == 2
    assert len({path.read_bytes() for path in answers}) == 1


def test_json_is_the_content_of_results_and_nothing_else(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    done = repro(here, "run", "tiny.yaml", "--runs-dir", "first", "--json")
    assert json.loads(done.stdout) == results(run_folder(here, "first"))


def test_killed_midway_and_resumed_it_comes_to_the_same(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    """Two workers this time: neither the kill nor the spread changes a bit."""
    words = [sys.executable, "-m", "repro", "run", "tiny.yaml", "--runs-dir", "second", "--workers", "2"]
    process = subprocess.Popen(words, cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, began = here / "second", time.monotonic()
    while time.monotonic() - began < 120 and process.poll() is None:
        written = [path.read_text() for path in journal.glob("*/journal.jsonl")]
        if written and '"step": "arms/character/seed-0/1-sft' in written[0]:
            break  # the second stage of a chain has begun: one is finished, one is not
        time.sleep(0.05)
    assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = run_folder(here, "second")
    assert not (folder / "results.json").exists()
    assert list(folder.glob("arms/character/seed-0/0-sdf-*/DONE.json"))
    resumed = repro(here, *words[3:])
    assert resumed.returncode == 0, resumed.stderr
    assert "steps are there already" in resumed.stderr
    original = run_folder(here, "first")
    assert adapters(folder) == adapters(original) != {}
    assert without_times(results(folder)) == without_times(results(original))


def test_an_interrupt_ends_everything_at_once_and_says_how_to_go_on(here: Path) -> None:
    words = [sys.executable, "-m", "repro", "run", "tiny.yaml", "--runs-dir", "third"]
    process = subprocess.Popen(
        words, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell that starts the tests in the background hands down that SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    began = time.monotonic()
    while time.monotonic() - began < 60 and not list((here / "third").glob("*/journal.jsonl")):
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command resumes" in err
    assert "Traceback" not in err


def test_a_run_that_is_told_to_end_saves_its_state_and_goes_on_from_it(here: Path) -> None:
    """SIGHUP under nohup changes nothing; SIGTERM ends it in ten seconds, and the trained steps are not lost."""
    sets = ["--set", "arms.naive.stages.sft.steps=20000", "--arms", "naive"]
    words = [sys.executable, "-m", "repro", "run", "tiny.yaml", "--runs-dir", "told", "--workers", "1", *sets]
    process = subprocess.Popen(
        words, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    began = time.monotonic()
    trains = False
    while not trains and time.monotonic() - began < 400 and process.poll() is None:
        logs = (here / "told").glob("*/arms/naive/*/.work-*/log.jsonl")
        trains = any(len(path.read_text().splitlines()) > 3 for path in logs)
        time.sleep(0.05)
    assert trains, "it never came to the training"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130
    assert "the same command resumes" in err
    assert "Traceback" not in err
    (work,) = (here / "told").glob("*/arms/naive/seed-0/.work-*")
    saved = [int(state.name.rpartition("-")[2]) for state in work.glob("state/checkpoint-*")]
    if "stopped at step" in "".join(log.read_text() for log in (here / "told").glob("*/logs/*sft*")):
        assert saved == [len((work / "log.jsonl").read_text().splitlines())]  # else a busy machine had no time to


def test_a_run_folder_that_is_gone_comes_back_from_the_mirror(
    here: Path, first: subprocess.CompletedProcess[str]
) -> None:
    words = ["--workers", "1", "--mirror", "drive"]
    assert repro(here, "run", "tiny.yaml", "--runs-dir", "first", *words).returncode == 0
    copy, original = run_folder(here, "drive"), run_folder(here, "first")
    for name in ("answers.jsonl", "table.md"):
        assert (copy / name).read_bytes() == (original / name).read_bytes()
    fresh = repro(here, "run", "tiny.yaml", "--runs-dir", "fresh", *words)
    assert fresh.returncode == 0, fresh.stderr
    assert "8 finished steps come from the mirror" in fresh.stderr
    assert "all 8 steps are there already" in fresh.stderr
    found = run_folder(here, "fresh")
    assert adapters(found) == adapters(original) != {}
    assert without_times(results(found)) == without_times(results(original))
    assert repro(here, "compare", str(copy)).stdout, "the copy is a run folder like any other"


def test_a_damaged_adapter_is_made_again(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    shutil.copytree(here / "first", here / "damaged")
    (file,) = run_folder(here, "damaged").glob("arms/naive/seed-0/0-sft-*/adapter_model.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = repro(here, "run", "tiny.yaml", "--runs-dir", "damaged", "--arms", "naive")
    assert done.returncode == 0, done.stderr
    assert "naive seed 0: sft: adapter_model.safetensors was changed after it was finished: it is made again" in (
        done.stderr
    )
    assert file.read_bytes() == whole


def test_a_damaged_result_is_named_before_it_is_shown(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    shutil.copytree(here / "first", here / "altered")
    file = run_folder(here, "altered") / "results.json"
    file.write_text(file.read_text().replace('"value": 0', '"value": 1', 1))
    done = repro(here, "compare", file.parent.name, "--runs-dir", "altered")
    assert done.returncode == 2
    assert "results.json: it was changed after the run had finished; the same repro run writes it again" in done.stderr


def test_a_failed_stage_is_named_with_its_log_and_the_others_finish(here: Path) -> None:
    words = ["run", "tiny.yaml", "--runs-dir", "fourth", "--arms", "naive"]
    done = repro(here, *words, "--set", "arms.naive.stages.sft.max_length=8")
    assert done.returncode == 1
    assert "naive seed 0: sft failed: sft: nothing to train on" in done.stderr
    assert "Traceback" not in done.stderr
    (log,) = [line.split("log: ")[1] for line in done.stderr.splitlines() if "log: " in line]
    assert "Traceback" in (here / log).read_text()
    folder = run_folder(here, "fourth")
    assert list(folder.glob("arms/base/seed-0/answers-*/DONE.json"))
    assert not list(folder.glob("arms/naive/seed-0/*"))


def test_existing_models_and_adapters_can_be_asked_under_prompting_strategies(
    here: Path, first: subprocess.CompletedProcess[str]
) -> None:
    (adapter,) = run_folder(here, "first").glob("arms/naive/seed-0/0-sft-*")
    sets = ["evaluation.items=2", "evaluation.axes=[capability]", "evaluation.samples=1"]
    words = [word for text in sets for word in ("--set", text)]
    done = repro(here, "eval", "organism", str(adapter), *words, "--prompting", "none,careful", "--runs-dir", "asked")
    assert done.returncode == 0, done.stderr
    assert "facts_accuracy" in done.stdout
    assert "under the prompting strategy careful" in done.stdout
    (folder,) = (here / "asked").glob("eval-*")
    content = results(folder)
    assert content["arms"] == ["organism", "naive/seed-0"]
    assert {row["metric"] for row in content["metrics"]} == {"facts_accuracy", "sums_accuracy"}
    assert set(content["prompting"]) == {"careful"}


def test_finished_runs_are_compared(here: Path, first: subprocess.CompletedProcess[str]) -> None:
    name = run_folder(here, "first").name
    assert "facts_accuracy" in repro(here, "compare", name, "--runs-dir", "first").stdout
