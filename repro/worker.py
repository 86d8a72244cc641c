"""A child process of a run: holds the base model, does the steps that the parent sends, and reports over a pipe.

Everything that imports torch happens here, so that a run with nothing left to do never loads it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from repro import data, evals, faults, garbage, store
from repro.errors import ReproError, safe, strike
from repro.evals import public
from repro.plan import Step
from repro.seeds import derive
from repro.stages import CURVE

Send = Callable[..., None]
Reply = tuple[Any, ...]  # ("done", summary) or ("failed", lines, log, exit code)
Row = dict[str, Any]

PIECES = "pieces.jsonl"
CHECKPOINT_SECONDS = 300.0  # REPRO_CHECKPOINT_SECONDS, for tests: how old a stage's saved state may be
STOP_SECONDS = 7.5  # from the signal to the end, whatever is still being saved; pool.py waits a little longer
_stopping = threading.Event()
_saving = threading.Event()  # set while a step looks at _stopping by itself, and saves before it ends


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


def main(connection: Connection, threads: int, lock: Connection | None = None) -> None:
    """Serves jobs until the parent hangs up.

    It sends ("moved", done, total) and ("said", line), and at the end of a job its Reply.
    `lock` holds the run folder's lock here too, until this process ends: a run that is killed can't be begun again
    beside workers that have not noticed yet.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    loaded: list[Any] = []
    tell = partial(_tell, connection)
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
                tell("moved", done, total)

        tell(*perform(job, loaded, threads, moved, partial(tell, "said")))


def _tell(connection: Connection, *message: Any) -> None:
    """To the parent, if it still listens: one that stops hangs up first, and a step that then failed would lose its
    saved state."""
    with contextlib.suppress(OSError):
        connection.send(message)


def perform(job: Job, loaded: list[Any], threads: int, moved: Send, say: Callable[[str], None] | None) -> Reply:
    """Does one job and says how it ended; `loaded` keeps the base from job to job."""
    log = job.root / "logs" / (job.step.folder.removeprefix("arms/").replace("/", "-") + ".log")
    try:
        _redirect(log)
        began = time.monotonic()
        model = load_base(job, loaded, threads)
        summary = _answer(job, model, moved) if job.step.stage is None else _train(job, model, moved, say)
        summary.pop("inputs", None)  # they stay with the outcome; the journal has no need of them
        return "done", summary | {"wall_seconds": round(time.monotonic() - began, 2)}
    except ReproError as error:
        _print_traceback()
        return "failed", error.lines, str(log), error.exit_code
    except Exception as error:
        _print_traceback()
        if known := faults.explain(error, job.root):
            return "failed", known.lines, str(log), known.exit_code
        text = safe(" ".join(str(error).split()))[:300]
        return "failed", [f"{type(error).__name__}: {text}"], str(log), 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        strike(log)


def _stop(*_: Any) -> None:
    """SIGTERM: what can be saved soon is (a stage's state after its step, a batch of answers), then an orderly end."""
    timer = threading.Timer(STOP_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()
    _stopping.set()
    if not _saving.is_set():
        sys.exit(1)


@contextlib.contextmanager
def _saves() -> Iterator[None]:
    outermost = not _saving.is_set()  # probes are answered inside of a training that saves
    _saving.set()
    try:
        yield
    finally:
        if outermost:
            _saving.clear()


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


def _print_traceback() -> None:
    """Into the log, where the disk still takes it."""
    with contextlib.suppress(OSError):
        print(safe(traceback.format_exc()), file=sys.stderr)


def load_base(job: Job, loaded: list[Any], threads: int) -> Any:
    """The base, loaded once a worker; `loaded` holds (name, model)."""
    from repro import models

    name = (job.spec.model_dump_json(), job.quant)
    if not loaded or loaded[0][0] != name:
        loaded.clear()
        if job.device == "cpu":  # nothing is compiled there, and bitsandbytes would import the compiler all the same
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        with garbage.left_alone():
            loaded.append((name, models.load(job.spec, quant=job.quant, device=job.device, backend=job.backend)))
            if job.step.stage is not None:  # it will need transformers' trainer, half of all there is to import
                import repro.train.runner  # noqa: F401
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
            rows = with_rejected(job, model, rows, folder, lambda done, total: moved(done, 2 * total))
        if step.upstream is None:
            model.new_adapter(step.stage.lora, derive(step.seed, "adapter"))
        else:
            model.load_adapter(job.folders[step.upstream], trainable=True)

        def progress(done: int, total: int, loss: float) -> None:
            moved(done + total if own_answers else done, 2 * total if own_answers else total)

        probed: list[float] = []
        listen = probing(step, folder, probed) if step.items else None
        seed = derive(step.seed, "stage", step.index, step.kind)
        with _saves():
            summary |= train.run_stage(
                step.stage, model, rows, folder, seed=seed, on_progress=progress, on_step=listen, on_say=say,
                checkpoint_every_minutes=checkpoint_minutes(), stopping=_stopping.is_set,
            )  # fmt: skip
        summary |= {"probing_seconds": round(sum(probed), 2)} if probed else {}
        summary |= {"precision": model.precision, "peak_gib": model.peak_gib()}
    return summary


def checkpoint_minutes() -> float:
    """How old a stage's saved state may get."""
    return float(os.environ.get("REPRO_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS)) / 60


def probing(step: Step, folder: Path, seconds: list[float]) -> Callable[[int, int, Any], None]:
    """What asks the stage's probes along the training: a row an answer in curve.jsonl, its time added to `seconds`."""
    path, asked = folder / CURVE, evals.asks(list(step.items))

    def ask(at: int, _: int, model: Any) -> None:
        began = time.monotonic()
        found = respond(model, asked, step.max_new_tokens, lambda *_: None)
        # a stage that was killed goes on from an earlier step, and comes by here again
        before = [row for row in store.read_jsonl(path) if row["step"] < at] if path.exists() else []
        rows = [{"step": at, "item": one.item.id, **row} for one, row in zip(asked, found, strict=True)]
        store.write_jsonl(path, [*before, *rows])
        seconds.append(time.monotonic() - began)

    return ask


def with_rejected(job: Job, model: Any, rows: list[dict[str, Any]], folder: Path, moved: Send) -> list[dict[str, Any]]:
    """The rows with what the arm's start model answers to them, greedily, as `rejected`; kept in rejected.jsonl."""
    written = folder / "rejected.jsonl"
    if written.exists():
        return store.read_jsonl(written)
    if job.step.start is not None:
        model.load_adapter(job.folders[job.step.start], trainable=False)
    longest = min(256, job.step.stage.max_length)
    pieces = Pieces(folder / PIECES)
    _generate(model, {place: row["messages"] for place, row in enumerate(rows)}, pieces,
              max_new_tokens=longest, progress=moved)  # fmt: skip
    model.drop_adapter()
    rows = [{**row, "rejected": pieces.rows[place]["text"]} for place, row in enumerate(rows)]
    store.write_jsonl(written, rows)
    (folder / PIECES).unlink(missing_ok=True)
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
    with store.building(job.root / step.folder, step.key, summary, resumable=True) as folder:
        rows: list[Row] = []
        began = time.monotonic()
        for place, (dose, adapter, asked) in enumerate(rounds):
            pieces = Pieces(folder / f"{place}-{PIECES}", partial(_kept, asked, job.pack))
            if len(pieces.rows) < len(asked):
                if adapter is None:
                    model.drop_adapter()
                else:
                    model.load_adapter(adapter, trainable=False)
            moving = lambda done, _, seen=before: moved(seen + done, total)  # noqa: E731
            found = respond(model, asked, step.max_new_tokens, moving, pieces)
            rows += [{"item": ask.item.id, "dose": dose, **row} for ask, row in zip(asked, found, strict=True)]
            before += len(asked)
        store.write_jsonl(folder / "answers.jsonl", rows)
        for path in folder.glob(f"*{PIECES}"):
            path.unlink()
        summary |= {
            "tokens": sum(row.get("tokens", 0) for row in rows),
            "unfinished": sum(not row.get("finished", True) for row in rows),
            "seconds": round(time.monotonic() - began, 2),
            "precision": model.precision,
            "peak_gib": model.peak_gib(),
        }
    return summary


def _kept(asked: list[evals.Ask], pack: str, place: int, row: Row) -> Row:
    """An answer as it goes to the disk: the words of one to a hazardous prompt never do, only its label."""
    item = asked[place].item
    if not public.must_seal(item.id):
        return row
    return public.stored(item, row, data.load(pack).judge)


class Pieces:
    """Answers so far, by place: {"text", "finished", "tokens"} or {"logprobs"}, as `keep(place, row)` changes them.

    With a `path` each batch is there as one line once it is answered, so that a killed step goes on after it. A line
    that a kill tore is left out, and its batch is asked again.
    """

    def __init__(self, path: Path | None = None, keep: Callable[[int, Row], Row] = lambda place, row: row) -> None:
        self.path, self.keep = path, keep
        self.rows: dict[int, Row] = {}
        for line in path.read_bytes().split(b"\n") if path is not None and path.exists() else []:
            with contextlib.suppress(ValueError):
                self.rows |= {int(place): row for place, row in json.loads(line).items()}

    def add(self, batch: dict[int, Row]) -> None:
        batch = {place: self.keep(place, row) for place, row in batch.items()}
        self.rows |= batch
        if self.path is not None:
            store.append(self.path, json.dumps(batch, ensure_ascii=False, allow_nan=False))
            if _stopping.is_set():
                raise SystemExit("stopped after a batch of answers, which is saved")


def _generate(model: Any, prompts: dict[int, Any], pieces: Pieces, *, seeds: Any = None, **options: Any) -> None:
    """Adds to `pieces` what the model answers to those of `prompts` that are not answered there."""
    left = [place for place in prompts if place not in pieces.rows]

    def keep(places: list[int], answers: list[Any]) -> None:
        pieces.add({
            left[place]: {"text": answer.text, "finished": answer.finished, "tokens": answer.tokens}
            for place, answer in zip(places, answers, strict=True)
        })  # fmt: skip

    if left:
        with _saves():
            own = None if seeds is None else [seeds[place] for place in left]
            model.generate([prompts[place] for place in left], seeds=own, on_batch=keep, **options)


def respond(
    model: Any, asked: list[evals.Ask], max_new_tokens: int, moved: Send, pieces: Pieces | None = None
) -> list[Row]:
    """{"text", "finished", "tokens"} for each ask, or {"logprobs"} where its item has continuations; in their order.
    What `pieces` holds is not asked again, and what is asked is added to it."""
    pieces = pieces or Pieces()
    scored = [place for place, ask in enumerate(asked) if ask.item.continuations]
    if scored and scored[0] not in pieces.rows:  # all of them are one piece
        pairs = [(asked[place].messages, text) for place in scored for text in asked[place].item.continuations]
        values = iter(model.logprobs([messages for messages, _ in pairs], [text for _, text in pairs]))
        rows = {place: [next(values) for _ in asked[place].item.continuations] for place in scored}
        pieces.add({at: {"logprobs": [v if math.isfinite(v) else None for v in row]} for at, row in rows.items()})
    generated = [place for place, ask in enumerate(asked) if not ask.item.continuations]
    for temperature in sorted({asked[place].temperature for place in generated}):
        places = [place for place in generated if asked[place].temperature == temperature]
        before = len(pieces.rows)
        _generate(
            model,
            {place: asked[place].messages for place in places},
            pieces,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds={place: asked[place].seed for place in places} if temperature else None,
            progress=lambda done, _, before=before: moved(before + done, len(asked)),
        )
    return [pieces.rows[place] for place in range(len(asked))]
