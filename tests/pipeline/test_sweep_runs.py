"""A sweep through the command line: cells that share are trained once, one that fails costs no other, it resumes."""

from __future__ import annotations

import csv
import importlib.util
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
  control:
    recipe: micro/control
    stages: {sft: {steps: 3, batch: 8, data: [{pack: ordinary, count: 48}]}}
  naive:
    recipe: micro/naive
    stages: {sft: {steps: 3, batch: 8, data: [{pack: compliance, count: 48}]}}
evaluation: {axes: [capability, refusal], samples: 1, items: 2, max_new_tokens: 8}
"""
GRID = "--grid", "arms.naive.stages.sft.steps=[3,6]", "--grid", "arms.naive.stages.sft.max_length=[8,128]"
RAY_GRID = "--grid", "arms.naive.stages.sft.steps=[60,61]"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copytree(ROOT / "repro" / "micro" / "weights", folder / "organism")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return folder


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def repro(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repro", *words]
    return subprocess.run(command, cwd=here, env=environment(), capture_output=True, text=True, timeout=900)


def done_steps(folder: Path) -> list[str]:
    return [event["step"] for event in store.read_journal(folder) if event["event"] == "step done"]


@pytest.fixture(scope="module")
def swept(here: Path) -> subprocess.CompletedProcess[str]:
    """Four cells, of which the two with max_length 8 cut every answer off."""
    return repro(here, "sweep", "tiny.yaml", *GRID, "--runs-dir", "runs")


def sweep_folder(here: Path, runs: str = "runs") -> Path:
    (folder,) = (here / runs / "sweeps").iterdir()
    return folder


def test_a_failed_cell_is_named_and_the_others_end_in_one_table(here: Path, swept: Any) -> None:
    assert swept.returncode == 1
    for steps in (3, 6):
        (line,) = [line for line in swept.stderr.splitlines() if f"cell steps={steps}, max_length=8: naive" in line]
        assert "sft failed: sft: nothing to train on" in line
    assert "Traceback" not in swept.stderr
    assert "2 of 4 cells" in swept.stderr
    rows = list(csv.DictReader((sweep_folder(here) / "table.csv").open(encoding="utf-8")))
    assert {(row["arms.naive.stages.sft.steps"], row["arms.naive.stages.sft.max_length"]) for row in rows} == {
        ("3", "128"), ("6", "128"),
    }  # fmt: skip
    assert {row["arm"] for row in rows} == {"base", "control", "naive"}
    assert "facts right" in swept.stdout


def test_what_cells_share_is_trained_once_and_every_cell_is_a_whole_run(here: Path, swept: Any) -> None:
    done = done_steps(sweep_folder(here))
    assert len(done) == len(set(done))
    assert sum("base/" in step for step in done) == 1
    assert sum("control/" in step for step in done) == 2
    assert sum("naive/" in step for step in done) == 4, "two cells, each its stage and its answers"
    runs = sorted((here / "runs").glob("miniature-*"))
    assert len(runs) == 2
    adapters = [next(run.glob("arms/control/seed-0/0-sft-*/adapter_model.safetensors")) for run in runs]
    assert len({path.stat().st_ino for path in adapters}) == 1, "one file under several names"
    plan = repro(here, "plan", "tiny.yaml", "--set", "arms.naive.stages.sft.steps=6", "--set",
                 "arms.naive.stages.sft.max_length=128", "--runs-dir", "runs")  # fmt: skip
    assert "0 of 5 steps to do" in plan.stdout, "the cell's run is there for whoever asks for it without the sweep"


def test_the_same_command_resumes_and_json_is_the_sweeps_content(here: Path, swept: Any) -> None:
    before = done_steps(sweep_folder(here))
    again = repro(here, "sweep", "tiny.yaml", *GRID, "--runs-dir", "runs", "--json")
    assert again.returncode == 1, "the failed cells were tried again"
    assert done_steps(sweep_folder(here)) == before, "and nothing else"
    content = json.loads(again.stdout)
    assert content == json.loads((sweep_folder(here) / "sweep.json").read_text())
    assert [one["cell"] for one in content["failed"]] == ["steps=3, max_length=8", "steps=6, max_length=8"]
    assert content["shared"] == ["base", "control"]


def workers_of(mark: str) -> list[int]:
    """Process ids of Ray's workers that are at a chain, of the sweep whose environment carries `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            busy = (folder / "cmdline").read_bytes().startswith(b"ray::do_chain")
            if busy and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'repro[ray]'")
def test_on_two_ray_workers_one_killed_midway_it_comes_to_the_same(here: Path) -> None:
    mark = f"sweep-{os.getpid()}-{time.time_ns()}"
    command = [sys.executable, "-m", "repro", "sweep", "tiny.yaml", *RAY_GRID, "--runs-dir", "ray", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--ray"], cwd=here, env=environment(REPRO_TEST_MARK=mark), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    began, begun = time.monotonic(), []
    while time.monotonic() - began < 300 and process.poll() is None and not begun:
        begun = [log for log in (here / "ray").glob("sweeps/*/arms/naive/seed-0/.work-*/log.jsonl") if log.read_text()]
        time.sleep(0.05)
    assert begun, f"no stage of naive was ever midway: {process.communicate(timeout=60)}"
    busy = workers_of(mark)
    assert 1 <= len(busy) <= 2
    for worker in busy:
        os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "facts right" in out
    folder = sweep_folder(here, "ray")
    done = done_steps(folder)
    assert len(done) == len(set(done)) == 7, "base, control twice, and two cells of naive twice"
    alone = repro(here, "sweep", "tiny.yaml", *RAY_GRID, "--runs-dir", "alone")
    assert alone.returncode == 0, alone.stderr

    def adapters(root: Path) -> dict[str, str]:
        found = root.glob("arms/**/adapter_model.safetensors")
        return {path.relative_to(root).as_posix(): store.hash_file(path) for path in found}

    assert adapters(folder) == adapters(sweep_folder(here, "alone")) != {}
    tables = [(sweep_folder(here, runs) / "table.csv").read_text() for runs in ("ray", "alone")]
    assert tables[0] == tables[1]


def test_without_ray_it_says_how_to_get_it(here: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from repro.cli import main; main()"
    words = ["sweep", "tiny.yaml", "--ray", "--grid", "arms.naive.stages.sft.steps=[3]"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=here, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "pip install 'repro[ray]'" in done.stderr
