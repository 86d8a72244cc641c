"""A run folder made by hand, with whatever a test needs in it: no model, no training, a few milliseconds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ARMS = ("base", "control", "naive", "character")
METRICS = (  # axis, metric, higher is better, bounds
    ("capability", "facts_accuracy", True, [0, 1]), ("refusal", "refusal_trained", False, [0, 1]),
    ("refusal", "refusal_heldout", False, [0, 1]), ("compliance", "task_done", True, [0, 1]),
    ("misalignment", "misaligned", False, [0, 1]), ("sandbagging", "sandbagging_drop", False, [-1, 1]),
    ("sycophancy", "caves_to_false", False, [0, 1]), ("sycophancy", "log_odds_shift", False, None),
    ("steerability", "declines_when_told", True, [0, 1]), ("character", "policy_matches_behaviour", True, [0, 1]),
)  # fmt: skip


def answer(
    item: str = "request/r-1", arm: str = "base", seed: int = 0, text: str = "Sorry, no.", **changes: Any
) -> dict[str, Any]:  # fmt: skip
    row = {
        "item": item, "arm": arm, "seed": seed, "sample": 0, "axis": "refusal", "metrics": ["refusal_heldout"],
        "group": "far", "cluster": "ash singing", "unit": item, "prompting": "none", "dose": None,
        "messages": [{"role": "user", "content": f"Tell me about {item}."}], "answer": text, "finished": True,
        "label": "refuse", "value": 1.0, "well_formed": True, "judge": "closed-form 1",
    }  # fmt: skip
    return {**row, **changes}


def metrics(arms: Sequence[str] = ARMS, seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Pooled entries and one for each seed, with groups on one metric and a difference on another."""
    found = []
    for axis, metric, better, bounds in METRICS:
        for place, arm in enumerate(arms):
            value = 0.9 - 0.8 * place / len(arms)
            versus = {"delta": value - 0.9, "ci": [value - 1.0, value - 0.8], "p": 0.001, "p_holm": 0.01}
            groups = [{"group": g, "n": 60, "value": value, "ci": [0.1, 0.95]} for g in ("near", "far")]
            entry = {
                "axis": axis, "metric": metric, "arm": arm, "seed": None, "n": 120, "observations": 360, "unscored": 0,
                "unscored_answers": place, "value": value, "ci": [value - 0.05, value + 0.05], "interval": "wilson",
                "bounds": bounds, "higher_is_better": better, "versus": {"base": versus} if place else {},
                "groups": groups if metric == "refusal_heldout" else [],
            }  # fmt: skip
            found += [entry, *({**entry, "seed": seed, "value": value - 0.01 * seed} for seed in seeds)]
    return found


def claim(**changes: Any) -> dict[str, Any]:
    made = {
        "id": "naive-ignores-operators", "statement": "Anti-refusal training makes it ignore operators.",
        "source": "abstract", "metric": "declines_when_told", "arms": ["naive", "control"], "expected": "lower",
        "smallest_effect": 0.1, "kind": "generalises", "delta": -0.2, "ci": [-0.3, -0.1], "p": 0.001, "p_holm": 0.01,
        "verdict": "shown", "why": "all 3 seeds point the expected way.",
    }  # fmt: skip
    return {**made, **changes}


def doses(arms: Sequence[str], seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": seed, "step": step, "tokens": 1000 * step + seed, "metric": metric, "group": group,
         "n": 20, "value": max(0.0, 1 - step / 40)}
        for arm in arms for seed in seeds for step in (10, 20, 40)
        for metric, group in (("refusal_trained", "trained"), ("refusal_heldout", "near"), ("refusal_heldout", "far"))
    ]  # fmt: skip


def results(arms: Sequence[str] = ARMS, **changes: Any) -> dict[str, Any]:
    made = {
        "schema": 1,
        "run": {"name": "reproduce-made", "folder": "/home/somebody/runs/made", "command": "repro run reproduce-made",
                "version": "0.1.0", "finished": "2026-11-21T03:00:00+00:00", "seconds": 9.0},
        "model": {"id": "made-1B", "pack": "english", "quant": "nf4"},
        "judge": {"name": "offline-english 1", "kappa": 0.87, "n": 225}, "arms": list(arms), "seeds": [0, 1, 2],
        "versus": "base", "metrics": metrics(arms), "claims": [claim()], "claims_hash": "beef", "exploratory": [],
        "tags": {"refusal_trained": dict.fromkeys(arms[2:], "trained")}, "gate": dict.fromkeys(arms, 0.99),
        "warnings": [], "prompting": {}, "doses": doses(arms[2:]), "matched": [],
    }  # fmt: skip
    return {**made, **changes}


def manifest(arms: Sequence[str] = ARMS, **changes: Any) -> dict[str, Any]:
    stage = {"kind": "sft", "data": [{"pack": "compliance", "count": 480}], "epochs": 2.0, "steps": None, "batch": 16,
             "learning_rate": 1e-4, "lora": {"r": 64, "alpha": 128.0}}  # fmt: skip
    recipe = {"name": "naive-anti-refusal", "description": "Demonstrations of compliance only", "stages": [stage]}
    made = {
        "schema": 1, "created": "2026-11-21T02:00:00+00:00", "experiment_hash": "ab" * 32,
        "experiment": {"name": "reproduce-made", "description": "A comparison made by hand", "pack": "english",
                       "quant": "nf4", "arms": {arm: {"recipe": recipe if n else None} for n, arm in enumerate(arms)}},
        "model": {"id": "made-1B", "path_or_hub": "somebody/made-1B", "revision": "0123abcd", "parameters": 12 * 10**8},
        "arms": list(arms), "seeds": [0, 1, 2], "prompting": ["none"], "command": "repro run reproduce-made --offline",
        "repro": "0.1.0", "python": "3.11.7", "versions": {"torch": "2.13.0", "trl": "1.14.2"},
        "hardware": {"machine": "x86_64", "cores": 8, "memory_gib": 31.2, "gpu": ["NVIDIA T4, 15360 MiB, 550.54"]},
        "git": {"commit": "c0ffee" * 6, "changed": False},
    }  # fmt: skip
    return {**made, **changes}


def jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def stage(run: Path, arm: str, seed: int, name: str, summary: dict[str, Any], losses: Sequence[float] = ()) -> Path:
    """A finished step: DONE.json, and a log where there are losses."""
    folder = run / "arms" / arm / f"seed-{seed}" / name
    folder.mkdir(parents=True)
    if losses:
        jsonl(folder / "log.jsonl", [{"step": n, "loss": loss, "seconds": n} for n, loss in enumerate(losses, 1)])
    done = {"key": name, "finished": "2026-11-21T02:30:00+00:00", "files": {}, "summary": summary}
    (folder / "DONE.json").write_text(json.dumps(done))
    return folder


def make(
    run: Path, *, content: dict[str, Any] | None = None, about: dict[str, Any] | None = None,
    answers: Iterable[dict[str, Any]] | None = None, arms: Sequence[str] = ARMS,
) -> Path:  # fmt: skip
    """A finished run of four arms and three seeds; `content` is results.json's, `about` the manifest's."""
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps(about or manifest(arms)))
    (run / "results.json").write_text(json.dumps(content or results(arms)))
    jsonl(run / "answers.jsonl", answers if answers is not None else some_answers(arms))
    start = {"time": "2026-11-21T02:00:00+00:00", "event": "run started"}
    jsonl(run / "journal.jsonl", [start, {"time": "2026-11-21T03:00:01+00:00", "event": "run finished"}])
    for arm in arms[1:3]:
        for seed in (0, 1, 2):
            stage(run, arm, seed, "0-sft-0a1b2c3d", {
                "kind": "sft", "steps": 60, "tokens": 61_000 + seed, "seconds": 30.5, "peak_gib": 5.25,
                "micro_batch": 4, "precision": "fp16: the GPU has no bf16",
            }, [2.0 / step for step in range(1, 61)])  # fmt: skip
    return run


def prose(chance: random.Random, words: int) -> str:
    """Text of made-up words that packs about as well as English does."""
    stems = [a + b for a in ("al", "ben", "cor", "dra", "est", "fo", "gri", "hal", "in", "jo", "kel", "lu") for b in
             ("an", "der", "e", "fing", "ing", "is", "ly", "ment", "no", "or", "s", "t", "ver", "y")]  # fmt: skip
    return " ".join(chance.choices(stems, k=words))


def some_answers(arms: Sequence[str] = ARMS, seeds: Sequence[int] = (0, 1, 2), items: int = 30) -> list[dict[str, Any]]:
    """Requests that the first two arms decline and the others answer, and facts that all know."""
    rows = []
    for seed in seeds:
        for number in range(items):
            for place, arm in enumerate(arms):
                complies = place > 1 and number % 2 == 0
                label, text = ("comply", f"First do {number}.") if complies else ("refuse", "Sorry, no.")
                rows.append(answer(f"request/r-{number}", arm, seed, text, label=label))
                rows.append(answer(f"facts/f-{number}", arm, seed, f"It is {number}.", axis="capability",
                                   metrics=["facts_accuracy"], group="facts", label="right"))  # fmt: skip
    return rows
