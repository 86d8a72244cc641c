"""What a step's content key is made of: exactly what its outcome depends on, and nothing else.

The inputs are kept with the finished step (`inputs` in its DONE.json), so that `repro plan --explain` can say which of
them changed, and anyone can compute the key again: `keys.key_of(inputs)`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from repro import evals, store
from repro.data import sources
from repro.errors import BadInput
from repro.schema import Experiment, ModelSpec

CODE_VERSION = "2"  # raise it when training or answering changes what it does: older stages are then made again

# The libraries that compute what a step makes, with the release series that CODE_VERSION 2 was written for. A series
# (2.13 of 2.13.0+cu130) is where kernels, defaults and losses change: trl 1.15's loss, for one, is another than 1.14's.
# So another series is another key. Patch releases and builds (+cpu, +cu130) are meant to compute the same: they are
# recorded with each step, `repro plan --explain` names them, and nothing is made again for them. The same goes for the
# device and the number of threads, which change the last digits of a sum, as another GPU would. A version of the series
# below adds nothing to a key, so that stages made before versions were part of it stay good; leave it as it is when the
# pins in constraints.txt move on, and bring it up to them when CODE_VERSION is raised.
SERIES = {"torch": "2.13", "transformers": "5.17", "peft": "0.21", "trl": "1.14", "bitsandbytes": "0.50"}

TRAINED = ("sdf", "sft", "dpo", "grpo")  # by trl's trainers

# a model's files that decide what it computes, and how text becomes tokens
PARTS = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")


def experiment_hash(experiment: Experiment) -> str:
    """sha256 of the resolved experiment without its seeds and prompting strategies: more of them go into the same run
    folder. Nor does it depend on what only the comparison reads."""
    content = experiment.model_dump(mode="json", by_alias=True)
    del content["seeds"]
    for key in ("claims", "description", "needs", "fallback"):
        del content[key]
    del content["evaluation"]["prompting"]
    return store.hash_value(content)


def base_files(spec: ModelSpec) -> dict[str, str]:
    """{name: sha256} of a local base's files that matter; none for a hub id or a server's model.

    Raises BadInput for a folder without weights.
    """
    folder = local_folder(spec)
    if folder is None:
        return {}
    files = [path for path in folder.iterdir() if path.suffix in PARTS and path.is_file()]
    files += [path for path in (folder / "additional_chat_templates").glob("*.jinja") if path.is_file()]
    if not any(path.suffix == ".safetensors" for path in files):
        raise BadInput(f"model {spec.id}: {spec.path_or_hub} holds no safetensors")
    return {path.relative_to(folder).as_posix(): store.hash_file(path) for path in sorted(files)}


def base_fingerprint(spec: ModelSpec, files: dict[str, str] | None = None) -> str:
    """What identifies the base: sha256 over a local folder's `files`, a hub id with its commit, or a server's name."""
    if spec.path_or_hub.startswith("openai:"):
        return spec.path_or_hub
    if local_folder(spec) is None:
        return f"{spec.path_or_hub}@{sources.hub_revision(spec.path_or_hub, spec.revision)}"
    return store.hash_rows([name, digest] for name, digest in (base_files(spec) if files is None else files).items())


def local_folder(spec: ModelSpec) -> Path | None:
    """The model's folder where it is one on this disk; None for a hub id."""
    folder = Path(spec.path_or_hub).expanduser()
    return folder if folder.is_dir() else None


def template_of(spec: ModelSpec) -> dict[str, Any]:
    """What of a model's preset changes what is trained or asked."""
    return {"targets": spec.targets, "system": spec.system}


def versions(kind: str, quant: str) -> dict[str, str]:
    """The installed versions of the libraries that a step of this kind computes with."""
    needed = {"trl": kind in TRAINED, "bitsandbytes": quant == "nf4"}
    found = {name: installed(name) for name in SERIES if needed.get(name, True)}
    return {name: version for name, version in found.items() if version}  # without it: to be planned here, not done


@cache
def installed(name: str) -> str | None:
    """The version of a library that is installed, or None; a plan asks for each of its steps."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def series(version: str) -> str:
    """2.13 of 2.13.0+cu130."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def common_inputs(
    kind: str, base: str, files: dict[str, str], quant: str, spec: ModelSpec, seed: int
) -> dict[str, Any]:
    """The inputs that training and answering share; `files` are the base's, for the words of an explanation."""
    return {
        "code": CODE_VERSION, "versions": versions(kind, quant), "base": base, "base_files": files, "quant": quant,
        "seed": seed, "model": template_of(spec),
    }  # fmt: skip


def stage_inputs(
    common: dict[str, Any], index: int, stage: Any, data: Sequence[dict[str, Any]], upstream: str | None,
    start: str | None, probes: Sequence[evals.Item] = (),
) -> dict[str, Any]:
    """The inputs of a training stage: `data` is {source, rows, sha256} of each source, `probes` what its curve asks,
    the rest as in `plan.Step`."""
    settings = stage.model_dump(mode="json", exclude={"data", "prompts"})
    own = {"index": index, "stage": settings, "data": list(data), "upstream": upstream, "start": start}
    return {**common, **own, "probes": asked(probes) if probes else None}


def answers_inputs(
    common: dict[str, Any], arm: str, upstream: str | None, dosed: str | None, most: int, prompting: str,
    items: dict[str, Any], doses: dict[str, Any],
) -> dict[str, Any]:
    """The inputs of an arm's answers; `items` and `doses`: what `asked` makes of the items that it is asked, and of
    those that its kept doses are, where there are any."""
    own = {"arm": arm, "upstream": upstream, "dosed": dosed, "max_new_tokens": most, "prompting": prompting}
    return {**common, **own, "items": items, "doses": doses if dosed else None}


def key_of(inputs: dict[str, Any]) -> str:
    """The content key, sha256, of a step's inputs. What only explains them (names of sources, counts, the base's files,
    builds of libraries) is no part of it."""
    parts = {name: value for name, value in inputs.items() if name not in ("base_files", "versions", "data")}
    if "data" in inputs:
        parts["rows"] = [source["sha256"] for source in inputs["data"]]
    for name in ("items", "doses", "probes"):
        if isinstance(parts.get(name), dict):
            parts[name] = parts[name]["sha256"]
    others = {name: series(version) for name, version in inputs["versions"].items()}
    if others := {name: version for name, version in others.items() if version != SERIES.get(name)}:
        parts["versions"] = others
    return store.hash_value(parts)


def asked(items: Sequence[evals.Item]) -> dict[str, Any]:
    """{count, sha256} of what a model is shown; how answers are labelled is no part of it: labels are made anew."""
    shown = (
        [ask.item.id, ask.sample, ask.messages, ask.temperature, ask.seed, list(ask.item.continuations)]
        for ask in evals.asks(items)
    )
    return {"count": len(items), "sha256": store.hash_rows(shown)}
