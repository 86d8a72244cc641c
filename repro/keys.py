"""What a step's content key is made of: exactly what its outcome depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from repro import evals, store
from repro.data import sources
from repro.errors import BadInput
from repro.schema import Experiment, ModelSpec

CODE_VERSION = "2"  # raise it when training or answering changes what it does: older stages are then made again


def experiment_hash(experiment: Experiment) -> str:
    """sha256 of the resolved experiment without its seeds and prompting strategies: more of them go into the same run
    folder. Nor does it depend on what only the comparison reads."""
    content = experiment.model_dump(mode="json", by_alias=True)
    del content["seeds"]
    for key in ("claims", "description", "needs", "fallback"):
        del content[key]
    del content["evaluation"]["prompting"]
    return store.hash_value(content)


def base_fingerprint(spec: ModelSpec) -> str:
    """What identifies the base: sha256 over a local folder's files, or a hub id with its commit."""
    folder = local_folder(spec)
    if spec.path_or_hub.startswith("openai:"):
        return spec.path_or_hub
    if folder is None:
        return f"{spec.path_or_hub}@{sources.hub_revision(spec.path_or_hub, spec.revision)}"
    suffixes = (".safetensors", ".json", ".jinja", ".model", ".txt")
    files = sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise BadInput(f"model {spec.id}: {spec.path_or_hub} holds no safetensors")
    return store.hash_rows([path.name, store.hash_file(path)] for path in files)


def local_folder(spec: ModelSpec) -> Path | None:
    """The model's folder where it is one on this disk; None for a hub id."""
    folder = Path(spec.path_or_hub).expanduser()
    return folder if folder.is_dir() else None


def template_of(spec: ModelSpec) -> dict[str, Any]:
    """What of a model's preset changes what is trained or asked."""
    return {"targets": spec.targets, "system": spec.system}


def stage_inputs(
    base: str, quant: str, spec: ModelSpec, seed: int, index: int, stage: Any, rows: Sequence[str],
    upstream: str | None, start: str | None,
) -> dict[str, Any]:
    """The inputs of a training stage; `rows` are the hashes of its sources' rows, the rest as in `plan.Step`."""
    return {
        "code": CODE_VERSION, "base": base, "quant": quant, "seed": seed, "index": index, "model": template_of(spec),
        "stage": stage.model_dump(mode="json", exclude={"data", "prompts"}), "rows": list(rows), "upstream": upstream,
        "start": start,
    }  # fmt: skip


def answers_inputs(
    base: str, quant: str, spec: ModelSpec, seed: int, arm: str, upstream: str | None, dosed: str | None, most: int,
    prompting: str, items: Sequence[evals.Item], doses: Sequence[evals.Item],
) -> dict[str, Any]:
    """The inputs of an arm's answers; `doses` are the items that the kept doses are asked, where there are any."""
    return {
        "code": CODE_VERSION, "base": base, "quant": quant, "seed": seed, "arm": arm, "model": template_of(spec),
        "upstream": upstream, "dosed": dosed, "max_new_tokens": most, "prompting": prompting,
        "items": asked_hash(items), "doses": asked_hash(doses) if dosed else None,
    }  # fmt: skip


def asked_hash(items: Iterable[evals.Item]) -> str:
    """Hash of what a model is shown; how answers are labelled is no part of it: labels are made anew."""
    return store.hash_rows(
        [ask.item.id, ask.sample, ask.messages, ask.temperature, ask.seed, list(ask.item.continuations)]
        for ask in evals.asks(list(items))
    )
