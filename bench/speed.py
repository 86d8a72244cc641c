"""How long reproduce-small takes on the organism, where the time goes, and against what: `make bench`, all sections.

python bench/speed.py [start run warm growth packing compile stock]    some of them; each replaces its part of the file.
Everything is a ratio within one run, or a share of it: these machines are noisy, so seconds alone say little.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "speed.json"
TURNS = 5
Found = dict[str, Any]
TYPER = "import typer; a = typer.Typer(); a.command('a')(lambda: None); a.command('b')(lambda: None); a(['--help'])"
HEAVY = ("torch", "scipy", "datasets", "transformers", "numpy")


def seconds(*words: str, threads: int | None = None) -> float:
    """Wall seconds of a process, its output thrown away. Raises CalledProcessError where it fails."""
    env = os.environ | {"PYTHONPATH": str(HERE.parent)}
    if threads:
        env["OMP_NUM_THREADS"] = str(threads)
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    return time.perf_counter() - began


def kit(*words: str) -> list[str]:
    return [sys.executable, "-m", "repro", *words]


def start() -> Found:
    """repro --help against an empty Python and a Typer of two commands, in turns; and what it imports."""
    cases = {"python -c pass": [sys.executable, "-c", "pass"], "typer": [sys.executable, "-c", TYPER],
             "repro --help": kit("--help")}  # fmt: skip
    turns = [{name: seconds(*words) for name, words in cases.items()} for _ in range(TURNS)]
    middle = {name: statistics.median(turn[name] for turn in turns) for name in cases}
    code = f"import sys, repro.cli; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=HERE.parent)
    empty = middle["python -c pass"]
    return {"seconds": middle, "times_empty": {name: value / empty for name, value in middle.items()},
            "heavy": loaded.stdout.strip()}  # fmt: skip


def run(runs: Path, *more: str) -> Found:
    """A run from nothing: its wall time, and what its workers did in it, from the journal and the steps' summaries."""
    began = time.time()
    wall = seconds(*kit("run", "reproduce-micro", "--runs-dir", str(runs), *more))
    from repro import store

    events = store.read_journal(next(runs.glob("*/journal.jsonl")).parent)
    moments = {name: [_moment(event) for event in events if event["event"] == name] for name in
               ("run started", "step started", "step done", "run finished")}  # fmt: skip
    workers = next(event["workers"] for event in events if event["event"] == "run started")
    work: dict[str, list[float]] = {}
    for event in events:
        if event["event"] == "step done":
            kind = event.get("kind", "answers")
            inside = event.get("seconds", 0.0)
            found = work.setdefault(kind, [0, 0.0, 0.0])
            found[0] += 1
            found[1] += inside
            found[2] += event["wall_seconds"] - inside
    useful = sum(inside for _, inside, _ in work.values())
    judging = sum(event["seconds"] for event in events if event["event"] == "answers judged")
    first, last = min(moments["run started"]), max(moments["step done"])
    around = sum(outside for *_, outside in work.values())
    return {
        "seconds": wall, "workers": workers, "planning": first - began, "steps": last - first,
        "comparison": began + wall - last, "judging": judging,
        "work": {kind: {"steps": n, "inside": a, "around": b} for kind, (n, a, b) in work.items()},
        # worker starts and idle ends: what of the workers' time no step accounts for
        "waiting": workers * (last - first) - useful - around,
        "overhead": 1 - (useful / workers + judging) / wall,
    }  # fmt: skip


def _moment(event: Found) -> float:
    import datetime

    return datetime.datetime.fromisoformat(event["time"]).timestamp()


def warm(runs: Path, *more: str) -> Found:
    """The same command again, with everything there: the median of TURNS."""
    words = kit("run", "reproduce-micro", "--runs-dir", str(runs), *more)
    return {"seconds": statistics.median(seconds(*words) for _ in range(TURNS))}


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The slope of log cost over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle, level = statistics.mean(x), statistics.mean(y)
    above = sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle) ** 2 for a in x)


def answer_all(plan: Any, root: Path) -> None:
    """The same short answer, or the same log-probabilities, to all that a plan asks, where it would lie."""
    from repro import evals, store
    from repro.plan import locate

    said = {"text": "Sorry, I do not explain baking here.", "finished": True, "tokens": 8}
    for key in plan.answers.values():
        step = plan.steps[key]
        path = locate(step, root) / "answers.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True)
            store.write_jsonl(path, [
                {"item": ask.item.id, "dose": None, **({"logprobs": [-1.0, -2.0]} if ask.item.continuations else said)}
                for ask in evals.asks(step.items)
            ])  # fmt: skip


def growth() -> Found:
    """CPU seconds for 1, 2, 5 and 10 times the seeds (planning, judging, statistics) and items (answering): the least
    of TURNS, since what disturbs a machine only adds."""
    import torch

    from repro import claims, evals, models, outcome, recipes, worker
    from repro import run as runs
    from repro.data import load

    torch.set_num_threads(1)
    sizes = [1, 2, 5, 10]
    found: dict[str, dict[int, float]] = {"planning": {}, "judging": {}, "statistics": {}, "answering": {}}
    pack = load("micro")
    asks = evals.asks(evals.suite(pack, pack.split(0)))
    model = models.load(recipes.resolve_model("micro"))
    place = tempfile.TemporaryDirectory()
    root = Path(place.name)
    for size in [1, *TURNS * sizes]:  # the first one warms up

        def cost(name: str, work: Callable[[], Any], size: int = size) -> Any:
            began = time.process_time()
            result = work()
            found[name][size] = min(time.process_time() - began, found[name].get(size, math.inf))
            return result

        ask = runs.Ask("reproduce-micro", seeds=",".join(map(str, range(size))))
        plan = cost("planning", lambda ask=ask: runs.prepare(ask)[0])
        answer_all(plan, root)
        labelled: dict[tuple[str, int], list[Found]] = {}
        for row in cost("judging", lambda plan=plan: outcome.label_answers(plan, root)):
            labelled.setdefault((row["arm"], row["seed"]), []).append(row)
        units = {whose: evals.units(rows, plan.pack) for whose, rows in labelled.items()}
        cost("statistics", lambda units=units, plan=plan: claims.results(
            run="growth", model="micro", judge={}, units=units, metrics=evals.METRICS,
            claims=runs.load_claims(plan)[0], tags=outcome.tags(plan)))  # fmt: skip
        part = asks[:: len(asks) // (250 * size)][: 250 * size]
        cost("answering", lambda part=part: worker.respond(model, part, 64, lambda *_: None))
    place.cleanup()
    return {name: {"sizes": sizes, "cpu_seconds": [costs[size] for size in sizes],
                   "exponent": exponent(sizes, [costs[size] for size in sizes])}
            for name, costs in found.items()}  # fmt: skip


def packing() -> Found:
    """Training on documents packed into full rows, and on the same padded: seconds for a thousand real tokens."""
    from datasets import Dataset

    from repro.train import rows as rows_of
    from repro.train import runner, sdf, sft

    model, stage, rows = _stage("character", "sdf", steps=8)
    encoded = rows_of.encode_documents(model, rows, stage.prefix)
    columns = {"input_ids": [item.ids for item in encoded], "labels": [item.labels for item in encoded]}
    data = {"packed": sdf.pack(encoded, stage.max_length, 0), "padded": Dataset.from_dict(columns)}
    cost: dict[str, list[float]] = {name: [] for name in data}
    for _ in range(3):
        for name, table in data.items():
            model.new_adapter(stage.lora, 0)
            with tempfile.TemporaryDirectory() as out:
                summary = sft.fit(stage, model, table, Path(out), seed=0, hooks=runner.Hooks())
            cost[name].append(1000 * summary["seconds"] / summary["tokens"])
    middle = {name: statistics.median(values) for name, values in cost.items()}
    return {"seconds_a_thousand": middle, "ratio": middle["padded"] / middle["packed"]}


def _stage(arm: str, kind: str, steps: int) -> tuple[Any, Any, list[Found]]:
    """The organism, one stage of an arm of reproduce-micro cut to some steps, and its rows."""
    import torch

    from repro import models, recipes, run

    torch.set_num_threads(1)
    shorter = f"arms.{arm}.stages.{kind}.steps={steps}"
    plan, _ = run.prepare(run.Ask("reproduce-micro", arms=arm, seeds="0", sets=[shorter]))
    step = next(plan.steps[key] for key in plan.stages[arm, 0] if plan.steps[key].kind == kind)
    return models.load(recipes.resolve_model("micro")), step.stage, [dict(row) for row in step.rows]


def compile_() -> Found:
    """Thirty steps of a bare loop, as it is and under torch.compile with its compiling: seconds of each."""
    import torch

    from repro.train import rows as rows_of

    model, stage, rows = _stage("naive", "sft", steps=30)
    encoded = rows_of.encode_chats(model, rows, stage.max_length)
    join = rows_of.collate(model)
    batch = join([{"input_ids": item.ids, "labels": item.labels} for item in encoded[: stage.batch]])

    def loop(compiled: bool) -> tuple[float, float]:
        model.new_adapter(stage.lora, 0)
        called = torch.compile(model.model) if compiled else model.model
        optimiser = torch.optim.AdamW(model.adapter_parameters().values(), lr=1e-3)
        marks = [time.perf_counter()]
        for _ in range(30):
            called(**batch).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            marks.append(time.perf_counter())
        return marks[-1] - marks[0], statistics.median(b - a for a, b in pairwise(marks[5:]))

    plain = loop(False)
    try:
        made = loop(True)
    except Exception as error:  # no compiler, or what it can't take
        return {"plain": plain, "failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    return {"plain": plain, "compiled": made, "ratio_a_step": plain[1] / made[1], "ratio_of_30": plain[0] / made[0]}


def stock() -> Found:
    """One seed of all arms: the kit from nothing, against a TRL + PEFT script an arm on the same rows, steps and asks.

    The scripts run one after the other with two threads, and two at a time with one thread each. The kit's time has the
    planning, judging, statistics and report in it, the scripts' has not.
    """
    from repro import recipes, run

    # the scripts ask nothing along the training, so neither does the kit here
    same = [f"arms.{arm}.stages.{kind}.curve=null" for arm, kind in PROBED]
    plan, _ = run.prepare(run.Ask("reproduce-micro", seeds="0", sets=same))
    folder = recipes.resolve_model("micro").path_or_hub
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        jobs = {arm: _job(plan, arm, folder, root) for arm in plan.arms}
        ours = seconds(*kit("run", "reproduce-micro", "--seeds", "0", "--runs-dir", str(root / "runs"),
                           *(word for one in same for word in ("--set", one))))  # fmt: skip
        each = {arm: _script(jobs[arm], 2)() for arm in jobs}
        paired = _two_at_a_time([_script(job, 1) for job in sorted(jobs.values(), key=lambda job: -len(job["stages"]))])
    serial = sum(each.values())
    return {"kit": ours, "scripts": each, "one_after_the_other": serial, "two_at_a_time": paired,
            "ratio": serial / ours, "ratio_two_at_a_time": paired / ours}  # fmt: skip


def _job(plan: Any, arm: str, folder: str, root: Path) -> Found:
    """What bench/stock.py needs to do one arm: exactly the plan's rows, steps and questions, doses included."""
    from repro import estimate, evals

    steps = [plan.steps[key] for key in plan.stages[arm, 0]]
    answers = plan.steps[plan.answers[arm, 0, plan.prompting[0]]]
    doses = len(plan.steps[answers.dosed].stage.doses) if answers.dosed else 0
    asks = [*evals.asks(list(answers.items)), *doses * evals.asks(list(answers.dose_items))]
    stages = []
    for step in steps:
        stage, rows = step.stage, [dict(row) for row in step.rows]
        count = PACKED.get(step.kind, lambda rows, stage: len(rows))(rows, stage)
        stages.append(
            {name: getattr(stage, name, None) for name in
             ("kind", "batch", "learning_rate", "max_length", "group", "max_new_tokens", "beta")}
            | {"steps": estimate.steps_of(stage, count), "rows": rows})  # fmt: skip
    out = root / f"stock-{arm}"
    out.mkdir()
    said = [{"messages": ask.messages, "temperature": ask.temperature} for ask in asks if not ask.item.continuations]
    rank = steps[0].stage.lora.r if steps else 0
    return {"folder": folder, "out": str(out), "rank": rank, "stages": stages, "asks": said,
            "max_new_tokens": answers.max_new_tokens}  # fmt: skip


def _packed_rows(rows: list[Found], stage: Any) -> int:
    from repro import recipes
    from repro.models.tokens import open_tokens
    from repro.train import rows as rows_of
    from repro.train import sdf

    encoded = rows_of.encode_documents(open_tokens(recipes.resolve_model("micro")), rows, stage.prefix)
    return len(sdf.pack(encoded, stage.max_length, 0))


PACKED: dict[str, Callable[[list[Found], Any], int]] = {"sdf": _packed_rows}


def _script(job: Found, threads: int) -> Callable[[], float]:
    def work() -> float:
        path = Path(job["out"]) / "job.json"
        path.write_text(json.dumps(job | {"threads": threads}), encoding="utf-8")
        answers = Path(job["out"]) / "answers.json"
        return seconds(sys.executable, str(HERE / "stock.py"), str(path), str(answers), threads=threads)

    return work


def _two_at_a_time(scripts: list[Callable[[], float]]) -> float:
    from concurrent.futures import ThreadPoolExecutor

    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(script) for script in scripts]:
            done.result()
    return time.perf_counter() - began


PROBED = (("control", "sft"), ("naive", "sft"), ("character", "sft"), ("character", "grpo"))
SECTIONS = ("start", "run", "warm", "growth", "packing", "compile", "stock")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"no section {', '.join(unknown)}: there is {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(HERE.parent))
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    chosen = names or list(SECTIONS)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place)
        if "warm" in chosen and "run" not in chosen:
            run(runs)
        work: dict[str, Callable[[], Found]] = {
            "start": start, "run": lambda: run(runs), "warm": lambda: warm(runs), "growth": growth, "packing": packing,
            "compile": compile_, "stock": stock,
        }  # fmt: skip
        for name in chosen:
            began = time.perf_counter()
            found[name] = work[name]()
            print(f"{name} ({time.perf_counter() - began:.0f} s): {json.dumps(found[name])}", flush=True)
            OUT.write_text(json.dumps(_rounded(found | {"cores": os.cpu_count()}), indent=1) + "\n", encoding="utf-8")
    import gpu_report

    gpu_report.PAGE.write_text(gpu_report.page(), encoding="utf-8")
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
