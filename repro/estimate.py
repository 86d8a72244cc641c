"""What a plan will take: peak GPU memory, whether it fits, and how long; from shapes and rows, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repro import evals, memory
from repro.stages import curve_steps

if TYPE_CHECKING:
    from repro.plan import Plan

# what the organism takes on one core, in seconds
SECONDS_A_STEP = {"sdf": 0.22, "sft": 0.07, "dpo": 0.2, "grpo": 0.3, "abliterate": 4.0}
SECONDS_AN_ANSWER = 0.002
SECONDS_TO_START = 8.0
CHARACTERS_A_TOKEN = 3.5  # English prose under the vocabularies of the presets has 4 to 4.5; less is the safe side
ANSWER_SHARE = 0.6  # of max_new_tokens that an answer takes on average
SHORT_AXES = ("capability", "sandbagging", "sycophancy", "character")  # a word or number, or yes or no and a sentence
SHORT_TOKENS = 35

AUTO = "Qwen2.5-1.5B-Instruct", "Qwen2.5-0.5B-Instruct", "micro"
AUTO_GIB = 5.5


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name (None: not looked at, a size that someone gave), its memory, and what of it is free, in GiB."""

    name: str | None
    total_gib: float
    free_gib: float


def auto_model(gpu: Gpu | None) -> tuple[str, str]:
    """The preset that `model: auto` stands for on such a GPU (None: no CUDA), and why, in words."""
    large, small, tiny = AUTO
    if gpu is None:
        return tiny, f"model auto: no CUDA device, so {tiny}"
    if gpu.free_gib >= AUTO_GIB:
        return large, f"model auto: {gpu.free_gib:.1f} GiB of GPU memory free, at least {AUTO_GIB}, so {large}"
    return small, f"model auto: {gpu.free_gib:.1f} GiB of GPU memory free, less than {AUTO_GIB}, so {small}"


def on_gpu(spec: Any, quant: str, gpu: Gpu | None, lines: list[str]) -> Any:
    """The preset with its pre-quantised mirror in place of the full weights, where a GPU holds the base in 4 bits."""
    if gpu is None or quant != "nf4" or spec.mirror_4bit is None:
        return spec
    lines.append(f"weights: {spec.mirror_4bit}, {spec.path_or_hub} already in NF4 ({spec.mirror_4bit_gib:.2f} GiB)")
    changes = {"path_or_hub": spec.mirror_4bit, "revision": None, "download_gib": spec.mirror_4bit_gib}
    return spec.model_copy(update=changes)


def longest(stage: Any, rows: Sequence[dict[str, Any]]) -> int:
    """About how many tokens the longest row of a stage has; packed documents fill their rows."""
    if stage.kind == "sdf":
        return int(stage.max_length)
    most = max((_characters(row) for row in rows), default=0)
    if stage.kind == "grpo":
        return math.ceil(most / CHARACTERS_A_TOKEN) + 40 + int(stage.max_new_tokens)
    return min(int(stage.max_length), math.ceil(most / CHARACTERS_A_TOKEN) + 40)


def _characters(row: dict[str, Any]) -> int:
    said = sum(len(message["content"]) for message in row.get("messages", ()))
    return said + len(row.get("text", "")) + len(row.get("chosen", ""))


def steps_of(stage: Any, count: int) -> int:
    """Optimiser steps of a stage over `count` rows (packing not counted)."""
    rows_a_step = max(1, stage.batch // stage.group) if stage.kind == "grpo" else stage.batch
    return int(stage.steps or math.ceil(count * stage.epochs / rows_a_step))


def stage_seconds(
    plan: Plan, stage: Any, rows: Sequence[dict[str, Any]], probes: Sequence[evals.Item] = ()
) -> float | None:
    """How long a stage and its probes take on the organism's CPU or the plan's GPU; None where neither is known."""
    training = _training_seconds(plan, stage, rows)
    rounds = len(curve_steps(stage.curve, steps_of(stage, len(rows))))
    probing = answers_seconds(plan, probes, evals.PROBE_TOKENS, rounds) if probes else 0.0
    return None if training is None or probing is None else training + probing


def _training_seconds(plan: Plan, stage: Any, rows: Sequence[dict[str, Any]]) -> float | None:
    steps = steps_of(stage, len(rows))
    if plan.experiment.pack == "micro":
        return steps * SECONDS_A_STEP[stage.kind]
    shape = memory.shape_of(plan.spec)
    if shape is None or plan.gpu is None or not rows:
        return None
    mean = sum(map(_characters, rows)) / len(rows) / CHARACTERS_A_TOKEN + 40
    if stage.kind == "sdf":
        total = len(rows) * mean * (stage.epochs or steps * stage.batch / len(rows))
        return memory.training_seconds(shape, total, plan.gpu.name)
    if stage.kind == "grpo":
        answer = stage.max_new_tokens * ANSWER_SHARE
        said = memory.answering_seconds(shape, steps * answer, steps * stage.batch * mean, plan.gpu.name)
        return said + memory.training_seconds(shape, 2 * steps * stage.batch * (mean + answer), plan.gpu.name)
    passes = 4 if stage.kind == "dpo" else 1  # two answers a pair, each also through the reference
    return memory.training_seconds(shape, passes * steps * stage.batch * mean, plan.gpu.name)


def answers_seconds(plan: Plan, items: Iterable[evals.Item], most: int, rounds: int = 1) -> float | None:
    """How long `rounds` adapters take to answer the items, each answer of up to `most` tokens; None if not known."""
    items = list(items)
    count = rounds * sum(item.samples for item in items)
    if plan.experiment.pack == "micro":
        return count * SECONDS_AN_ANSWER
    shape = memory.shape_of(plan.spec)
    if shape is None or plan.gpu is None:
        return None
    rows = memory.fit_evaluation(shape, plan.experiment.quant, 64, memory.PROMPT_TOKENS + most, plan.gpu.total_gib)
    written = read = 0.0
    for item in items:
        short = SHORT_TOKENS if item.axis in SHORT_AXES else most * ANSWER_SHARE
        written += rounds * item.samples * min(short, most)
        asked = sum(len(message["content"]) for message in item.messages) / CHARACTERS_A_TOKEN + 20
        read += rounds * item.samples * max(1, len(item.continuations)) * asked
    return memory.answering_seconds(shape, written / rows.micro_batch, read, plan.gpu.name)


def fits(plan: Plan) -> list[memory.Fit]:
    """For each kind of stage and for answering: its peak on the plan's GPU with the micro-batch that fits, if one does.

    Empty where the model's shape or the GPU is not known, or the model stays on the CPU.
    """
    shape = memory.shape_of(plan.spec)
    if shape is None or plan.gpu is None or plan.experiment.pack == "micro":
        return []
    found: dict[str, memory.Fit] = {}
    rank = 0
    for step in plan.steps.values():
        if step.stage is None:
            continue
        rank = max(rank, step.stage.lora.r)
        fit = memory.fit_stage(
            shape, step.stage, plan.experiment.quant, longest(step.stage, step.rows), plan.gpu.total_gib
        )
        known = found.get(fit.what)
        if known is None or fit.micro_batch < known.micro_batch or fit.peak_gib > known.peak_gib:
            found[fit.what] = fit
    most = max((step.max_new_tokens for step in plan.steps.values()), default=0)
    tokens = memory.PROMPT_TOKENS + most
    found["answers"] = memory.fit_evaluation(shape, plan.experiment.quant, rank, tokens, plan.gpu.total_gib)
    return list(found.values())


def advice(plan: Plan, presets: Iterable[Any]) -> str:
    """What to change where the plan does not fit: the smallest shipped preset that would, else a larger GPU."""
    assert plan.gpu is not None
    shapes = [(shape.parameters, spec.id, shape) for spec in presets if (shape := memory.shape_of(spec))]
    for _, name, shape in sorted(shapes, key=lambda entry: entry[:2]):
        stages = [step for step in plan.steps.values() if step.stage is not None]
        if name != plan.spec.id and all(
            memory.fit_stage(
                shape, step.stage, plan.experiment.quant, longest(step.stage, step.rows), plan.gpu.total_gib
            ).fits
            for step in stages
        ):
            return f"the smallest preset, {name}, would fit: --model {name}"
    return f"no preset fits into {plan.gpu.total_gib:.1f} GiB: lower max_length, or use a larger GPU"
