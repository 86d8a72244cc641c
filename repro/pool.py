"""Spreads a plan's steps over worker processes: each step after what it needs, the longest chains first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from repro.errors import strike
from repro.plan import Plan, Step, locate
from repro.progress import Display
from repro.worker import STOP_SECONDS, Job, Reply, main


@dataclass
class Failure:
    """A step that failed: what to tell a person, where its log is, and the exit code it asks for."""

    step: Step
    lines: list[str]
    log: str
    exit_code: int


@dataclass
class _Worker:
    process: Any
    connection: Connection
    step: Step | None = None


@dataclass
class State:
    """What is to be done, by key, and what has become of it."""

    plan: Plan
    root: Path
    todo: dict[str, Step]
    failures: list[Failure] = field(default_factory=list)

    def needs(self, step: Step) -> set[str]:
        return {key for key in (step.upstream, step.start, step.dosed) if key is not None}

    def ready(self, running: set[str]) -> list[Step]:
        """Steps that can begin now, the one with the most work hanging on it first."""
        left = set(self.todo)
        found = [step for key, step in self.todo.items() if key not in running and not self.needs(step) & left]
        return sorted(found, key=lambda step: -self.weight(step))

    def weight(self, step: Step) -> float:
        after = [other for other in self.todo.values() if step.key in self.needs(other)]
        return (step.seconds or 1.0) + max((self.weight(other) for other in after), default=0.0)

    def drop(self, step: Step) -> None:
        """Takes a failed step out, and all that would have come after it."""
        del self.todo[step.key]
        for other in [other for other in self.todo.values() if step.key in self.needs(other)]:
            if other.key in self.todo:
                self.drop(other)

    def ended(self, step: Step, reply: Reply, display: Display, note: Callable[..., None]) -> None:
        """Takes in how a step came out."""
        kind, *details = reply
        if kind == "done":
            note("step done", step=step.folder, **details[0])
            display.ended(step.key, summary_line(step, details[0]))
            del self.todo[step.key]
        else:
            lines, log, exit_code = details
            note("step failed", step=step.folder, why=lines)
            display.ended(step.key, f"{step.title}: FAILED")
            self.failures.append(Failure(step, lines, log, exit_code))
            self.drop(step)

    def job(self, step: Step, device: str, backend: str) -> Job:
        folders = {key: locate(self.plan.steps[key], self.root) for key in self.needs(step)}
        spec, experiment = step.spec or self.plan.spec, self.plan.experiment
        return Job(step, spec, experiment.quant, device, self.root, folders, backend, experiment.pack)


def work(
    plan: Plan,
    todo: list[Step],
    root: Path,
    *,
    workers: int,
    threads: int,
    device: str,
    backend: str = "auto",
    display: Display,
    note: Callable[..., None],
    lock: int | None = None,
) -> list[Failure]:
    """Does the steps in `todo` with so many processes of so many threads each; returns what failed.

    A failed step takes those after it along; the others go on. `note(event, **details)` writes the journal. `lock` is
    the run folder's, for the workers to hold too. On any exception (an interrupt too) the workers are told to save what
    they can and end, and killed if they don't, before it goes on.
    """
    state = State(plan, root, {step.key: step for step in todo})
    crew: list[_Worker] = []
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when a child's libraries load
    try:
        while state.todo:
            crew = [worker for worker in crew if worker.step is not None or worker.process.is_alive()]
            running = {worker.step.key for worker in crew if worker.step}
            for step in state.ready(running):
                idle = next((worker for worker in crew if worker.step is None), None)
                if idle is None and len(crew) < workers:
                    idle = _hire(context, threads, lock)
                    crew.append(idle)
                if idle is None:
                    break
                idle.step = step
                idle.connection.send(state.job(step, device, backend))
                display.started(step.key, step.title)
                note("step started", step=step.folder)
            _listen(state, crew, display, note)
    finally:
        _dismiss(crew)
        for log in (root / "logs").glob("*.log"):  # a worker that was killed had no time to
            strike(log)
    return state.failures


def _hire(context: Any, threads: int, lock: int | None) -> _Worker:
    here, there = context.Pipe()
    shared = None if lock is None else Connection(os.dup(lock))  # which is how a handle travels to a child
    process = context.Process(target=main, args=(there, threads, shared), daemon=True)
    # until a worker has begun to run its own code, Ctrl-C or a closed terminal must not end it with a traceback
    resource_tracker.ensure_running()  # it would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    there.close()
    if shared is not None:
        shared.close()
    return _Worker(process, here)


def _dismiss(crew: list[_Worker]) -> None:
    """Ends all workers: the idle ones by hanging up, the busy ones (of a run that stops) by a signal."""
    for worker in crew:
        worker.connection.close()
        if worker.step is not None:
            worker.process.terminate()
    until = time.monotonic() + STOP_SECONDS + 0.5
    for worker in crew:
        worker.process.join(max(0.0, until - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _listen(state: State, crew: list[_Worker], display: Display, note: Callable[..., None]) -> None:
    """Takes in whatever the busy workers say next."""
    busy = {worker.connection: worker for worker in crew if worker.step is not None}
    for connection in wait(list(busy), timeout=1.0):
        worker = busy[connection]  # type: ignore[index]
        step = worker.step
        assert step is not None
        try:
            kind, *details = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(3)
            crew.remove(worker)
            code = worker.process.exitcode
            killed = code is not None and code < 0
            why = f"its process was killed (signal {-code}); out of memory?" if killed else "its process died"
            kind, details = "failed", [[why], str(state.root / "logs"), 1]
        if kind == "moved":
            display.moved(step.key, *details)
            continue
        if kind == "said":
            note("said", step=step.folder, line=details[0])
            display.say(f"  {step.arm} seed {step.seed}, {details[0]}")
            continue
        worker.step = None
        state.ended(step, (kind, *details), display, note)


def summary_line(step: Step, summary: dict[str, Any]) -> str:
    """What one finished step comes to, on one line."""
    seconds = f"{summary.get('wall_seconds', summary.get('seconds', 0)):.1f} s"
    if step.kind == "answers":
        lost = f", {summary['unfinished']} unfinished" if summary.get("unfinished") else ""
        return f"{step.title}: {summary['answers']:,} answers{lost}, {seconds}"
    tokens, trained = summary["tokens"], summary["trained_tokens"]
    share = f" ({trained / tokens:.0%} trained)" if tokens else ""
    loss = f"loss {summary['loss_first']:.3f} -> {summary['loss_last']:.3f}"
    shrunk = "".join(f", {line}" for line in summary.get("shrunk", ()))
    return f"{step.title}: {summary['steps']} steps, {tokens:,} tokens{share}, {loss}, {seconds}{shrunk}"
