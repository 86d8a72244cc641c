"""Finds what a name stands for: experiments, recipes and files in the recipes folder or one's own, and base models."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from repro.errors import BadInput
from repro.explain import validate
from repro.schema import ModelSpec
from repro.yamltree import Node, did_you_mean, read_text, read_yaml, shown

SINGULAR = {"experiments": "experiment", "arms": "recipe", "models": "model"}


def recipes_root() -> Path:
    """The recipes that come with the package: `repro/_recipes` in a wheel, `recipes/` next to it in the source tree."""
    package = Path(__file__).resolve().parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def known(kind: str) -> list[str]:
    """The names of the recipes of a kind (experiments, arms, models) that come with the package."""
    folder = recipes_root() / kind
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find(kind: str, name: str, folder: Path | None = None) -> Path:
    """The file of a name (`reproduce-small`, `micro/naive`) or path (relative to `folder`); BadInput if none."""
    inside = Path(folder or Path.cwd())
    shipped = recipes_root() / kind / f"{name}.yaml"
    candidates = [inside / name] if name.endswith((".yaml", ".yml")) else [shipped, inside / f"{name}.yaml"]
    for path in candidates:
        if os.path.isfile(path):
            return path
    if name.endswith((".yaml", ".yml")):
        raise BadInput(f"no such file: {shown(candidates[0])}")
    listed = known(kind)
    raise BadInput(
        f'unknown {SINGULAR[kind]} "{name}"{did_you_mean(name, listed)}; there are: {", ".join(listed) or "none"}'
    )


def find_file(node: Node, *, anywhere: bool = False) -> Path:
    """A file that a recipe names: relative to the recipe, else to the recipes folder (so that copies keep working).

    With `anywhere` it may lie outside the project (see `check_inside`), as data on another disk does.
    """
    for folder in (node.place.folder or Path.cwd(), recipes_root()):
        if os.path.isfile(folder / node.value):
            if not anywhere:
                check_inside(node, folder / node.value)
            return folder / node.value
    raise BadInput(f"{node.place}: no such file: {node.value}")


def check_inside(node: Node, path: Path) -> None:
    """BadInput where a recipe names a text (recipe, constitution, prompt, claims) outside the project: the recipe's own
    folder, the working folder, and the recipes that ship. Somebody else's recipe then can't pull a private file into a
    run that is shared. What the command line names (`--set`) is the user's own word, and may lie anywhere."""
    if not node.place.line:
        return
    own = [folder.resolve() for folder in (node.place.folder or Path.cwd(), Path.cwd(), recipes_root())]
    if not any(path.resolve().is_relative_to(folder) for folder in own):
        raise BadInput(
            f"{node.place}: {node.value} lies outside the recipe's folder and the working folder: copy it there, work "
            "from a folder that holds both, or name it with --set"
        )


def load_model(path: Path) -> ModelSpec:
    """The preset in a file. BadInput lists every fault."""
    return validate(ModelSpec, read_yaml(path))


def resolve_model(name: str) -> ModelSpec:
    """The model of a preset's name or file, a local folder (with config.json), a hub id `org/name`, or a server's model
    `openai:NAME@URL`; else BadInput.

    A hub id that a preset has gets that preset. `auto` is no model yet: it is chosen by memory when a run starts.
    """
    presets = known("models")
    if name.endswith((".yaml", ".yml")):
        return _own_preset(find("models", name))
    if name in presets:
        spec = load_model(find("models", name))
        # the shipped organism's weights lie in the package
        folder = Path(__file__).resolve().parent / "micro" / "weights"
        return spec.model_copy(update={"path_or_hub": str(folder)}) if spec.path_or_hub == "micro" else spec
    folder = Path(os.path.expanduser(name))
    if os.path.isfile(folder / "config.json"):
        return _folder_model(name, folder)
    if name.startswith("openai:"):
        from repro.models.openai import parse  # brings the HTTP library in: only where needed

        served, url = parse(name)
        return ModelSpec.model_validate({"id": served, "path_or_hub": f"openai:{served}@{url}"})
    if name and (os.path.isdir(folder) or name.startswith((".", "/", "~"))):
        raise BadInput(f"model {name}: no folder with a config.json")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        for preset in presets:
            spec = load_model(find("models", preset))
            if spec.path_or_hub == name:
                return spec
        return ModelSpec.model_validate({"id": name, "path_or_hub": name})
    if name == "auto":
        raise BadInput("model auto: is chosen by memory when the run starts; name a model here")
    raise BadInput(
        f'unknown model "{name}"{did_you_mean(name, presets)}: give a preset ({", ".join(presets)}), '
        "a folder with a config.json, or a hub id org/name"
    )


def _own_preset(path: Path) -> ModelSpec:
    """The preset in a file of one's own; a folder of weights that it names is relative to that file."""
    spec = load_model(path)
    folder = path.resolve().parent / spec.path_or_hub
    return spec.model_copy(update={"path_or_hub": str(folder)}) if folder.is_dir() else spec


def _folder_model(name: str, folder: Path) -> ModelSpec:
    try:
        config: Any = json.loads(read_text(folder / "config.json"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise BadInput(f"model {name}: its config.json is not a JSON object")
    keys = {"layers": "num_hidden_layers", "hidden": "hidden_size", "vocabulary": "vocab_size",
            "context": "max_position_embeddings"}  # fmt: skip
    sizes = {field: config.get(key) for field, key in keys.items()}
    sizes = {field: size for field, size in sizes.items() if type(size) is int and size > 0}
    return ModelSpec.model_validate({"id": folder.resolve().name or name, "path_or_hub": str(folder), **sizes})
