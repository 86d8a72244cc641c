"""Trains an experiment's stages with several processes, one a GPU, each step's batch split among them (DDP).

    accelerate launch --num_processes 2 -m repro.launch reproduce-small --arms naive --seeds 0
    repro run reproduce-small --arms naive --seeds 0        # then asks, judges and compares

What it trains is what `repro run` would: the same rows in the same order, the same effective batch (gradient
accumulation follows from the number of processes), into the same run folder under the same keys. It resumes. Stages of
the kind that needs one process (abliterate), and what comes after them, are left to `repro run`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from repro.cli_options import (
    Arms,
    Backend,
    Experiment,
    ModelOption,
    Offline,
    RunsDir,
    Seeds,
    Sets,
    command_line,
    guarded,
    talk,
)
from repro.errors import BadInput, CannotHere

TOGETHER = ("sdf", "sft", "dpo", "grpo")  # kinds whose step on several processes is the step on one

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@guarded
def main(
    experiment: Experiment,
    model: ModelOption = None,
    arms: Arms = None,
    seeds: Seeds = None,
    sets: Sets = None,
    runs_dir: RunsDir = Path("runs"),
    offline: Offline = False,
    backend: Backend = "auto",
) -> None:
    """Train the stages of an experiment with the processes that accelerate launch started; repro run does the rest.

    Example: accelerate launch --num_processes 2 -m repro.launch reproduce-small --arms naive --seeds 0
    """
    from repro.run import Ask

    ask = Ask(experiment, model, arms, seeds, sets or [], None, runs_dir, offline, command=command_line())
    ask.backend = backend
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise CannotHere("repro.launch trains with DDP, a whole base on each GPU; it can't save what FSDP has sharded")
    for line in train(ask):
        talk().print(line, markup=False, highlight=False, soft_wrap=True)


def train(ask: Any) -> list[str]:
    """Trains what is missing, every process the same stages at the same time; the first alone writes. What was done.

    Raises BadInput for a batch that the processes can't share evenly.
    """
    from repro import run
    from repro.plan import missing
    from repro.pool import State
    from repro.train import together
    from repro.worker import load_base

    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    plan, _ = run.prepare(ask)
    root = ask.runs_dir / plan.folder_name
    stages = {key: step for key, step in plan.steps.items() if step.stage is not None}
    uneven = {f"{step.arm}: {step.kind} has batch {step.stage.batch}" for step in stages.values()
              if step.kind in TOGETHER and step.stage.batch % count}  # fmt: skip
    if uneven:
        raise BadInput([f"{line}, which {count} processes can't share evenly" for line in sorted(uneven)])
    _, threads, device = run.crew(plan, list(stages.values()), 1)
    with _opened(plan, root, ask) if rank == 0 else contextlib.nullcontext(), _together(device):
        together.wait()  # until the first process holds the folder
        done: list[str] = []
        loaded: list[Any] = []
        reasons = missing(plan, root)
        left = State(plan, root, {key: stages[key] for key in reasons if key in stages})
        together.wait()  # until all have looked, before any writes
        for key, step in list(left.todo.items()):
            if step.kind not in TOGETHER or left.needs(step) & set(left.todo):
                done.append(f"{step.title}: left to repro run")
                continue
            job = left.job(step, device, ask.backend)
            summary = _stage(job, load_base(job, loaded, threads), rank)
            done.append(f"{step.title}: {summary['steps']} steps on {count} processes, loss "
                        f"{summary['loss_first']:.4f} -> {summary['loss_last']:.4f}")  # fmt: skip
            del left.todo[key]
            together.wait()  # until the first process has put it in its place
        return [*done, f"asks, judges and compares: repro run with the same options; run folder {root}"] * (rank == 0)


@contextlib.contextmanager
def _opened(plan: Any, root: Path, ask: Any) -> Iterator[None]:
    from repro import run

    claims = run.load_claims(plan)[1]
    about = run.manifest(plan, ask) | {"claims_hash": run.registered_claims(root, claims)}
    with run.opened(root, plan.digest, about) as folder:
        folder.journal("launch started", processes=int(os.environ.get("WORLD_SIZE", 1)))
        yield


@contextlib.contextmanager
def _together(device: str) -> Iterator[None]:
    """Joins the processes that `accelerate launch` started; alone, there is nothing to join."""
    if "RANK" not in os.environ:
        yield
        return
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _stage(job: Any, model: Any, rank: int) -> dict[str, Any]:
    """One stage, on all processes; the others write what they would keep where nobody looks."""
    from repro import store, train
    from repro.seeds import derive
    from repro.train import together
    from repro.worker import checkpoint_minutes, probing, with_rejected

    step = job.step
    summary: dict[str, Any] = {"inputs": step.inputs}
    kept = store.building(job.root / step.folder, step.key, summary, resumable=True)
    with kept if rank == 0 else tempfile.TemporaryDirectory() as given:
        place = Path(given)
        begun = together.first(str(place))
        if rank > 0:  # all go on from what the first one's kill left
            shutil.copytree(begun, place, dirs_exist_ok=True)
        together.wait()
        rows = [dict(row) for row in step.rows]
        if step.kind == "dpo":  # the first one's answers: in 16 bits two GPUs need not answer alike
            rows = together.first(with_rejected(job, model, rows, place, lambda *_: None))
        if step.upstream is None:
            model.new_adapter(step.stage.lora, derive(step.seed, "adapter"))
        else:
            model.load_adapter(job.folders[step.upstream], trainable=True)
        seed = derive(step.seed, "stage", step.index, step.kind)
        probe = probing(step, place, []) if step.items and rank == 0 else None
        summary |= train.run_stage(step.stage, model, rows, place, seed=seed, on_step=probe,
                                   checkpoint_every_minutes=checkpoint_minutes())  # fmt: skip
        summary |= {"precision": model.precision, "peak_gib": model.peak_gib(), "processes": together.processes()}
    return summary


if __name__ == "__main__":
    app()
