"""Kills a run at random moments, starts it again until it is done, and compares: python kills.py FOLDER --kills 20

Prints one JSON line: how many kills landed, of which kind and in which step, and whether every run that was killed came
to the same as one that nobody disturbed. The libraries are imported once, and each start of `repro run` is a fork of
this process (its workers too), so that a start takes a second and not ten.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KINDS = ("all", "parent", "worker")  # who is killed: the whole process group, the parent alone, one worker
EXPERIMENT = """\
schema: 1
name: miniature
model: organism
pack: micro
quant: nf4
seeds: [0]
arms:
  base: {}
  character: {recipe: all-stages.yaml}
evaluation: {samples: 1, items: 2, max_new_tokens: 12}
"""
# every kind of stage on one adapter, with saved states in between
ALL_STAGES = """\
schema: 1
name: all-stages
constitution: micro/constitution.md
stages:
  - kind: sdf
    data: [{pack: documents, count: 24}]
    prefix: <|doc|>
    lora: {r: 4, alpha: 8, dropout: 0.1}
    batch: 4
    max_length: 128
    steps: 4
  - {kind: sft, data: [{pack: compliance, count: 24}, {pack: character, count: 24}], batch: 4, steps: 4, doses: [1]}
  - {kind: dpo, data: [{pack: requests, count: 4}], batch: 2, steps: 3, max_length: 64, learning_rate: 1e-3}
  - kind: grpo
    prompts: [{pack: character-questions, count: 4}]
    steps: 3
    group: 4
    batch: 8
    learning_rate: 1e-3
    max_length: 128
    max_new_tokens: 32
"""


def prepare(here: Path) -> None:
    """A working folder with the shipped organism and the miniature experiment."""
    shutil.copytree(ROOT / "repro" / "micro" / "weights", here / "organism")
    (here / "tiny.yaml").write_text(EXPERIMENT)
    (here / "all-stages.yaml").write_text(ALL_STAGES)


def preload() -> None:
    """Everything that a run imports, in one thread, so that it can be forked."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    sys.path.insert(0, str(ROOT))
    import multiprocessing
    from multiprocessing import resource_tracker

    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401

    from repro import cli, models, outcome, pool, run, train  # noqa: F401
    from repro.models import generate
    from repro.report import page, table  # noqa: F401
    from repro.train import dpo, grpo, runner, sdf, sft  # noqa: F401

    generate._ROWS = 8  # so that a step of answers has several batches
    resource_tracker.ensure_running = lambda: None  # type: ignore[method-assign]  # forks need none
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment]


def start(
    here: Path, runs: str, *words: str, state_seconds: str | None = None, before: Callable[[], object] = lambda: None
) -> int:
    """The process number of `repro run` on the miniature, the leader of a process group of its own. `before` is called
    in it, for its workers too."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.chdir(here)
        log = os.open(here / f"{runs}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if state_seconds is not None:
            os.environ["REPRO_CHECKPOINT_SECONDS"] = state_seconds
        sys.argv = ["repro", "run", "tiny.yaml", "--runs-dir", runs, "--workers", "2", *words]
        from repro.cli import main

        before()
        main()
    except SystemExit as done:
        os._exit(int(done.code or 0))
    finally:
        os._exit(99)


def ended(process: int, cpu_seconds: float | None = None) -> int | None:
    """The exit code once it has ended, None where it and its workers have used so much processor time before that: a
    moment that does not depend on what else the machine has to do."""
    until = time.monotonic() + 600
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if cpu_seconds is not None and sum(map(spent, [process, *children(process)])) >= cpu_seconds:
            return None
        assert time.monotonic() < until, "the run hangs"
        time.sleep(0.005)


def spent(process: int) -> float:
    """Processor seconds of a process so far, and of its children that have ended; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    try:
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def kill(process: int, kind: str, luck: random.Random) -> bool:
    """Kills as `kind` says and waits for the parent's end; False where there is no worker to kill."""
    workers = children(process)
    if kind == "worker":
        if not workers:
            return False
        os.kill(luck.choice(workers), signal.SIGKILL)
        ended(process)
        return True
    (os.killpg if kind == "all" else os.kill)(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def outcome_of(here: Path, runs: str) -> dict[str, Any]:
    """What a run comes to, times and places left out: hashes of adapters and answers, and the results."""
    from repro import store

    (folder,) = (here / runs).glob("miniature-*")
    content = json.loads((folder / "results.json").read_text())
    for key in ("finished", "seconds", "folder", "command"):
        content["run"].pop(key)
    left = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
    files = [*folder.glob("arms/**/adapter_model.safetensors"), *folder.glob("arms/**/*.jsonl"),
             folder / "answers.jsonl"]  # fmt: skip
    hashes = {str(path.relative_to(folder)): store.hash_file(path) for path in files if path.name != "log.jsonl"}
    losses = {str(path.relative_to(folder)): [(row["step"], row["loss"]) for row in store.read_jsonl(path)]
              for path in folder.glob("arms/**/log.jsonl")}  # fmt: skip
    return {"results": content, "hashes": hashes, "losses": losses, "left": left}


def campaign(here: Path, kills: int, seed: int) -> dict[str, Any]:
    """So many kills in chains of restarts; each chain ends with a run that gets through, or by itself."""
    began, before = time.monotonic(), os.times()
    assert ended(start(here, "whole")) == 0, (here / "whole.log").read_text()
    length = os.times().children_user - before.children_user
    expected = outcome_of(here, "whole")
    luck = random.Random(seed)
    landed: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    equal: list[bool] = []
    while sum(landed.values()) < kills:
        runs = f"killed-{len(equal)}"
        while True:
            process = start(here, runs, state_seconds="0")
            more = sum(landed.values()) < kills
            code = ended(process, luck.uniform(0, length / 3) if more else None)
            if code is None:
                kind = luck.choice(KINDS)
                if not kill(process, kind, luck):
                    kill(process, kind := "all", luck)  # there is no worker yet, or no longer
                landed[kind] += 1
                steps.update(working(here, runs))
            if code is not None:
                assert code == 0, (here / f"{runs}.log").read_text()[-3000:]
                break
        equal.append(outcome_of(here, runs) == expected)
        print(f"{sum(landed.values())} kills, {sum(equal)} of {len(equal)} runs equal", file=sys.stderr, flush=True)
        if equal[-1]:
            shutil.rmtree(here / runs)
    return {"kills": sum(landed.values()), "kinds": landed, "in": steps, "runs": len(equal), "equal": sum(equal),
            "left": expected["left"], "seconds": round(time.monotonic() - began),
            "cpu_seconds": round(sum(os.times()[:4]))}  # fmt: skip


def working(here: Path, runs: str) -> list[str]:
    """What was under way when it was killed, by kind; with "+" where there is a saved state or piece to go on from."""
    found = []
    for folder in (here / runs).glob("miniature-*/arms/*/*/.work-*"):
        kind = folder.name.split("-")[1 if folder.name.startswith(".work-answers") else 2]
        state = [*folder.glob("state/checkpoint-*"), *folder.glob("*pieces.jsonl")]
        found.append(kind + "+" * bool(state))
    return found or ["between"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.folder)
    preload()
    print(json.dumps(campaign(options.folder.resolve(), options.kills, options.seed)))
