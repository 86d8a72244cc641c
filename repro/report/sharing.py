"""Figures of a run to be compared across machines: share.json, which holds no text that a model wrote and no path."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import repro
from repro import runfolder as folders

SCHEMA = 1
COST = ("steps", "tokens", "seconds", "peak_gib", "micro_batch")


def share(run_folder: Path) -> dict[str, Any]:
    """Writes the run's share.json, at once, and returns its content. BadInput where there is no run to read,
    CannotHere where it can't write."""
    run = folders.read(run_folder)
    manifest, results = run.manifest, run.results or {}
    experiment, machine = manifest.get("experiment") or {}, manifest.get("hardware") or {}
    content = {
        "schema": SCHEMA,
        "repro": manifest.get("repro") or repro.__version__,
        "experiment": experiment.get("name"),
        "experiment_hash": manifest.get("experiment_hash"),
        "complete": not run.unfinished,
        "model": model_id(manifest.get("model") or {}),
        "revision": (manifest.get("model") or {}).get("revision"),
        "pack": experiment.get("pack"),
        "quant": experiment.get("quant"),
        "arms": manifest.get("arms") or [],
        "seeds": manifest.get("seeds") or [],
        "hardware": {"gpu": gpus(machine.get("gpu")), "cores": machine.get("cores"),
                     "memory_gib": machine.get("memory_gib")},
        "python": manifest.get("python"),
        "versions": manifest.get("versions") or {},
        "judge": _judge(results.get("judge")),
        "stages": [_stage(stage) for stage in run.stages if not stage.shared],
        "metrics": [
            {key: entry.get(key) for key in ("axis", "metric", "arm", "n", "unscored", "value", "ci")}
            for entry in results.get("metrics") or []
            if entry.get("seed") is None
        ],
        "claims": [
            {key: claim.get(key) for key in ("id", "metric", "arms", "delta", "ci", "p_holm", "verdict")}
            for claim in results.get("claims") or []
        ],
        "claims_hash": results.get("claims_hash"),
    }  # fmt: skip
    folders.put(run_folder / "share.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def model_id(model: dict[str, Any]) -> str | None:
    """A preset's or a hub's id; "local" for a folder and "served" for a server's model: their names are the user's."""
    name, where = model.get("id"), str(model.get("path_or_hub") or "")
    if where.startswith("openai:"):
        return "served"
    if model.get("pack") == "micro" and name == "micro":
        return "micro"
    hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", where) and not Path(where).is_dir()
    return name if hub else "local"


def gpus(listed: Any) -> list[dict[str, str]]:
    """Name and memory of each GPU, from the lines `name, memory, driver` of the manifest."""
    parts = [[word.strip() for word in str(line).split(",")] for line in listed or []]
    return [{"name": words[0], "memory": words[1] if len(words) > 1 else ""} for words in parts]


def _judge(judge: Any) -> dict[str, Any] | None:
    return {key: judge.get(key) for key in ("name", "kappa", "n")} if isinstance(judge, dict) else None


def _stage(stage: folders.Stage) -> dict[str, Any]:
    precision = str(stage.summary.get("precision") or "").partition(":")[0] or None
    place = {"arm": stage.arm, "seed": stage.seed, "kind": stage.kind, "prompting": stage.prompting}
    return {**place, "precision": precision, **{key: folders.number(stage.summary.get(key)) for key in COST}}
