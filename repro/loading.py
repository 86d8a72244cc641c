"""Reads recipes and experiments: `extends`, `--set`, each name replaced by what it stands for; all faults at once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from repro.constitution import Constitution, parse_constitution, read_constitution
from repro.errors import BadInput
from repro.explain import validate
from repro.locate import check_inside, find, find_file, resolve_model
from repro.schema import Experiment, Pack, Recipe
from repro.yamltree import Node, Place, describe, did_you_mean, merge, parse, put, read_text, read_yaml, scalar, shown

ARM_KEYS = ("recipe", "system", "stages")


def read_extended(kind: str, path: Path, chain: tuple[Path, ...], problems: list[str]) -> Node:
    """The tree of a file laid on what it extends; `chain` is what led here."""
    node = read_yaml(path)
    above = node.value.get("extends")
    if above is None or not isinstance(above.value, str):
        return node
    chain = (*chain, path.resolve())
    parent = _find_named(kind, above)
    if parent.resolve() in chain:
        circle = [*chain[chain.index(parent.resolve()) :], parent]
        raise BadInput(f"{above.place}: extends in a circle: {' -> '.join(shown(p) for p in circle)}")
    base = read_extended(kind, parent, chain, problems)
    inherited = {key: child for key, child in base.value.items() if key not in ("name", "extends")}
    return merge(replace(base, value=inherited), node, problems)


def _find_named(kind: str, node: Node) -> Path:
    try:
        path = find(kind, node.value, node.place.folder)
    except BadInput as error:
        raise BadInput([f"{node.place}: {line}" for line in error.lines]) from None
    check_inside(node, path)
    return path


def _parse_sets(sets: Sequence[str], problems: list[str]) -> list[tuple[list[str], Node]]:
    found = []
    for text in sets:
        path, equals, value = text.partition("=")
        place = Place(f"--set {path}", folder=Path.cwd())
        if not equals or not all(path.split(".")):
            problems.append(f"--set {text}: expected path=value, e.g. stages.sft.learning_rate=1e-4")
            continue
        try:
            node = parse(value, place.source, place.folder, lines=False) if value else Node(None, place)
            found.append((path.split("."), node))
        except BadInput as error:
            problems += error.lines
    return found


def _apply(node: Node, parts: list[str], value: Node, problems: list[str]) -> Node:
    try:
        return put(node, parts, value)
    except BadInput as error:
        problems += error.lines
        return node


def _finish_recipe(node: Node, problems: list[str]) -> Node:
    """Reads the constitution, finds data files, hands the adapter's settings on from stage to stage."""
    fields = dict(node.value)
    constitution = fields.get("constitution")
    if constitution is not None and isinstance(constitution.value, str):
        try:
            fields["constitution"] = replace(constitution, value=read_constitution(find_file(constitution)))
        except BadInput as error:
            problems += error.lines
            del fields["constitution"]
    if "stages" in fields and isinstance(fields["stages"].value, list):
        stages: list[Node] = []
        for stage in fields["stages"].value:
            if isinstance(stage.value, dict):
                inner = {key: _with_files(child, problems) if key in ("data", "prompts") else child
                         for key, child in stage.value.items()}  # fmt: skip
                before = stages[-1].value.get("lora") if stages and isinstance(stages[-1].value, dict) else None
                if before is not None:
                    inner["lora"] = merge(before, inner["lora"], problems) if "lora" in inner else before
                stage = replace(stage, value=inner)
            stages.append(stage)
        fields["stages"] = replace(fields["stages"], value=stages)
    return replace(node, value=fields)


def _with_files(node: Node, problems: list[str]) -> Node:
    if isinstance(node.value, list):
        return replace(node, value=[_with_files(child, problems) for child in node.value])
    file = node.value.get("file") if isinstance(node.value, dict) else None
    if file is None or not isinstance(file.value, str):
        return node
    try:
        path = find_file(file, anywhere=True)
        if not os.path.getsize(path):
            problems.append(f"{file.place}: {file.value} is empty")
        return replace(node, value={**node.value, "file": replace(file, value=shown(path))})
    except BadInput as error:
        problems += error.lines
        return node


def load_recipe_tree(path: Path, sets: Sequence[str] = ()) -> tuple[Recipe, Node]:
    """A recipe, and the tree it was validated from. BadInput lists every fault."""
    problems: list[str] = []
    node = read_extended("arms", path, (), problems)
    for parts, value in _parse_sets(sets, problems):
        node = _apply(node, parts, value, problems)
    node = _finish_recipe(node, problems)
    return validate(Recipe, node, problems=problems), node


def load_experiment_tree(
    path: Path, sets: Sequence[str] = (), model: str | None = None, arms: Any = None, seeds: Any = None
) -> tuple[Experiment, Node]:
    """An experiment, and the tree it was validated from; arguments as in recipes.load_experiment."""
    problems: list[str] = []
    root = read_extended("experiments", path, (), problems)
    if model is not None:
        root = put(root, ["model"], Node(model, Place("--model", folder=Path.cwd())))
    if seeds is not None:
        place = Place("--seeds")
        given = [scalar(word.strip()) for word in seeds.split(",")] if isinstance(seeds, str) else list(seeds)
        root = put(root, ["seeds"], Node([Node(seed, place) for seed in given], place))
    inside: list[tuple[list[str], Node]] = []  # what is set within recipes has to wait for those to be read
    for parts, value in _parse_sets(sets, problems):
        if parts[0] == "arms" and len(parts) > 1 and parts[1] not in _arm_names(root):
            problems.append(f"{value.place}: {_no_arm(parts[1], root)}")
        elif parts[:2] == ["start", "stages"] or (parts[0] == "arms" and parts[2:3] == ["stages"]):
            inside.append((parts, value))
        else:
            root = _apply(root, parts, value, problems)
    root = _expand(root, inside, problems)
    root = _keep_arms(root, arms, problems)  # last: the prompt of one arm may be the constitution of another
    return validate(Experiment, root, problems=problems), root


def _arm_names(root: Node) -> list[str]:
    arms = root.value.get("arms")
    return list(arms.value) if arms is not None and isinstance(arms.value, dict) else []


def _no_arm(name: str, root: Node) -> str:
    here = _arm_names(root)
    return f'there is no arm "{name}" here, only {", ".join(here)}{did_you_mean(name, here)}'


def _keep_arms(root: Node, wanted: str | Sequence[str] | None, problems: list[str]) -> Node:
    if wanted is None or not _arm_names(root):
        return root
    words = [word.strip() for word in wanted.split(",")] if isinstance(wanted, str) else list(wanted)
    problems += [f"--arms: {_no_arm(word, root)}" for word in words if word not in _arm_names(root)]
    arms = root.value["arms"]
    kept = {name: arm for name, arm in arms.value.items() if name == "base" or name in words}
    return replace(root, value={**root.value, "arms": replace(arms, value=kept)})


def _expand(root: Node, inside: list[tuple[list[str], Node]], problems: list[str]) -> Node:
    """Puts in place of each name what it stands for: recipes, prompts, claims; checks the model and the fallback."""
    fields = dict(root.value)
    if "start" not in fields or fields["start"].value is None:
        problems += [f"{value.place}: the experiment has no start" for parts, value in inside if parts[0] == "start"]
    else:
        fields["start"] = _recipe_at(fields["start"], None, ["start"], inside, problems)
    if "arms" in fields and isinstance(fields["arms"].value, dict):
        arms = {name: _expand_arm(name, arm, inside, problems) for name, arm in fields["arms"].value.items()}
        arms = {name: _with_prompt(arm, arms, problems) for name, arm in arms.items()}
        fields["arms"] = replace(fields["arms"], value=arms)
    _check_references(fields, problems)
    return replace(root, value=fields)


def _expand_arm(name: str, arm: Node, inside: list[tuple[list[str], Node]], problems: list[str]) -> Node:
    entry = {} if arm.value is None else arm.value
    if not isinstance(entry, dict):
        return arm
    for key, child in entry.items():
        if key not in ARM_KEYS:
            problems.append(f'{child.key}: unknown key "{key}"{did_you_mean(key, ARM_KEYS)}')
    entry = {key: child for key, child in entry.items() if key in ARM_KEYS}
    changes = entry.pop("stages", None)
    if changes is not None and not isinstance(changes.value, dict):
        problems.append(f"{changes.place}: stages: expected a mapping by stage name, got {describe(changes.value)}")
        changes = None
    if "recipe" in entry:
        entry["recipe"] = _recipe_at(entry["recipe"], changes, ["arms", name], inside, problems)
    else:
        touched = [value.place for parts, value in inside if parts[:2] == ["arms", name]]
        touched += [changes.key or changes.place] if changes is not None else []
        problems += [f'{place}: the arm "{name}" has no recipe whose stages to change' for place in touched]
    return replace(arm, value=entry)


def _recipe_at(
    reference: Node, changes: Node | None, where: list[str], inside: list[tuple[list[str], Node]], problems: list[str]
) -> Node:
    """The tree of the recipe that an experiment names at the path `where`, changed as the experiment and --set say."""
    faults: list[str] = []
    try:
        if not isinstance(reference.value, str):
            got = describe(reference.value)
            raise BadInput(f"{reference.place}: expected the name or path of a recipe, got {got}")
        tree = read_extended("arms", _find_named("arms", reference), (), faults)
        if changes is not None:
            tree = merge(tree, Node({"stages": changes}, tree.place), faults)
        for parts, value in inside:
            if parts[: len(where)] == where:
                tree = _apply(tree, parts[len(where) :], value, faults)
        tree = _finish_recipe(tree, faults)
        validate(Recipe, tree, problems=faults)
    except BadInput as error:
        problems += error.lines
        tree = Node(_STAND_IN, reference.place)
    return replace(tree, key=reference.place)


# takes the place of a recipe that could not be read, so that the rest of the experiment is checked all the same
_STAND_IN = Recipe.model_validate(
    {"schema": 1, "name": "unread", "stages": [{"kind": "sft", "data": ["ordinary"], "steps": 1}]}
)


def _with_prompt(arm: Node, arms: dict[str, Node], problems: list[str]) -> Node:
    """The arm with its system prompt's text: a constitution's, a file's, or as written."""
    system = arm.value.get("system") if isinstance(arm.value, dict) else None
    if system is None or not isinstance(system.value, str):
        return arm
    text = system.value
    try:
        if text == "constitution":
            found: dict[str, Constitution] = {}
            for other in arms.values():
                recipe = other.value.get("recipe") if isinstance(other.value, dict) else None
                constitution = recipe.value.get("constitution") if recipe and isinstance(recipe.value, dict) else None
                if constitution is not None and isinstance(constitution.value, Constitution):
                    found[constitution.value.source] = constitution.value
            if len(found) != 1:
                raise BadInput(f"{system.place}: system: constitution needs exactly one among the experiment's "
                               f"recipes, here: {', '.join(found) or 'none'}")  # fmt: skip
            text = next(iter(found.values())).system_prompt
        elif re.fullmatch(r"\S+\.(md|txt)", text):
            path = find_file(system)
            text = read_text(path).strip()
            if re.search(r"^##\s+system prompt\s*$", text, flags=re.IGNORECASE | re.MULTILINE):
                text = parse_constitution(text, shown(path)).system_prompt  # the rest of it is not meant to be said
    except BadInput as error:
        problems += error.lines
    return replace(arm, value={**arm.value, "system": replace(system, value=text)})


def _check_references(fields: dict[str, Node], problems: list[str]) -> None:
    """Finds the claims file (made a path that can be opened from here), the model, the experiment to fall back on."""
    texts = {key: node for key, node in fields.items() if isinstance(node.value, str)}
    try:
        if "claims" in texts:
            fields["claims"] = replace(texts["claims"], value=shown(find_file(texts["claims"])))
    except BadInput as error:
        problems += error.lines
    try:
        if "fallback" in texts:
            _find_named("experiments", texts["fallback"])
    except BadInput as error:
        problems += error.lines
    try:
        if "model" in texts and texts["model"].value != "auto":
            spec = resolve_model(texts["model"].value)
            pack = texts["pack"].value if "pack" in texts else None
            if pack in get_args(Pack) and spec.pack not in (None, pack):
                problems.append(f"{texts['model'].place}: the model {spec.id} understands the pack {spec.pack} only, "
                                f"this experiment's is {pack}")  # fmt: skip
    except BadInput as error:
        problems += [f"{texts['model'].place}: {line}" for line in error.lines]
