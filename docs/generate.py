"""Writes what stands between `<!-- generated: NAME -->` and `<!-- end -->` in docs/*.md: python docs/generate.py

Keys come from the schema's descriptions, metrics from repro.evals, examples from docs/examples: a test compares.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from repro import evals, schema, stages

HERE = Path(__file__).resolve().parent
PARTS = re.compile(r"(<!-- generated: ([\w./-]+) -->\n).*?(<!-- end -->)", flags=re.S)
FILES: dict[str, type[BaseModel]] = {
    "experiment": schema.Experiment, "arm": schema.Arm, "evaluation": schema.Evaluation, "recipe": schema.Recipe,
    "every-stage": stages.StageBase, "sdf": stages.SdfStage, "sft": stages.SftStage, "dpo": stages.DpoStage,
    "grpo": stages.GrpoStage, "abliterate": stages.AbliterateStage, "lora": stages.Lora, "pack": stages.PackSource,
    "file": stages.FileSource, "hub": stages.HubSource, "columns": stages.Columns, "paper": schema.Paper,
    "ingredient": schema.Ingredient, "model": schema.ModelSpec,
}  # fmt: skip
NAMES = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "NoneType": "null",
         "dict": "mapping", "list": "list", "Constitution": "path", "Recipe": "name or path"}  # fmt: skip


def page(path: Path) -> str:
    """The page as it should be."""
    return PARTS.sub(lambda found: f"{found[1]}{part(found[2])}{found[3]}", path.read_text(encoding="utf-8"))


def part(name: str) -> str:
    """What stands between the markers of a name: keys-KIND, metrics, or the path of a file beside this one."""
    if name == "metrics":
        return metrics()
    if name.startswith("keys-"):
        return keys(name.removeprefix("keys-"))
    path = HERE / name
    language = path.suffix.lstrip(".")
    return f"```{language}\n{path.read_text(encoding='utf-8')}```\n"


def keys(kind: str) -> str:
    """A table of the keys of one kind of mapping; a stage's without those that every stage has."""
    model = FILES[kind]
    common = set() if model is stages.StageBase else set(stages.StageBase.model_fields)
    rows = ["| key | takes | default | what it is |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        same = name in common and issubclass(model, stages.StageBase)
        if same and _default(field) == _default(stages.StageBase.model_fields[name]):
            continue
        what = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{field.alias or name}` | {_takes(field)} | {_default(field)} | {what} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "needed" if field.is_required() else "see its keys"
    if isinstance(value, BaseModel):
        return "see its keys"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return "all" if value == list(evals.AXES) else f"`{text}`".replace("'", "") if text else "empty"


def _takes(field: FieldInfo) -> str:
    limits = []
    for one in field.metadata:
        for name, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
            if getattr(one, name, None) is not None:
                limits.append(f"{word} {getattr(one, name):g}")
    return ", ".join([_type(field.annotation), *limits])


def _type(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " or ".join(f"`{word}`" for word in inside)
    if origin in (Union, UnionType):
        words = dict.fromkeys(_type(one) for one in inside if one is not type(None))
        return " or ".join(words)
    if origin is list:
        one = _type(inside[0])
        return "list of numbers" if "number" in one else f"list of {one}" if "`" in one else "list"
    if origin is dict:
        return "mapping"
    return NAMES.get(getattr(kind, "__name__", ""), "mapping")


def metrics() -> str:
    """A table of every metric of the suite, by axis; public prompt sets are in data.md."""
    rows = ["| axis | metric | better | what is counted | resampled by |", "| --- | --- | --- | --- | --- |"]
    for axis, module in evals.AXES.items():
        for metric in module.METRICS:
            better = "higher" if metric.higher_is_better else "lower"
            second = "" if metric.primary else " (secondary)"
            rows.append(f"| {axis} | `{metric.id}`{second} | {better} | {metric.what} | {metric.cluster} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for path in sorted(HERE.glob("*.md")):
        path.write_text(page(path), encoding="utf-8")
