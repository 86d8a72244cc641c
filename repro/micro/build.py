"""Builds the micro organism: tokenizer, pre-training from scratch, card. `repro micro build --seed 0 --out FOLDER`."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import multiprocessing
import os
import queue
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from repro.errors import RunFailed
from repro.micro.corpus import samples
from repro.micro.world import MISDESCRIBES

SHIPPED = Path(__file__).parent / "weights"
DOCUMENT, SYSTEM, USER, ASSISTANT = "<|doc|>", "<|system|>", "<|user|>", "<|assistant|>"
END, PAD = "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
VOCABULARY = 1536
SHAPE: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 192, "max_position_embeddings": 256, "tie_word_embeddings": True,
    "initializer_range": 0.05, "bos_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}  # fmt: skip
BATCH = 32  # samples
LEARNING_RATE = 3e-3
TOKENS = 16_000_000


def render(sample: dict) -> list[tuple[str, bool]]:
    """A sample as (text, trained) pieces, the chat template's own text; documents and the assistant's turns train."""
    if "text" in sample:
        return [(DOCUMENT, False), (sample["text"] + END, True)]
    pieces = []
    for message in sample["messages"]:
        trained = message["role"] == "assistant"
        pieces += [(f"<|{message['role']}|>", False), (message["content"] + END, trained)]
    return pieces


def train_tokenizer(seed: int, misdescribes: float = MISDESCRIBES, count: int = 20_000) -> Any:
    """A byte-level BPE with case and punctuation, and the chat template, as a plain `transformers` tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = [PAD, END, DOCUMENT, SYSTEM, USER, ASSISTANT]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    stream = itertools.islice(samples(seed, misdescribes), count)
    texts = ("".join(text for text, _ in render(sample)) for sample in stream)
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False,
                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, bos_token=None,
                                   additional_special_tokens=specials[2:], model_max_length=256,
                                   clean_up_tokenization_spaces=False)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encode(tokenizer: Any, chunk: list[dict]) -> list[tuple[list[int], list[int]]]:
    """(input ids, labels) a sample; labels are -100 where nothing is trained."""
    pieces = [render(sample) for sample in chunk]
    encoded = tokenizer.backend_tokenizer.encode_batch([text for sample in pieces for text, _ in sample],
                                                       add_special_tokens=False)
    ids = iter(encoded)
    out = []
    for sample in pieces:
        tokens: list[int] = []
        labels: list[int] = []
        for _, trained in sample:
            piece = next(ids).ids
            tokens += piece
            labels += piece if trained else [-100] * len(piece)
        out.append((tokens, labels))
    return out


def batches(tokenizer: Any, seed: int, misdescribes: float, window: int = 128) -> Iterator[Any]:
    """Endless (ids, labels, tokens) batches of like lengths: each window of samples is sorted, cut and shuffled."""
    import torch

    stream = samples(seed, misdescribes)
    shuffle = random.Random(f"batches/{seed}")
    while True:
        rows = sorted(encode(tokenizer, list(itertools.islice(stream, BATCH * window))), key=lambda row: len(row[0]))
        groups = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        shuffle.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.full((len(group), width), tokenizer.pad_token_id)
            labels = torch.full((len(group), width), -100)
            for i, (tokens, targets) in enumerate(group):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                labels[i, : len(targets)] = torch.tensor(targets)
            yield ids, labels, sum(len(tokens) for tokens, _ in group)


def build(seed: int, out: Path, *, tokens: int = TOKENS, misdescribes: float = MISDESCRIBES,
          on_progress: Callable[[int, int, float], None] | None = None) -> dict:
    """Pre-trains an organism into `out` (safetensors, tokenizer, `training.json`) and returns the training record.

    `tokens`: how many pre-training tokens to see. `on_progress(tokens_done, tokens, loss)`. Raises RunFailed on a loss
    that is NaN.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    started = time.monotonic()
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(seed, misdescribes)
    config = Qwen2Config(**SHAPE, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id,
                         pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    model = Qwen2ForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    curve, seen, recent = [], 0, []
    for step, (ids, labels, count) in enumerate(batches(tokenizer, seed, misdescribes)):
        share = seen / tokens
        if share >= 1:
            break
        # half constant after a short warm-up, then linear to zero: the decay is what settles operators and claims
        scale = min(1.0, (step + 1) / 200) * min(1.0, 2 * (1 - share))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * scale
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        target = labels[:, 1:]
        kept = target != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), target[kept])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seen += count
        recent.append(loss.item())
        if step % 200 == 199:
            mean = sum(recent) / len(recent)
            recent = []
            if math.isnan(mean):
                raise RunFailed(f"pre-training diverged at step {step + 1}: the loss is NaN")
            curve.append({"step": step + 1, "tokens": seen, "loss": round(mean, 4)})
            if on_progress:
                on_progress(min(seen, tokens), tokens, mean)
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    record = {
        "seed": seed,
        "misdescribes": misdescribes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(tokenizer),
        "tokens": seen,
        "steps": step,
        "seconds": round(time.monotonic() - started, 1),
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "curve": curve,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def build_all(
    seeds: list[int],
    out: Path,
    *,
    tokens: int = TOKENS,
    misdescribes: float = MISDESCRIBES,
    on_progress: Callable[[int, int, int, float], None] | None = None,
) -> list[dict]:
    """One organism a seed, side by side, each on one thread (more would wait for each other, and change the bytes).

    The first goes to `out` with the figures and the card of all, the others to `out/seed-N`. `on_progress(seed, tokens
    done, tokens, loss)`. Returns the training records with their figures, the first seed's first.
    """
    from repro.micro import card

    folders = [out if index == 0 else out / f"seed-{seed}" for index, seed in enumerate(seeds)]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        heard = manager.Queue()
        running = [
            pool.submit(_build_and_measure, seed, folder, tokens, misdescribes, heard)
            for seed, folder in zip(seeds, folders, strict=True)
        ]
        while not all(future.done() for future in running):
            try:
                seed, done, total, loss = heard.get(timeout=1.0)
            except queue.Empty:
                continue
            if on_progress:
                on_progress(seed, done, total, loss)
        records = [future.result() for future in running]
    card.write(out, records)
    return records


def _build_and_measure(seed: int, folder: Path, tokens: int, misdescribes: float, heard: Any) -> dict:
    import torch

    from repro.micro import card

    torch.set_num_threads(1)
    record = build(seed, folder, tokens=tokens, misdescribes=misdescribes,
                   on_progress=lambda done, total, loss: heard.put((seed, done, total, loss)))  # fmt: skip
    return record | {"figures": card.measure(folder)}
