"""Open a base model with unsloth: the faster backend, on CUDA only; the same functions as in hf.py.

Its patches replace parts of transformers and trl, so it is imported before them (models.load does). Nothing outside of
repro/models knows that it is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from repro.errors import BadInput

LONGEST = 4096  # tokens; rotary tables are made for so many


def prepare() -> None:
    """Import unsloth, before anything else imports trl or transformers."""
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_RETURN_LOGITS", "0")
    import unsloth  # noqa: F401


def open_base(folder: Path, *, quant: str, device: str, precision: str = "auto") -> tuple[torch.nn.Module, Any, str]:
    """(model in eval mode, tokenizer, precision with its reason); the folder's own weights, no other repository's."""
    from unsloth import FastLanguageModel

    from repro.models import hf

    dtype, reason = hf.precision_for(device, precision)
    try:
        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=LONGEST,
            dtype=dtype,
            load_in_4bit=quant == "nf4",
            device_map={"": device},
            trust_remote_code=False,
            use_exact_model_name=True,  # else it swaps the name for its own mirror's
            use_gradient_checkpointing="unsloth",
            local_files_only=True,
        )
        # its tokenizer comes with repairs that would make prompts differ between the backends
        tokenizer = hf.open_tokenizer(folder)
    except torch.OutOfMemoryError:  # a RuntimeError too, but no fault of the model's
        raise
    # "this architecture is not supported" is among them
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{folder.name}: unsloth can't open it: {hf.first_line(error)}; try --backend hf") from None
    model.requires_grad_(False)
    FastLanguageModel.for_inference(model)
    return model.eval(), tokenizer, f"{reason}; unsloth"


def adapted(model: Any, trainable: bool) -> Any:
    """The peft model with unsloth's fused adapter kernels."""
    from unsloth import FastLanguageModel

    if trainable:
        return FastLanguageModel.patch_peft_model(model, use_gradient_checkpointing="unsloth")
    return FastLanguageModel.for_inference(model)


def ready(model: Any, training: bool) -> None:
    """Switch unsloth's paths (not only the train mode) before training, and back after it."""
    from unsloth import FastLanguageModel

    if training:
        FastLanguageModel.for_training(model, use_gradient_checkpointing="unsloth")
    else:
        FastLanguageModel.for_inference(model)


def options(kind: str, vocabulary: int, device: str) -> dict[str, Any]:
    """What the trainers' arguments are here: unsloth checkpoints by itself, and has its own fused loss."""
    return {"gradient_checkpointing": False, **({"loss_type": "nll"} if kind in ("sft", "sdf") else {})}


def packed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Packed rows as one long row with the lengths of its documents: unsloth's attention ignores position ids.

    `position_ids` starts again at 0 with each document; padding at a row's end counts as documents of one token.
    """
    positions = batch["position_ids"].reshape(-1)
    starts = torch.nonzero(positions == 0).squeeze(1)
    ends = torch.cat([starts[1:], starts.new_tensor([len(positions)])])
    flat = {name: value.reshape(1, -1) for name, value in batch.items()}
    return {**flat, "packed_seq_lengths": (ends - starts).to(torch.int32)}


def decode(
    base: Any,
    prompts: list[list[int]],
    *,
    pad: int,
    stop_ids: set[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seeds: list[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_batch: Callable[[list[int], list[Any]], None] | None = None,
) -> list[list[int]]:
    """As generate.decode, through the model's own `generate`: unsloth's decoding kernels live behind it."""
    from transformers import LogitsProcessorList

    from repro.models.generate import left_pad, run_batches

    device = next(base.parameters()).device

    def one(indices: list[int]) -> list[list[int]]:
        ids, mask = left_pad([prompts[index] for index in indices], pad, device)
        noise = None if seeds is None or temperature <= 0 else [seeds[index] for index in indices]
        processors = LogitsProcessorList([Drawn(noise, temperature, ids.shape[1])] if noise else [])
        with torch.inference_mode():
            out = base.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True,
                pad_token_id=pad, eos_token_id=sorted(stop_ids), logits_processor=processors,
                temperature=None, top_p=None, top_k=None,
            )  # fmt: skip
        return [ended(row, stop_ids) for row in out[:, ids.shape[1] :].tolist()]

    return run_batches(base, [len(prompt) for prompt in prompts], max_new_tokens, one, progress, on_batch)


def ended(tokens: list[int], stop_ids: set[int]) -> list[int]:
    """The tokens up to the first that ends the turn, that one included."""
    stop = next((place for place, token in enumerate(tokens) if token in stop_ids), len(tokens) - 1)
    return tokens[: stop + 1]


class Drawn:
    """Makes the likeliest token a draw: adds Gumbel noise from each row's own stream to its scaled log-probabilities.

    The largest of log p + Gumbel is distributed as p, so greedy decoding samples, and a row's draws depend on
    its own seed alone, whatever it is batched with.
    """

    def __init__(self, seeds: list[int], temperature: float, prompt: int) -> None:
        self.seeds, self.temperature, self.prompt = seeds, temperature, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.prompt
        rows = []
        for seed in self.seeds:
            stream = torch.Generator(scores.device).manual_seed((seed * 1_000_003 + step) % 2**63)
            rows.append(torch.rand(scores.shape[-1], generator=stream, device=scores.device))
        noise = -torch.log(-torch.log(torch.stack(rows).clamp(1e-20, 1 - 1e-7)))
        return scores.float() / self.temperature + noise
