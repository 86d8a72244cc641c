"""Validates a tree against a schema and says in words what is wrong: `file:line:column: key: what`, "did you mean"."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from repro import schema, stages
from repro.errors import BadInput
from repro.yamltree import SHOWN, SOURCE, Node, Place, describe, did_you_mean, one_line, plain, shortened

M = TypeVar("M", bound=BaseModel)

# what a step of a pydantic location leads into
CLASSES: dict[str, type[BaseModel]] = {
    "sdf": stages.SdfStage, "sft": stages.SftStage, "dpo": stages.DpoStage, "grpo": stages.GrpoStage,
    "abliterate": stages.AbliterateStage,
    "lora": stages.Lora, "pack": stages.PackSource, "file": stages.FileSource, "hub": stages.HubSource,
    "columns": stages.Columns,
    "paper": schema.Paper, "evaluation": schema.Evaluation, "recipe": schema.Recipe, "start": schema.Recipe,
}  # fmt: skip
STAGE_KINDS = ("sdf", "sft", "dpo", "grpo", "abliterate")
EXPECTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "string_type": "text", "bool_type": "true or false", "list_type": "a list", "dict_type": "a mapping",
    "model_type": "a mapping", "model_attributes_type": "a mapping", "none_required": "nothing",
    "finite_number": "a finite number",
}  # fmt: skip
BOUNDS = {
    "greater_than": ("gt", "must be above"), "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be below"), "less_than_equal": ("le", "must be at most"),
    "too_short": ("min_length", "needs entries: at least"), "string_too_short": ("min_length", "characters: at least"),
    "too_long": ("max_length", "too many entries: at most"), "string_too_long": ("max_length", "characters: at most"),
}  # fmt: skip


def validate(model: type[M], node: Node, *, problems: list[str] | None = None) -> M:
    """The tree as a model. BadInput with `problems` (what is known to be wrong already) and all that pydantic finds.

    Where there are problems already, faults of the whole (with no key to point at) may just follow from them: left out.
    """
    problems = list(problems or [])
    try:
        value = model.model_validate(plain(node))
    except ValidationError as error:
        known = bool(problems)
        faults = [fault for fault in error.errors(include_url=False) if fault["loc"] or not known]
        problems += [explain(model, node, fault) for fault in faults[: 2 * SHOWN]]
        problems += [f"and more faults: {len(faults):,} in all"] if len(faults) > 2 * SHOWN else []
    if problems:
        raise BadInput(shortened(list(dict.fromkeys(map(one_line, problems)))))
    return value


def explain(model: type[BaseModel], root: Node, fault: Any) -> str:
    """One of pydantic's errors as a line."""
    kind, context, location = fault["type"], fault.get("ctx", {}), list(fault["loc"])
    node, name = _walk(root, location)
    if kind == "extra_forbidden":
        known = _keys(_class_at(model, location[:-1]))
        return f'{node.key or node.place}: unknown key "{location[-1]}"{did_you_mean(location[-1], known)}'
    if kind == "missing":
        return f'{node.place}: missing key "{location[-1]}"'
    if kind == "union_tag_not_found" and context["discriminator"] == "'kind'" and isinstance(node.value, dict):
        return f'{node.place}: missing key "kind" ({", ".join(STAGE_KINDS)})'
    if kind == "union_tag_invalid":
        child = node.value["kind"]
        tag = child.value
        return f"{child.place}: unknown kind {describe(tag)}, not one of {', '.join(STAGE_KINDS)}" + did_you_mean(
            tag, STAGE_KINDS
        )
    if location and location[-1] == "[key]":
        place: Place = node.key or node.place
        return f'{place}: unknown arm "{location[-2]}"{did_you_mean(location[-2], schema.ARM_NAMES)}'
    got = describe(plain(node))
    if kind == "literal_error":
        choices = _choices(context["expected"])
        words = f"{got} is not one of {', '.join(choices)}{did_you_mean(node.value, choices)}"
    elif kind in ("union_tag_not_found", "union_tag_invalid"):
        words = f"expected a data source (a name, or a mapping with pack, file or hub), got {got}"
    elif kind in EXPECTED:
        words = f"expected {EXPECTED[kind]}, got {got}"
        if kind == "string_type" and isinstance(node.value, (bool, int, float)):
            words += " (put it in quotes)"
    elif kind in BOUNDS:
        key, phrase = BOUNDS[kind]
        bound = context[key]
        words = f"{phrase} {bound if isinstance(bound, int) else format(bound, 'g')}, got {got}"
    elif kind == "string_pattern_mismatch":
        words = f"{got} does not match {context['pattern']}"
    elif kind == "value_error":
        words = str(context["error"])
    else:
        words = f"{fault['msg']}, got {got}"
    prefix = f"{name}: " if name and node.place.line else ""
    return f"{node.place}: {prefix}{words}"


def _walk(node: Node, location: list[Any]) -> tuple[Node, str]:
    """The deepest node on the way, and the key to name it by. Names of union members are no steps."""
    name = ""
    for index, step in enumerate(location):
        if step in SOURCE and index + 1 < len(location):
            continue  # which kind of source it was taken for, and not the key of that name
        if isinstance(node.value, dict) and step in node.value:
            node, name = node.value[step], str(step)
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            name = "" if isinstance(node.value, dict) else name
    return node, name


def _class_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel]:
    for index in range(len(location) - 1, -1, -1):
        if index and location[index - 1] == "arms":
            return schema.Arm
        if location[index] in CLASSES:
            return CLASSES[location[index]]
    return model


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _choices(expected: str) -> list[str]:
    return [word.strip("'") for part in expected.split(", ") for word in part.split(" or ")]
