"""Spreads a plan's steps over Ray: one task a chain of steps, tried again when its machine goes; gathered on the disk.

    repro sweep EXPERIMENT --grid ... --ray            a Ray of this machine's own
    repro sweep EXPERIMENT --grid ... --ray ADDRESS    a cluster's, where every node has the kit and sees --runs-dir
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro import doctor, store
from repro.errors import CannotHere
from repro.keys import local_folder
from repro.plan import Plan, Step
from repro.pool import Failure, State
from repro.progress import Display
from repro.worker import Job, Reply, perform

RETRIES = 3  # of a chain whose process or machine dies; what it had finished is kept
_LOADED: list[Any] = []  # a Ray worker's base, kept from chain to chain


def require() -> None:
    """Raises CannotHere where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise CannotHere("--ray: Ray is not installed here: pip install 'repro[ray]'")


def connect(address: str, workers: int | None) -> Any:
    """The ray module, connected to the cluster at `address`, or to one of this machine's own (`local`)."""
    require()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray

    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False, "configure_logging": True}
    try:
        if address == "local":
            ray.init(address="local", num_cpus=workers or doctor.cores(), include_dashboard=False, **quiet)
        else:
            offline = {"HF_HUB_OFFLINE": "1"} if os.environ.get("HF_HUB_OFFLINE") == "1" else {}
            ray.init(address=address, runtime_env={"env_vars": offline} if offline else None, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CannotHere(f"--ray {address}: {' '.join(str(error).split())[:300]}") from None
    return ray


def crew(ray: Any, small: bool, asked: int | None, gpu: bool) -> tuple[int, int, str]:
    """(workers, threads of each, device): what the cluster has now, a GPU each where there are any (or `gpu` says that
    they will come) and the model is not `small`; at most `asked`."""
    has = ray.cluster_resources()
    device = "cuda" if not small and (has.get("GPU") or gpu) else "cpu"
    count = max(1, int(has.get("GPU" if device == "cuda" else "CPU", 1)))
    return asked or count, 1, device


def chains(state: State) -> list[list[Step]]:
    """The steps to do in chains that one worker does one after the other: a chain ends where several steps go on."""
    found: list[list[Step]] = []
    upstreams = [step.upstream for step in state.todo.values()]
    for step in state.todo.values():
        needed = state.needs(step) & set(state.todo)
        before = next((chain for chain in found if chain[-1].key == step.upstream), None)
        if before and upstreams.count(step.upstream) == 1 and needed <= {one.key for one in before}:
            before.append(step)
        else:
            found.append([step])
    return found


def work(
    ray: Any, plan: Plan, todo: list[Step], root: Path, *, workers: int, threads: int, device: str, backend: str,
    display: Display, note: Callable[..., None],
) -> list[Failure]:  # fmt: skip
    """As pool.work, on the Ray that `ray` is connected to; at most `workers` chains at a time."""
    state = State(plan, root.resolve(), {step.key: step for step in todo})
    resources = {"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}
    task = ray.remote(max_retries=RETRIES, **resources)(do_chain)
    waiting = sorted(chains(state), key=lambda chain: -sum(step.seconds or 1.0 for step in chain))  # the longest first
    running: dict[Any, list[Step]] = {}
    while waiting or running:
        waiting = [chain for chain in waiting if chain[0].key in state.todo]  # else what it needs has failed
        for chain in [chain for chain in waiting if not state.needs(chain[0]) & set(state.todo)]:
            if len(running) < workers:
                waiting.remove(chain)
                jobs = [_everywhere(state.job(step, device, backend)) for step in chain]
                running[task.remote(jobs, threads)] = chain
                display.started(chain[0].key, chain[0].title)
                note("chain started", steps=[step.folder for step in chain])
        ended, _ = ray.wait(list(running), timeout=5.0) if running else ([], None)
        for reference in ended:
            chain = running.pop(reference)
            for step, reply in zip(chain, _replies(ray, reference, root), strict=False):
                state.ended(step, reply, display, note)
    return state.failures


def _replies(ray: Any, reference: Any, root: Path) -> Iterable[Reply]:
    try:
        return ray.get(reference)  # type: ignore[no-any-return]
    except ray.exceptions.RayError as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return [("failed", [f"Ray gave it up after {RETRIES} retries: {why}"], str(root / "logs"), 1)]


def _everywhere(job: Job) -> Job:
    """The job with paths that mean the same in every working folder."""
    folder = local_folder(job.spec)
    spec = job.spec if folder is None else job.spec.model_copy(update={"path_or_hub": str(folder.resolve())})
    return replace(job, spec=spec)


def do_chain(jobs: list[Job], threads: int) -> list[Reply]:
    """Does the jobs in turn, on a Ray worker, up to the first that fails; what an earlier try finished is kept."""
    replies: list[Reply] = []
    for job in jobs:
        folder = job.root / job.step.folder
        done = store.read_done(folder) if store.is_done(folder, job.step.key) else None
        reply = ("done", done["summary"]) if done else perform(job, _LOADED, threads, lambda *_: None, None)
        replies.append(reply)
        if reply[0] == "failed":
            break
    return replies
