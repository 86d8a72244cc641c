"""Experiments, recipes and model presets by name or path, and where each of their values came from.

`repro recipes list/show/copy/validate/schema` print what the functions of those names return.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from repro.constitution import Constitution, Principle, read_constitution
from repro.errors import BadInput, CannotHere
from repro.loading import load_experiment_tree, load_recipe_tree
from repro.locate import SINGULAR, find, known, load_model, recipes_root, resolve_model
from repro.schema import Arm, Evaluation, Experiment, ModelSpec, Recipe
from repro.stages import DpoStage, FileSource, GrpoStage, HubSource, Lora, PackSource, SdfStage, SftStage, Stage
from repro.yamltree import LENGTH, Node, did_you_mean, numbered, parse, read_text, read_yaml, shown

__all__ = [
    "Arm", "Constitution", "DpoStage", "Evaluation", "Experiment", "FileSource", "GrpoStage", "HubSource", "Listed",
    "Lora", "ModelSpec", "PackSource", "Principle", "Recipe", "SdfStage", "SftStage", "Stage", "copy", "find",
    "json_schema", "list_recipes", "load_experiment", "load_model", "load_recipe", "origins", "presets",
    "read_constitution", "recipes_root", "resolve_model", "show", "validate",
]  # fmt: skip


def load_experiment(
    name: str,
    *,
    sets: Sequence[str] = (),
    model: str | None = None,
    arms: str | Sequence[str] | None = None,
    seeds: str | Sequence[int] | None = None,
) -> Experiment:
    """The experiment of a name or path, everything in it resolved: recipes, prompts, constitutions.

    `sets`: "path=value", e.g. "arms.naive.stages.sft.learning_rate=1e-4". `model`, `seeds` replace the file's; `arms`
    keeps only those (and base, which everything is compared with). BadInput lists every fault at once.
    """
    experiment, tree = load_experiment_tree(find("experiments", name), sets, model, arms, seeds)
    experiment._origins.update({path: origin for path, _, origin in rows(experiment, tree)})
    return experiment


# of a recipe that an experiment names, what --set cannot change there and nobody asks for
UNDER_ARM_HIDDEN = ("schema", "name", "description", "paper")


def load_recipe(name: str, *, sets: Sequence[str] = ()) -> Recipe:
    """The recipe of a name or path with `sets` ("stages.sft.steps=10") applied. BadInput lists every fault."""
    return load_recipe_tree(find("arms", name), sets)[0]


def origins(experiment: Experiment) -> dict[str, str]:
    """The origin of each value of a loaded experiment: {`arms.naive.stages.sft.batch`: file:line, --set or default}."""
    return dict(experiment._origins)


def rows(value: Any, node: Node | None, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """(path as --set takes it, value, origin) for each value of a model and the tree it was validated from."""
    origin = node.place.short() if node is not None else "default"
    inside = node.value if node is not None else None
    dot = f"{path}." if path else ""
    if isinstance(value, Constitution):
        yield path, value.source, origin
    elif isinstance(value, BaseModel):
        if path and isinstance(value, Recipe):  # under an arm: its name stands there, its stages under the arm itself
            yield path, value.name, node.key.short() if node is not None and node.key is not None else origin
            dot = f"{path.removesuffix('.recipe')}."
        for name, field in type(value).model_fields.items():
            key = field.alias or name
            if field.exclude or (path and key in UNDER_ARM_HIDDEN and isinstance(value, Recipe)):
                continue
            if key in LENGTH and getattr(value, name) is None:  # a stage has epochs or steps; the other says nothing
                continue
            child = inside.get(key) if isinstance(inside, dict) else node if key == "pack" else None
            yield from rows(getattr(value, name), child, f"{dot}{key}")
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from rows(entry, inside.get(key) if isinstance(inside, dict) else None, f"{dot}{key}")
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        nodes = inside if isinstance(inside, list) else [node] * len(value)
        called = numbered([getattr(entry, "kind", None) or getattr(entry, "pack", None) or "?" for entry in value])
        for index, entry in enumerate(value):
            name = str(index) if "?" in called[index] else called[index]
            yield from rows(entry, nodes[index], f"{dot}{name}")
    else:
        yield path, value, origin


# the verbs of `repro recipes`


@dataclass(frozen=True)
class Listed:
    """A line of `repro recipes list`: kind is experiment, recipe or model."""

    kind: str
    name: str
    description: str
    path: Path


def presets() -> list[ModelSpec]:
    """Every model preset that ships."""
    return [load_model(recipes_root() / "models" / f"{name}.yaml") for name in known("models")]


def list_recipes() -> list[Listed]:
    """What comes with the package, experiments first."""
    listed = []
    for folder, kind in SINGULAR.items():
        for name in known(folder):
            path = recipes_root() / folder / f"{name}.yaml"
            fields = read_yaml(path).value
            words = fields.get("description") or fields.get("notes")
            listed.append(Listed(kind, name, str(words.value) if words is not None else "", path))
    return listed


def _path_and_kind(name: str) -> tuple[Path, str]:
    """The file of a name of any kind, or of a path, and its kind: experiment, recipe, model, claims, pairs..."""
    for folder, kind in SINGULAR.items():
        if name in known(folder):
            return find(folder, name), kind
    path = Path(name)
    if not os.path.isfile(path):
        listed = [name for folder in SINGULAR for name in known(folder)]
        raise BadInput(f'no recipe and no file "{name}"{did_you_mean(name, listed)}')
    return path, _kind_of(path)


def _kind_of(path: Path) -> str:
    if path.suffix == ".md":
        return "constitution"
    node = parse(read_text(path), shown(path))
    if isinstance(node.value, list):
        return "claims"
    keys = set(node.value) if isinstance(node.value, dict) else set()
    if "pairs" in keys:
        return "pairs"
    if keys & {"arms", "model", "seeds", "evaluation", "claims", "start", "needs", "fallback", "quant"}:
        return "experiment"
    return "model" if "path_or_hub" in keys else "recipe"


def show(name: str, *, origin: bool = False, sets: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Rows (path, value) of an experiment, recipe or model with everything resolved; with `origin` also where from."""
    path, kind = _path_and_kind(name)
    value: BaseModel
    if kind == "experiment":
        value, tree = load_experiment_tree(path, sets)
    elif kind == "recipe":
        value, tree = load_recipe_tree(path, sets)
    elif kind == "model":
        value, tree = load_model(path), read_yaml(path)
    else:
        raise BadInput(f"{shown(path)}: {kind} files are read as they are: open the file")
    found = [(where, _text(entry), source) for where, entry, source in rows(value, tree)]
    return [row if origin else row[:2] for row in found]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_text(entry) for entry in value) + "]"
    if value == "":
        return '""'
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def copy(name: str, target: str | Path | None = None) -> Path:
    """Copies a recipe's file to `target` (a file or folder; default: here) to be changed; never over another file."""
    path, _ = _path_and_kind(name)
    goal = Path(target) if target is not None else Path(path.name)
    goal = goal / path.name if goal.is_dir() else goal
    text = read_text(path)
    try:
        with open(goal, "x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise BadInput(f"{shown(goal)} exists already: name another file") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadInput(f"{goal}: there is no such folder") from None
    except OSError as error:
        raise CannotHere(f"{goal}: cannot be written ({error.strerror})") from None
    return goal


def validate(wanted: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(file, kind) of each name, path or folder, once all are valid; without any, all that comes with the package.

    BadInput lists the faults of all the files together.
    """
    paths: list[tuple[Path, str]] = []
    problems: list[str] = []
    for name in wanted or [str(recipes_root())]:
        try:
            if os.path.isdir(name):
                files = sorted(p for p in Path(name).rglob("*") if p.suffix in (".yaml", ".yml", ".md") and p.is_file())
                paths += [(file, _kind_of(file)) for file in files]
            else:
                paths.append(_path_and_kind(name))
        except BadInput as error:
            problems += error.lines
    for path, kind in paths:
        try:
            _check(path, kind)
        except BadInput as error:
            problems += error.lines
    found = [(shown(path), kind) for path, kind in paths]
    if not wanted:
        from repro.data import quality  # brings MinHash in: only where needed

        pairs = quality.near(quality.evaluation_texts(), quality.training_texts())
        problems += [
            f"{quality.FOLDER}: the evaluation item {pair.first} comes too near the training row {pair.second} "
            f"(Jaccard {pair.similarity} of word 5-grams)"
            for pair in pairs
        ]
        found.append((shown(quality.FOLDER), "data pack"))
    if problems:
        raise BadInput(list(dict.fromkeys(problems)))
    return found


def _check(path: Path, kind: str) -> None:
    if kind == "experiment":
        load_experiment_tree(path)
    elif kind == "recipe":
        load_recipe_tree(path)
    elif kind == "model":
        load_model(path)
    elif kind == "constitution":
        read_constitution(path)
    elif kind == "pairs":
        from repro.pairs import load

        load(path)
    else:
        from repro.claims_file import load_claims

        load_claims(path)


def json_schema(kind: str = "experiment") -> dict[str, Any]:
    """The JSON Schema of experiment, recipe or model files, for editors and for reading: every key is described."""
    models: dict[str, type[BaseModel]] = {"experiment": Experiment, "recipe": Recipe, "model": ModelSpec}
    if kind not in models:
        raise BadInput(f'no schema "{kind}", only {", ".join(models)}{did_you_mean(kind, models)}')
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[kind].model_json_schema()}
