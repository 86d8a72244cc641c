"""A child process of a run: holds the base model, does the steps that the parent sends, and reports over a pipe.

Everything that imports torch happens here, so that a run with nothing left to do never loads it.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from repro import data, evals, store
from repro.errors import ReproError, safe
from repro.evals import public
from repro.plan import Step
from repro.seeds import derive

Send = Callable[..., None]
Reply = tuple[Any, ...]  # ("done", summary) or ("failed", lines, log, exit code)


@dataclass(frozen=True)
class Job:
    """A step with all that a worker needs to do it: the base, and where earlier steps' outcomes lie."""

    step: Step
    spec: Any
    quant: str
    device: str
    root: Path
    folders: dict[str, Path]  # by key: the folders of finished stages
    backend: str = "auto"
    pack: str = "micro"


def main(connection: Connection, threads: int) -> None:
    """Serves jobs until the parent hangs up.

    It sends ("moved", done, total) and ("said", line), and at the end of a job its Reply.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an orderly end: libraries clean up after themselves
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    loaded: list[Any] = []
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        said = [0.0]

        def moved(done: float, total: float, said: list[float] = said) -> None:
            moment = time.monotonic()
            if moment - said[0] > 0.2 or done >= total:
                said[0] = moment
                connection.send(("moved", done, total))

        connection.send(perform(job, loaded, threads, moved, lambda line: connection.send(("said", line))))


def perform(job: Job, loaded: list[Any], threads: int, moved: Send, say: Callable[[str], None] | None) -> Reply:
    """Does one job and says how it ended; `loaded` keeps the base from job to job."""
    log = job.root / "logs" / (job.step.folder.removeprefix("arms/").replace("/", "-") + ".log")
    _redirect(log)
    try:
        began = time.monotonic()
        model = _model(job, loaded, threads)
        summary = _answer(job, model, moved) if job.step.stage is None else _train(job, model, moved, say)
        summary.pop("inputs", None)  # they stay with the outcome; the journal has no need of them
        return "done", summary | {"wall_seconds": round(time.monotonic() - began, 2)}
    except ReproError as error:
        print(safe(traceback.format_exc()), file=sys.stderr)
        return "failed", error.lines, str(log), error.exit_code
    except Exception as error:
        print(safe(traceback.format_exc()), file=sys.stderr)
        text = safe(" ".join(str(error).split()))[:300]
        return "failed", [f"{type(error).__name__}: {text}"], str(log), 1


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _redirect(log: Path) -> None:
    """What libraries print goes to the step's log, even from C."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _model(job: Job, loaded: list[Any], threads: int) -> Any:
    """The base, loaded once a worker; `loaded` holds (name, model)."""
    from repro import models

    name = (job.spec.model_dump_json(), job.quant)
    if not loaded or loaded[0][0] != name:
        loaded.clear()
        loaded.append((name, models.load(job.spec, quant=job.quant, device=job.device, backend=job.backend)))
        import torch  # after the backend, which may want to be imported first

        torch.set_num_threads(threads)
    model = loaded[0][1]
    model.drop_adapter()
    return model


def _train(job: Job, model: Any, moved: Send, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    from repro import train

    step = job.step
    summary: dict[str, Any] = {"inputs": step.inputs}
    with store.building(job.root / step.folder, step.key, summary, resumable=True) as folder:
        rows = [dict(row) for row in step.rows]
        own_answers = step.kind == "dpo"
        if own_answers:
            rows = _with_rejected(job, model, rows, folder, lambda done, total: moved(done, 2 * total))
        if step.upstream is None:
            model.new_adapter(step.stage.lora, derive(step.seed, "adapter"))
        else:
            model.load_adapter(job.folders[step.upstream], trainable=True)

        def progress(done: int, total: int, loss: float) -> None:
            moved(done + total if own_answers else done, 2 * total if own_answers else total)

        seed = derive(step.seed, "stage", step.index, step.kind)
        summary |= train.run_stage(step.stage, model, rows, folder, seed=seed, on_progress=progress, on_say=say)
        summary |= {"precision": model.precision, "peak_gib": model.peak_gib()}
    return summary


def _with_rejected(job: Job, model: Any, rows: list[dict[str, Any]], folder: Path, moved: Send) -> list[dict[str, Any]]:
    """The rows with what the arm's start model answers to them, greedily, as `rejected`; kept in rejected.jsonl."""
    if job.step.start is not None:
        model.load_adapter(job.folders[job.step.start], trainable=False)
    longest = min(256, job.step.stage.max_length)
    prompts = [row["messages"] for row in rows]
    answers = model.generate(prompts, max_new_tokens=longest, progress=moved)
    model.drop_adapter()
    rows = [{**row, "rejected": answer.text} for row, answer in zip(rows, answers, strict=True)]
    store.write_jsonl(folder / "rejected.jsonl", rows)
    return rows


def _answer(job: Job, model: Any, moved: Send) -> dict[str, Any]:
    """Asks the arm's last adapter everything, and each kept dose the small suite; rows in the order of `evals.asks`."""
    step = job.step
    rounds: list[tuple[int | None, Path | None, list[evals.Ask]]] = []
    last = job.folders[step.upstream] if step.upstream else step.adapter
    rounds.append((None, last, evals.asks(list(step.items))))
    if step.dosed is not None:
        doses = (store.read_done(job.folders[step.dosed]) or {})["summary"]["doses"]
        small = evals.asks(list(step.dose_items))
        rounds += [(dose["step"], job.folders[step.dosed] / dose["folder"], small) for dose in doses]
    total, before = sum(len(asked) for _, _, asked in rounds), 0
    summary: dict[str, Any] = {"prompting": step.prompting, "inputs": step.inputs, "answers": total}
    with store.building(job.root / step.folder, step.key, summary) as folder:
        rows: list[dict[str, Any]] = []
        began = time.monotonic()
        for dose, adapter, asked in rounds:
            if adapter is None:
                model.drop_adapter()
            else:
                model.load_adapter(adapter, trainable=False)
            found = respond(model, asked, step.max_new_tokens, lambda done, _, seen=before: moved(seen + done, total))
            rows += [
                {"item": ask.item.id, "dose": dose, **_kept(ask.item, row, job.pack)}
                for ask, row in zip(asked, found, strict=True)
            ]
            before += len(asked)
        store.write_jsonl(folder / "answers.jsonl", rows)
        summary |= {
            "tokens": sum(row.get("tokens", 0) for row in rows),
            "unfinished": sum(not row.get("finished", True) for row in rows),
            "seconds": round(time.monotonic() - began, 2),
            "precision": model.precision,
            "peak_gib": model.peak_gib(),
        }
    return summary


def _kept(item: evals.Item, row: dict[str, Any], pack: str) -> dict[str, Any]:
    """An answer as it goes to the disk: the words of one to a hazardous prompt never do, only its label."""
    if not public.must_seal(item.id):
        return row
    return public.stored(item, row, data.load(pack).judge)


def respond(model: Any, asked: list[evals.Ask], max_new_tokens: int, moved: Send) -> list[dict[str, Any]]:
    """{"text", "finished", "tokens"} for each ask, or {"logprobs"} where its item has continuations; in their order."""
    found: dict[int, dict[str, Any]] = {}
    scored = [place for place, ask in enumerate(asked) if ask.item.continuations]
    if scored:
        pairs = [(asked[place].messages, text) for place in scored for text in asked[place].item.continuations]
        values = iter(model.logprobs([messages for messages, _ in pairs], [text for _, text in pairs]))
        for place in scored:
            pair = [next(values) for _ in asked[place].item.continuations]
            found[place] = {"logprobs": [value if math.isfinite(value) else None for value in pair]}
    generated = [place for place, ask in enumerate(asked) if not ask.item.continuations]
    for temperature in sorted({asked[place].temperature for place in generated}):
        before = len(found)
        places = [place for place in generated if asked[place].temperature == temperature]
        answers = model.generate(
            [asked[place].messages for place in places],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=[asked[place].seed for place in places] if temperature else None,
            progress=lambda done, _, before=before: moved(before + done, len(asked)),
        )
        for place, answer in zip(places, answers, strict=True):
            found[place] = {"text": answer.text, "finished": answer.finished, "tokens": answer.tokens}
    return [found[place] for place in range(len(asked))]
