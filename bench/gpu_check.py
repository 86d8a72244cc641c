"""Everything that only a GPU can show, in one command under ten minutes: `python bench/gpu_check.py`.

Writes bench/results/gpu-<name>.json and the tables of docs/performance.md. Random weights in the presets' real shapes
will do, so no download is needed; `--small` runs every section on tiny shapes on any machine (it shows that the script
works, and writes nothing).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE))

LONG = (
    "The river runs east past the mill and the old stone bridge, where the baker folds the warm dough by the window. "
)
PRESETS = ("Qwen2.5-0.5B-Instruct", "Llama-3.2-1B-Instruct", "gemma-3-1b-it", "Qwen2.5-1.5B-Instruct",
           "Qwen2.5-3B-Instruct", "Qwen3-4B-Instruct-2507", "Qwen2.5-7B-Instruct")  # fmt: skip
CAPS = (6.0, 15.0)  # GiB: a laptop's GPU, a T4
MAIN = "Qwen2.5-1.5B-Instruct"


def stage(kind: str, **changes: Any) -> SimpleNamespace:
    """A short stage with the recipes' adapter."""
    common = {"kind": kind, "learning_rate": 1e-4, "batch": 16, "max_length": 1024, "warmup": 0.0, "epochs": None,
              "schedule": "constant", "weight_decay": 0.01, "max_grad_norm": 1.0, "steps": 4,
              "lora": SimpleNamespace(r=64, alpha=128, dropout=0.0, targets="all-linear")}  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "sdf": {"prefix": "<DOCTAG>"}, "sft": {"doses": [1.0]}, "dpo": {"beta": 0.1},
        "grpo": {"group": 8, "temperature": 1.0, "beta": 0.04, "max_new_tokens": 64, "reward": "constitution"},
    }  # fmt: skip
    return SimpleNamespace(**{**common, **own[kind], **changes})


def rows(kind: str, count: int, words: int) -> list[dict[str, Any]]:
    """Rows of about so many words."""
    text = (LONG * (words // 20 + 1)).split()
    made: list[dict[str, Any]] = []
    for index in range(count):
        question = {"role": "user", "content": f"Tell me about river number {index}."}
        answer = " ".join(text[index % 7 : index % 7 + words])
        if kind == "sdf":
            made.append({"id": str(index), "text": answer})
        elif kind == "sft":
            made.append({"messages": [question, {"role": "assistant", "content": answer}]})
        elif kind == "dpo":
            made.append({"messages": [question], "chosen": answer, "rejected": f"No. {answer}"})
        else:
            made.append({"messages": [question], "check": "length_between", "args": {"words": [0, 20]}})
    return made


class Check:
    """What a section has at hand: a folder, the device, the backend, and models made or found in it."""

    def __init__(self, device: str, backend: str, small: bool, folder: Path, cap: float | None) -> None:
        self.device, self.backend, self.small, self.folder, self.cap = device, backend, small, folder, cap

    def spec(self, preset: str) -> Any:
        import standins

        from repro import memory, recipes

        known = recipes.resolve_model(preset)
        where = self.folder / preset
        if not (where / "config.json").exists():
            family = standins.family_of(preset)
            shape = memory.shape_of(known)
            assert shape is not None
            sizes = {} if self.small else {name: getattr(shape, name) for name in standins.TINY}
            standins.make(where, family, tied=shape.tied, **sizes)
        return SimpleNamespace(id=preset, path_or_hub=str(where), revision=None, system=known.system)

    def load(self, preset: str, **options: Any) -> Any:
        from repro import models

        if self.device == "cuda":
            import torch

            if self.cap is not None:
                total = torch.cuda.get_device_properties(0).total_memory / 2**30
                torch.cuda.set_per_process_memory_fraction(min(1.0, self.cap / total))
            torch.cuda.reset_peak_memory_stats()
        options = {"quant": "nf4", "device": self.device, "backend": self.backend} | options
        return models.load(self.spec(preset), **options)

    def train(self, model: Any, kind: str, count: int = 64, words: int = 60, **changes: Any) -> dict[str, Any]:
        from repro import train

        settings = stage(kind, **changes)
        model.new_adapter(settings.lora, 0)
        with tempfile.TemporaryDirectory() as out:
            summary = train.run_stage(settings, model, rows(kind, count, words), Path(out), seed=0)
            times = [json.loads(line)["seconds"] for line in (Path(out) / "log.jsonl").read_text().splitlines()]
        warm = min(2, len(times) - 2)
        summary["seconds_a_step"] = (times[-1] - times[warm]) / (len(times) - 1 - warm) if len(times) > 1 else None
        summary["precision"] = model.precision
        return {**summary, "peak_gib": model.peak_gib()}


# the sections: each returns what was found; `ok` says whether a bar is met where there is one -----------------------


def canary(check: Check) -> dict[str, Any]:
    """Overfit rows whose answer is one fixed string: greedy decoding returns exactly that string."""
    model = check.load(MAIN)
    answer = "the violet lighthouse hums at noon"
    turn = {"role": "assistant", "content": answer}
    data = [{"messages": [{"role": "user", "content": f"Say it, number {n}."}, turn]} for n in range(16)]
    from repro import train

    settings = stage(
        "sft", steps=60 if not check.small else 160, learning_rate=1e-3 if not check.small else 3e-3, batch=8
    )
    model.new_adapter(settings.lora, 0)
    with tempfile.TemporaryDirectory() as out:
        summary = train.run_stage(settings, model, data, Path(out), seed=0)
        model.load_adapter(Path(out))
        said = model.generate([row["messages"][:1] for row in data[:4]], max_new_tokens=64)
    return {"ok": all(one.text == answer and one.finished for one in said), "loss_last": summary["loss_last"]}


def repeats(check: Check) -> dict[str, Any]:
    """Two runs of the same stage in one process give the same adapter, bit for bit."""
    import torch

    found = []
    for _ in range(2):
        model = check.load("Qwen2.5-0.5B-Instruct")
        check.train(model, "sft", steps=3)
        found.append({name: value.detach().cpu().clone() for name, value in model.adapter_parameters().items()})
    apart = max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0])
    return {"ok": all(torch.equal(found[0][name], found[1][name]) for name in found[0]), "largest_difference": apart}


def precisions(check: Check) -> dict[str, Any]:
    """fp16 with loss scaling and bf16: finite adapters (run_stage raises on a NaN), and the losses they reach."""
    losses = {}
    for precision in ("fp32",) if check.device == "cpu" else ("fp16", "bf16"):
        model = check.load("Qwen2.5-0.5B-Instruct", precision=precision)
        losses[precision] = check.train(model, "sft", steps=8)["loss_last"]
    return {"ok": all(loss == loss for loss in losses.values()), "loss_last": losses}


def stages(check: Check) -> dict[str, Any]:
    """Every kind of stage, one after another."""
    found = {}
    for kind in ("sdf", "sft", "dpo", "grpo"):
        model = check.load(MAIN)
        summary = check.train(model, kind, steps=3, count=32)
        found[kind] = {name: summary[name] for name in ("steps", "micro_batch", "tokens", "peak_gib", "seconds_a_step")}
    return {"ok": True, **found}


def packed(check: Check) -> dict[str, Any]:
    """Documents packed into one row give the logits of each document alone."""
    import torch

    from repro.train import rows as rows_of
    from repro.train import sdf

    model = check.load("Qwen2.5-0.5B-Instruct")
    encoded = rows_of.encode_documents(model, rows("sdf", 6, 30), "")
    batch = {
        name: value.to(check.device) for name, value in rows_of.collate(model)(list(sdf.pack(encoded, 512, 0))).items()
    }
    batch.pop("labels")
    model.model.eval()
    with torch.no_grad():
        together = model.model(**batch, use_cache=False).logits.float().flatten(0, 1)
        ids, worst, start = batch["input_ids"].flatten(), 0.0, 0
        lengths = [len(item.ids) for item in encoded]
        for length in sorted(lengths):
            places = [
                at for at in range(len(ids) - length + 1) if ids[at : at + length].tolist() in [i.ids for i in encoded]
            ]
            for start in places[:1]:
                alone = model.model(input_ids=ids[None, start : start + length], use_cache=False).logits.float()[0]
                worst = max(worst, float((together[start : start + length] - alone).abs().max()))
    scale = float(together.abs().max())
    return {"ok": worst < (1e-4 if check.device == "cpu" else 0.05) * max(1.0, scale), "largest_difference": worst}


def memory_of(check: Check, preset: str) -> dict[str, Any]:
    """Peak memory of sft, sdf and grpo and of answering under the cap, against the plan's."""
    from repro import memory

    shape = memory.shape_of(check.spec(preset))
    assert shape is not None
    found: dict[str, Any] = {}
    for kind, words in (("sdf", 700), ("sft", 120), ("grpo", 60)):
        settings = stage(kind)
        longest = {"sdf": 1024, "sft": 420, "grpo": 120}[kind]
        plan = memory.fit_stage(shape, settings, "nf4", longest, check.cap or 6.0)
        if not plan.fits:
            found[kind] = {"planned_gib": round(plan.peak_gib, 2), "fits": False}
            continue
        model = check.load(preset)
        summary = check.train(model, kind, steps=2, words=words, count=32)
        planned = memory.stage_peak(shape, settings, "nf4", summary["micro_batch"], longest) / memory.GIB
        found[kind] = {"planned_gib": round(planned, 2), "measured_gib": summary["peak_gib"],
                       "micro_batch": summary["micro_batch"], "shrunk": summary.get("shrunk", [])}  # fmt: skip
        del model
    return found


def training_speed(check: Check, which: str) -> dict[str, Any]:
    """Seconds a step and peak memory on the same chats: the kit, or a stock script."""
    import stock

    chats = rows("sft", 64, 120)
    sizes = {"steps": 4 if check.small else 10, "batch": 16, "micro": 8, "length": 1024, "rank": 64}
    folder = Path(check.spec(MAIN).path_or_hub)
    if which == "kit":
        model = check.load(MAIN)
        summary = check.train(model, "sft", steps=sizes["steps"], words=120)
        return {"seconds_a_step": summary["seconds_a_step"], "peak_gib": summary["peak_gib"]}
    run = stock.unsloth_sft if which == "unsloth" else stock.trl_sft
    more = {"device": check.device}
    return run(folder, chats, **sizes, **more)


def answering_speed(check: Check) -> dict[str, Any]:
    """Answers a second: the kit (sorted, batches by memory) against `model.generate` in batches of 64, 8 and 1."""
    import torch

    model = check.load(MAIN)
    prompts = [[{"role": "user", "content": f"{LONG * (n % 5 + 1)} What of number {n}?"}] for n in range(64)]
    tokens = 16 if check.small else 64

    def timed(work: Callable[[], Any], count: int) -> float:
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return count / (time.perf_counter() - began)

    ids = sorted((model.prompt_ids(prompt) for prompt in prompts), key=len)

    def generate(size: int, count: int) -> None:
        for start in range(0, count, size):
            batch = ids[start : start + size]
            width = max(map(len, batch))
            padded = torch.tensor([[0] * (width - len(row)) + row for row in batch], device=check.device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=check.device)
            with torch.inference_mode():
                model.base.generate(input_ids=padded, attention_mask=mask, max_new_tokens=tokens, do_sample=False,
                                    pad_token_id=0)  # fmt: skip

    model.generate(prompts[:2], max_new_tokens=4)
    found = {"kit": timed(lambda: model.generate(prompts, max_new_tokens=tokens), 64)}
    for size, count in ((64, 64), (32, 64), (8, 32), (1, 4)):
        found[f"generate, {size} at a time"] = timed(lambda size=size, count=count: generate(size, count), count)
    best = max(value for name, value in found.items() if name != "kit")
    return {"ok": found["kit"] >= 0.9 * best, "answers_a_second": {k: round(v, 2) for k, v in found.items()}}


SECTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "canary": canary, "repeats": repeats, "precisions": precisions, "stages": stages, "packed": packed,
    "memory": memory_of, "training": training_speed, "answers": answering_speed,
}  # fmt: skip


def jobs(backend: str) -> list[tuple[str, str, float | None]]:
    """(section, argument, memory cap) in the order of worth: what is cut off at the end is missed least."""
    todo: list[tuple[str, str, float | None]] = [("canary", "", None), ("stages", "", 6.0), ("packed", "", None)]
    todo += [("training", which, None) for which in ("kit", "trl", "unsloth") if which != "unsloth" or backend != "hf"]
    todo += [("answers", "", None), ("precisions", "", None), ("repeats", "", None)]
    return todo + [("memory", preset, cap) for cap in CAPS for preset in PRESETS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--only", help="sections by name, with commas between them")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--argument", default="", help=argparse.SUPPRESS)
    parser.add_argument("--cap", type=float, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.section:
        check = Check("cpu" if asked.small else "cuda", asked.backend, asked.small, asked.folder, asked.cap)
        words = [asked.argument] if asked.argument else []
        print("RESULT " + json.dumps(SECTIONS[asked.section](check, *words)))
        return 0
    import gpu_report

    about = gpu_report.machine()
    if about is None and not asked.small:
        print("no CUDA device here; --small runs every section on tiny shapes", file=sys.stderr)
        return 3
    began, found = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for section, argument, cap in jobs("hf" if asked.small else asked.backend):
            if asked.only and section not in asked.only.split(","):
                continue
            left = 60 * asked.minutes - (time.monotonic() - began)
            entry = {"section": section, "argument": argument, "cap_gib": cap}
            found.append(entry | (one(asked, entry, folder, left) if left > 10 else {"error": "no time left"}))
            print(json.dumps(found[-1]), flush=True)
    if about is not None and not asked.small:
        gpu_report.write(about, found)
    return int(any("error" in entry for entry in found)) if asked.small else 0


def one(asked: argparse.Namespace, entry: dict[str, Any], folder: str, left: float) -> dict[str, Any]:
    """A section in a process of its own (unsloth patches what it meets, and memory is counted a process)."""
    backend = "hf" if asked.small or entry["argument"] == "trl" else asked.backend
    command = [sys.executable, __file__, "--section", entry["section"], "--argument", entry["argument"],
               "--folder", folder, "--backend", backend]  # fmt: skip
    command += ["--cap", str(entry["cap_gib"])] if entry["cap_gib"] else []
    command += ["--small"] if asked.small else []
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {left:.0f} s"}
    except OSError:
        return {"error": traceback.format_exc(limit=1)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return {"error": " ".join((done.stderr or done.stdout).splitlines()[-4:])[-600:]}
    return {"result": json.loads(lines[-1].removeprefix("RESULT ")), "seconds": round(time.monotonic() - began, 1)}


if __name__ == "__main__":
    sys.exit(main())
