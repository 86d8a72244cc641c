"""Load a quantised base model, put one adapter on it at a time, generate, and read log-probabilities."""

from __future__ import annotations

from typing import Any

from repro.errors import BadInput, CannotHere
from repro.models import quiet as _quiet  # noqa: F401  first: it sets what the libraries read when imported

from repro.models.model import Answer, Model  # isort: skip

__all__ = ["Answer", "Model", "load"]


def load(spec: Any, *, quant: str = "nf4", device: str = "auto", backend: str = "auto") -> Model:
    """The model that `spec` names (see recipes.ModelSpec: id, path_or_hub, revision, system), without an adapter.

    quant: "nf4" (QLoRA's 4-bit base) or "none". device: "auto", "cpu" or "cuda". backend: "auto" or "hf".
    Raises BadInput for what can't be a model, CannotHere for what this machine lacks.
    """
    import torch

    from repro.models import hf

    if quant not in ("nf4", "none"):
        raise BadInput(f"quant: {quant!r} is not one of nf4, none")
    if backend not in ("auto", "hf"):
        raise BadInput(f"backend: {backend!r} is not one of auto, hf")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise CannotHere("device cuda: torch sees no usable GPU here; use --device cpu")
    folder = hf.resolve(spec)
    base, tokenizer, precision = hf.open_base(folder, quant=quant, device=device)
    return Model(base, tokenizer, spec, folder, quant=quant, device=device, precision=precision)
