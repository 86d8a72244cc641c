"""One base model with at most one adapter on it: swap it, generate with it, and leave the base's bits as they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from repro.errors import BadInput
from repro.models import hf
from repro.models.generate import dense_base, plain_weights, score
from repro.models.tokens import Messages, Tokens

ADAPTER = "default"  # the name that trl expects
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class Answer:
    """What a model said: the text, whether it ended its turn, and its length in tokens, end of turn included."""

    text: str
    finished: bool
    tokens: int


class Model(Tokens):
    """A base, its tokenizer and the adapter of the moment.

    `.model` is what to call (peft's wrapper when there is an adapter), `.precision` says what it computes in and why.
    """

    def __init__(
        self,
        base: Any,
        tokenizer: Any,
        spec: Any,
        folder: Path,
        *,
        quant: str,
        device: str,
        precision: str,
        kit: Any = hf,
    ) -> None:
        super().__init__(tokenizer, spec, folder)
        self.model = base
        self.quant, self.device, self.precision = quant, device, precision
        self._kit = kit  # the backend's module: hf or unsloth
        self._fingerprint = ""

    def fingerprint(self) -> str:
        """sha256 of the base's safetensors, tokenizer and chat template: the same base gives the same answer."""
        self._fingerprint = self._fingerprint or hf.fingerprint(self.folder)
        return self._fingerprint

    @property
    def base(self) -> Any:
        """The transformers model under the adapter (its linear layers are peft's while an adapter is on)."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    # --- the adapter

    def new_adapter(self, lora: Any, seed: int) -> None:
        """Put a fresh, trainable LoRA on the base (r, alpha, dropout, targets); `seed` decides its first weights."""
        self.drop_adapter()
        targets = lora.targets if isinstance(lora.targets, str) else sorted(lora.targets)
        config = LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = get_peft_model(self.model, config, adapter_name=ADAPTER)
        self.model = self._kit.adapted(self.model, True)
        self._to_fp32()

    def load_adapter(self, folder: Path | str, trainable: bool = False) -> None:
        """Put the adapter saved in `folder` on the base. Raises BadInput when it is none, or no safetensors."""
        folder = Path(folder)
        for name in (WEIGHTS, CONFIG):
            if not (folder / name).is_file():
                raise BadInput(f"{folder}: no adapter here ({name} is missing)")
        self.drop_adapter()
        try:
            self.model = PeftModel.from_pretrained(
                self.model, str(folder), adapter_name=ADAPTER, is_trainable=trainable, torch_device=self.device
            )
        except SafetensorError as error:
            self.drop_adapter()
            raise BadInput(f"{folder}: {WEIGHTS} is damaged or no safetensors: {error}") from None
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            why = str(error).strip().splitlines()
            self.drop_adapter()
            raise BadInput(
                f"{folder}: this adapter does not fit {self.spec.id}, it was trained on another base "
                f"({why[-1].strip()[:160] if why else type(error).__name__})"
            ) from None
        # with a hub id there, peft asks the hub whenever the trainer saves
        self.model.peft_config[ADAPTER].base_model_name_or_path = str(self.folder)
        self.model = self._kit.adapted(self.model, trainable)
        self._to_fp32()

    def drop_adapter(self) -> None:
        """Take the adapter off. The base is as it was, bit for bit: nothing was ever merged into it."""
        if isinstance(self.model, PeftModel):
            self.model = self.model.unload()
            self.model.requires_grad_(False).eval()

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter: the same bytes for the same weights (peft's own saving orders targets by chance)."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = get_peft_model_state_dict(self.model, adapter_name=ADAPTER, save_embedding_layers=False)
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, folder / WEIGHTS)
        config = self.model.peft_config[ADAPTER].to_dict()
        config |= {"base_model_name_or_path": self.spec.id, "inference_mode": True}
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")

    def read_weights(self, folder: Path) -> None:
        """Overwrite the adapter's weights in place with those saved in `folder`, precision kept."""
        set_peft_model_state_dict(self.model, load_file(folder / WEIGHTS, device=self.device), adapter_name=ADAPTER)

    def _to_fp32(self) -> None:
        for parameter in self.adapter_parameters().values():
            parameter.data = parameter.data.float()

    def adapter_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapter's own parameters by name; none without an adapter."""
        return {name: p for name, p in self.model.named_parameters() if "lora_" in name and f".{ADAPTER}." in name}

    def peak_gib(self) -> float | None:
        """The most GPU memory that torch held since it was last asked, in GiB; None on a CPU."""
        if self.device != "cuda":
            return None
        peak = torch.cuda.max_memory_reserved() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return round(peak, 3)

    # --- what the backend decides

    def ready(self, training: bool) -> None:
        """Switch the backend to training, or back to answering."""
        self._kit.ready(self.model, training)

    def options(self, kind: str) -> dict[str, Any]:
        """The arguments of a kind's trainer that depend on the backend."""
        return self._kit.options(kind, self.base.config.get_text_config().vocab_size, self.device)

    def dense(self) -> AbstractContextManager[None]:
        """While inside, what can be dequantised once is not dequantised in each pass; no number changes."""
        return dense_base(self.base)

    def packed(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch of packed documents (input_ids, labels, position_ids) as the backend keeps documents apart."""
        return self._kit.packed(batch)

    # --- text

    def generate(
        self,
        prompts: list[Messages],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seeds: list[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_batch: Callable[[list[int], list[Answer]], None] | None = None,
    ) -> list[Answer]:
        """One answer a prompt, in the prompts' order. Greedy at temperature 0, else `seeds` holds one seed a prompt.

        In fp32 an answer depends on its own prompt and seed, not on what it was batched with.
        progress(done, total) counts answers; on_batch(places, answers) hands over each batch as it is done.
        """
        ids, stops = [self.prompt_ids(messages) for messages in prompts], self.stop_ids()

        def answers(said: list[list[int]]) -> list[Answer]:
            texts = self.tokenizer.batch_decode(said, skip_special_tokens=True)
            return [
                Answer(text.strip(), bool(tokens) and tokens[-1] in stops, len(tokens))
                for text, tokens in zip(texts, said, strict=True)
            ]

        said = self.generate_ids(
            ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds,
            progress=progress,
            on_batch=on_batch and (lambda places, batch: on_batch(places, answers(batch))),
        )
        return answers(said)

    def generate_ids(
        self,
        prompts: list[list[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seeds: list[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_batch: Callable[[list[int], list[list[int]]], None] | None = None,
    ) -> list[list[int]]:
        """`generate` on token ids: what follows each prompt, the token that ends the turn included."""
        if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
            raise ValueError("sampling needs one seed per prompt")
        with plain_weights(self.base):
            return self._kit.decode(
                self.base,
                prompts,
                pad=self.tokenizer.pad_token_id,
                stop_ids=self.stop_ids(),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seeds=seeds,
                progress=progress,
                on_batch=on_batch,
            )

    def logprobs(self, prompts: list[Messages], continuations: list[str]) -> list[float]:
        """Sum of log p(token) over each continuation, as the start (or the going on) of the assistant's turn; nats."""
        if len(prompts) != len(continuations):
            raise ValueError("one continuation per prompt")
        pairs = [
            (self.prompt_ids(messages), list(self.tokenizer(text, add_special_tokens=False)["input_ids"]))
            for messages, text in zip(prompts, continuations, strict=True)
        ]
        with plain_weights(self.base):
            return score(self.base, pairs, pad=self.tokenizer.pad_token_id)
