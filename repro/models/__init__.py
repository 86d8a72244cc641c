"""Load a quantised base model, put one adapter on it at a time, generate, and read log-probabilities."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from repro.errors import BadInput, CannotHere
from repro.models import quiet as _quiet  # noqa: F401  first: it sets what the libraries read when imported

if TYPE_CHECKING:
    from repro.models.model import Answer, Model

__all__ = ["Answer", "Model", "load"]

BACKENDS = ("auto", "unsloth", "hf")


def __getattr__(name: str) -> Any:
    # late, so that a backend can be chosen before transformers is imported
    if name in ("Answer", "Model"):
        from repro.models import model

        return getattr(model, name)
    raise AttributeError(name)


def load(
    spec: Any, *, quant: str = "nf4", device: str = "auto", backend: str = "auto", precision: str = "auto"
) -> Model:
    """The model that `spec` names (see recipes.ModelSpec: id, path_or_hub, revision, system), without an adapter.

    quant: "nf4" (QLoRA's 4-bit base) or "none". device: "auto", "cpu" or "cuda". backend: "auto" (unsloth on CUDA where
    it is installed, else hf), "unsloth" or "hf". precision: "auto" (by the device), "fp32", "bf16" or "fp16". Raises
    BadInput for what can't be a model, CannotHere for what this machine lacks. A server's model (`openai:NAME@URL`) can
    be asked, not trained.
    """
    if str(spec.path_or_hub).startswith("openai:"):
        from repro.models.remote import Remote

        return Remote(spec)  # type: ignore[return-value]
    import torch

    if quant not in ("nf4", "none"):
        raise BadInput(f"quant: {quant!r} is not one of nf4, none")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise CannotHere("device cuda: torch sees no usable GPU here; use --device cpu")
    kit: Any
    if choose(backend, device) == "unsloth":
        from repro.models import unsloth as kit

        kit.prepare()
    else:
        from repro.models import hf as kit
    from repro.models import hf
    from repro.models.model import Model

    folder = hf.resolve(spec)
    try:
        base, tokenizer, reason = kit.open_base(folder, quant=quant, device=device, precision=precision)
    except torch.OutOfMemoryError:
        raise CannotHere(f"model {spec.id}: its weights do not fit into the memory of this GPU") from None
    return Model(base, tokenizer, spec, folder, quant=quant, device=device, precision=reason, kit=kit)


def choose(backend: str, device: str) -> str:
    """The backend that runs: "unsloth" or "hf". BadInput for another name, CannotHere where unsloth can't run."""
    if backend not in BACKENDS:
        raise BadInput(f"backend: {backend!r} is not one of {', '.join(BACKENDS)}")
    installed = importlib.util.find_spec("unsloth") is not None
    if backend == "unsloth":
        if device != "cuda":
            raise CannotHere("backend unsloth: it trains on CUDA only; use --backend hf")
        if not installed:
            raise CannotHere("backend unsloth: it is not installed; pip install 'repro[gpu]', or use --backend hf")
        return "unsloth"
    return "unsloth" if backend == "auto" and device == "cuda" and installed else "hf"
