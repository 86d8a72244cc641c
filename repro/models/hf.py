"""Open a base model with transformers and bitsandbytes: the backend that runs everywhere, on CPU too."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from repro import environment, faults
from repro.errors import BadInput, CannotHere
from repro.models.generate import decode
from repro.models.quiet import quiet

__all__ = [
    "adapted", "decode", "fingerprint", "open_base", "open_tokenizer", "options", "packed", "precision_for", "ready",
    "resolve",
]  # fmt: skip

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt"]


def resolve(spec: Any) -> Path:
    """The local folder of `spec.path_or_hub`: the folder itself, or the hub's snapshot (downloaded unless offline).

    Raises BadInput for a folder without safetensors, CannotHere when the hub can't be reached or refuses.
    """
    folder = Path(str(spec.path_or_hub)).expanduser()
    if not folder.is_dir():
        if folder.exists() or str(spec.path_or_hub).startswith((".", "/", "~")):
            raise BadInput(f"model {spec.id}: {spec.path_or_hub} is not a folder with a model")
        folder = _snapshot(spec)
    if not list(folder.glob("*.safetensors")):
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        why = f"only pickles ({', '.join(sorted(pickles)[:3])})" if pickles else "no weights"
        raise BadInput(f"model {spec.id}: {spec.path_or_hub} holds {why}; safetensors are needed")
    return folder


def _snapshot(spec: Any) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    name, revision = str(spec.path_or_hub), getattr(spec, "revision", None)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED))
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{name}"
        raise CannotHere(f"model {spec.id}: accept its licence at {page}, then run `hf auth login`") from None
    except (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        why = type(error).__name__
        raise BadInput(f"model {spec.id}: the hub has no {name}@{revision or 'main'} ({why})") from None
    except Exception as error:  # the network and the disk fail in many ways
        if full := faults.explain(error, Path(constants.HF_HUB_CACHE)):
            raise full from None
        offline = " (offline)" if environment.offline() else ""
        raise CannotHere(
            f"model {spec.id}: {name} is not in the local cache and can't be downloaded{offline}: "
            f"{faults.network(error)}"
        ) from None


def precision_for(device: str, asked: str = "auto") -> tuple[torch.dtype, str]:
    """The dtype to compute in on `device` ("auto", or "fp16", "bf16", "fp32"), and a line that says why."""
    if asked != "auto":
        return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[asked], f"{asked}: asked for"
    if device == "cpu":
        return torch.float32, "fp32: a CPU computes it exactly the same in every batch"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "bf16: this GPU has it"
    major, minor = torch.cuda.get_device_capability()
    return torch.float16, f"fp16: this GPU (compute capability {major}.{minor}) has no bf16"


def open_base(folder: Path, *, quant: str, device: str, precision: str = "auto") -> tuple[torch.nn.Module, Any, str]:
    """(model in eval mode, tokenizer, precision with its reason). `quant`: "nf4" or "none".

    sdpa attention everywhere: packed documents are kept apart by their position ids, on CPU and GPU alike.
    """
    quiet()
    dtype, reason = precision_for(device, precision)
    place = torch.cuda.current_device() if device == "cuda" else device  # of several processes each has its own
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", "device_map": {"": place}}
    if is_quantised(folder):  # a mirror whose weights are NF4 already, its settings in its own configuration
        if quant != "nf4":
            raise BadInput(f"{folder.name}: its weights are quantised already, so quant {quant} is not to be had")
    elif quant == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = open_tokenizer(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options, **local)
    except (ValueError, OSError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(f"{folder.name}: transformers can't open it: {first_line(error)}") from None
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights to bf16 scales, in place, at the first evaluation on a CPU with
        # avx512_bf16: the base would change, and answers would depend on the kind of CPU
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    model.requires_grad_(False)
    return model.eval(), tokenizer, reason


def first_line(error: Exception) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def is_quantised(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder.name}: its config.json can't be read: {error}") from None
    return isinstance(config, dict) and "quantization_config" in config


def open_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, padding on the left. BadInput without a chat template that takes a user's turn."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizers' own errors are plain ones
        raise BadInput(f"{folder.name}: transformers can't open its tokenizer: {first_line(error)}") from None
    if not tokenizer.chat_template:
        raise BadInput(f"{folder.name}: its tokenizer has no chat template, so it is not a chat model")
    word = "hello there"
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": word}], tokenize=False)
    except Exception as error:  # whatever jinja makes of a template
        raise BadInput(f"{folder.name}: its chat template can't render a user's turn: {error}") from None
    if word not in text:
        raise BadInput(f"{folder.name}: its chat template leaves the user's turn out")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def adapted(model: Any, trainable: bool) -> Any:
    """The peft model as this backend wants it: as it is."""
    return model


def ready(model: Any, training: bool) -> None:
    """Nothing to switch: the trainers set the train mode themselves."""


def options(kind: str, vocabulary: int, device: str) -> dict[str, Any]:
    """What the trainers' arguments are here. The logits of a small vocabulary fit; a large one is taken in chunks."""
    loss = {"loss_type": "nll" if vocabulary < 10_000 else "chunked_nll"} if kind in ("sft", "sdf") else {}
    return {"gradient_checkpointing": device != "cpu", **loss}


def packed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Packed rows as they are: transformers tells documents apart by their position ids."""
    return batch


def fingerprint(folder: Path) -> str:
    """sha256 over the base's safetensors, its tokenizer, its configuration and its chat template."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt") and path.name != "README.txt":
            digest.update(f"{path.name} {_file_hash(path)}\n".encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    blob = path.resolve().name  # the hub's cache names a large file by its sha256: no need to read gigabytes again
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        return blob
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
