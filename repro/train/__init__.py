"""Train one stage of a recipe: one adapter in, the same adapter trained and saved out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro.errors import BadInput
from repro.seeds import derive


def run_stage(
    stage: Any,
    model: Any,
    rows: list[dict[str, Any]],
    out: Path,
    *,
    seed: int,
    on_progress: Callable[[int, int, float], None] | None = None,
    on_step: Callable[[int, int, Any], None] | None = None,
    checkpoint_every_minutes: float | None = 5.0,
    micro_batch: int | None = None,
    on_say: Callable[[str], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train `model`'s adapter on `rows` as `stage` says, write it to `out`, and return a summary.

    `model` comes with a trainable adapter (models.Model: new_adapter, or load_adapter(trainable=True)).
    on_progress(done steps, all steps, loss) comes after every step; on_step(step, all steps, model) at the steps of the
    stage's curve (0 is one), the training left as it was; on_say(line) tells what the stage trains on. A killed stage
    goes on from out/state/ (written every so many minutes, removed at the end) when called again with the same
    arguments; once stopping() is true it is written after the step, and SystemExit raised. micro_batch overrides what
    fits in memory.
    Writes out/adapter_model.safetensors, out/adapter_config.json, out/log.jsonl; grpo also out/rollouts.jsonl,
    abliterate out/direction.safetensors.
    Raises BadInput for data that can't be trained on, RunFailed for a stage that trained on or changed nothing.
    """
    if stage.kind not in ("sdf", "sft", "dpo", "grpo", "abliterate"):
        raise BadInput(f"no such kind of stage: {stage.kind}")
    if not rows:
        raise BadInput(f"{stage.kind}: the data is empty")

    from transformers import set_seed

    from repro.train import abliterate, dpo, grpo, runner, sdf, sft

    if not model.adapter_parameters():
        raise BadInput(f"{stage.kind}: the model has no adapter to train")
    out.mkdir(parents=True, exist_ok=True)
    function = {
        "sdf": sdf.sdf, "sft": sft.sft, "dpo": dpo.dpo, "grpo": grpo.grpo, "abliterate": abliterate.abliterate
    }[stage.kind]  # fmt: skip
    set_seed(derive(seed, "train"))
    hooks = runner.Hooks(on_progress, on_step, checkpoint_every_minutes, micro_batch, on_say, stopping)
    return function(stage, model, rows, out, seed=seed, hooks=hooks)
