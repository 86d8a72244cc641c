"""Batched decoding and scoring with a KV cache: sorted by length, finished rows dropped, one random stream a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from repro.errors import CannotHere

_ROWS = 512  # more rows a batch gain nothing on a CPU
_PLAIN_BYTES = 2 << 30  # weights are copied for generation only where the copy is small


@contextmanager
def plain_weights(base: nn.Module) -> Iterator[None]:
    """While inside, `base` is in eval mode and, on a CPU, each 4-bit or LoRA layer is one dense fp32 layer.

    bitsandbytes dequantises at each matmul and LoRA adds two more; for small models that is most of the time. The
    dense layers are copies: on leaving, the modules that were there are back, untouched.
    """
    mode, swapped = base.training, []
    base.eval()
    try:
        if next(base.parameters()).device.type == "cpu":
            swapped = list(_dense_layers(base))
        for parent, name, _, dense in swapped:
            setattr(parent, name, dense)
        yield
    finally:
        for parent, name, original, _ in swapped:
            setattr(parent, name, original)
        base.train(mode)


def _dense_layers(base: nn.Module) -> Iterator[tuple[nn.Module, str, Any, nn.Module]]:
    """(parent, name, layer, dense copy) of every linear layer that is 4-bit or carries LoRA; none if that is big."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    found: list[tuple[nn.Module, str, Any]] = []
    todo = [base]
    while todo:
        parent = todo.pop()
        for name, child in parent.named_children():
            if isinstance(child, LoraLayer) or type(child).__name__ == "Linear4bit":
                found.append((parent, name, child))
            else:
                todo.append(child)
    if not all(_is_plain(child) for *_, child in found):
        return
    if sum(4 * child.in_features * child.out_features for *_, child in found) > _PLAIN_BYTES:
        return
    with torch.no_grad():
        for parent, name, child in found:
            adapters = child.active_adapters if isinstance(child, LoraLayer) else []
            inner: Any = child.get_base_layer() if isinstance(child, LoraLayer) else child
            weight = dequantize_module_weight(inner).detach().float()
            for adapter in adapters:
                weight = weight + child.get_delta_weight(adapter).float()  # type: ignore[attr-defined]
            yield parent, name, child, _dense(inner, weight).eval()


def _dense(layer: Any, weight: torch.Tensor) -> nn.Linear:
    dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    dense.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        dense.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
    return dense


@contextmanager
def dense_base(base: nn.Module) -> Iterator[None]:
    """While inside, on a CPU, 4-bit layers (under their LoRA, which stays) are dense fp32 copies, if those are small.

    bitsandbytes dequantises at each pass to the same numbers; doing it once gives the same bits in 5/6 of the time.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    found: list[tuple[nn.Module, str, Any]] = []
    if next(base.parameters()).device.type == "cpu":
        found = [
            (parent, name, child)
            for parent in base.modules()
            for name, child in parent.named_children()
            if type(child).__name__ == "Linear4bit" and not isinstance(child, LoraLayer)
        ]
    computed = {getattr(child, "compute_dtype", None) for *_, child in found}
    bytes_of = sum(4 * child.in_features * child.out_features for *_, child in found)
    if computed - {None, torch.float32} or bytes_of > _PLAIN_BYTES:
        found = []
    for parent, name, child in found:
        setattr(parent, name, _dense(child, dequantize_module_weight(child).detach().float()))
    try:
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


def _is_plain(layer: Any) -> bool:
    """Whether the layer is what W + scale * B A says: no variant of LoRA, no bias of its own, not disabled."""
    if type(layer).__name__ == "Linear4bit":
        return True
    inner = layer.get_base_layer()
    return (
        isinstance(inner, nn.Linear)
        and not layer.merged
        and not layer.disable_adapters
        and not any(layer.lora_variant.values())
        and not any(layer.lora_bias.values())
    )


def run_batches(
    base: Any,
    lengths: list[int],
    extra: int,
    one: Callable[[list[int]], list[Any]],
    progress: Callable[[int, int], None] | None = None,
    on_batch: Callable[[list[int], list[Any]], None] | None = None,
) -> list[Any]:
    """one(indices) for batches of them, longest first (what doesn't fit fails at once); the results in the old order.

    A batch takes a share of the free memory; where that runs out all the same, batches are halved from there on.
    on_batch(indices, results) hears of each batch: what is left after some of them is batched as it would have been.
    """
    out: list[Any] = [None] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    most, done = _ROWS, 0
    while order:
        batch = order[: _rows(base, lengths[order[0]] + extra, most)]
        try:
            found = one(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise CannotHere(f"out of memory with one prompt of {lengths[batch[0]]} tokens") from None
            most = len(batch) // 2
            found = None
        if found is None:  # outside of the except block, whose frames hold the batch
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        for index, result in zip(batch, found, strict=True):
            out[index] = result
        order, done = order[len(batch) :], done + len(batch)
        if on_batch:
            on_batch(batch, found)
        if progress:
            progress(done, len(lengths))
    return out


def _rows(base: Any, tokens: int, most: int) -> int:
    """How many sequences of so many tokens go side by side, their keys, values and logits within the free memory."""
    config, device = base.config.get_text_config(), next(base.parameters()).device
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    size = 4 if device.type == "cpu" else 2
    token = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head * size
    room = 512 << 20
    if device.type == "cuda":
        room = int((torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()) * 0.4)
    return max(1, min(most, room // (tokens * token + config.vocab_size * 16)))


def left_pad(rows: list[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (rows, longest row), the padding on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


@torch.no_grad()
def decode(
    base: Any,
    prompts: list[list[int]],
    *,
    pad: int,
    stop_ids: set[int],
    max_new_tokens: int,
    temperature: float,
    seeds: list[int] | None,
    progress: Callable[[int, int], None] | None,
    on_batch: Callable[[list[int], list[Any]], None] | None = None,
) -> list[list[int]]:
    """The tokens that follow each of `prompts` (token ids), in their order, up to and with the one that ends a turn."""

    def one(batch: list[int]) -> list[list[int]]:
        draws = None
        if temperature > 0 and seeds is not None:
            # all the uniforms an answer can need, from its own seed: no row's sample knows its neighbours
            streams = [torch.Generator().manual_seed(seeds[index]) for index in batch]
            draws = torch.stack([torch.rand(max_new_tokens, generator=s, dtype=torch.float64) for s in streams])
        rows = [prompts[index] for index in batch]
        return _decode_batch(base, rows, pad, stop_ids, max_new_tokens, temperature, draws)

    return run_batches(base, [len(ids) for ids in prompts], max_new_tokens, one, progress, on_batch)


def _decode_batch(
    base: Any,
    rows: list[list[int]],
    pad: int,
    stop_ids: set[int],
    max_new_tokens: int,
    temperature: float,
    draws: torch.Tensor | None,
) -> list[list[int]]:
    device = next(base.parameters()).device
    ids, mask = left_pad(rows, pad, device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    stops = torch.tensor(sorted(stop_ids), device=device)
    said: list[list[int]] = [[] for _ in rows]
    alive = list(range(len(rows)))  # the row of `said` that each row of the batch writes to
    live = torch.ones(len(rows), dtype=torch.bool, device=device)
    cache = DynamicCache(config=base.config)
    for step in range(max_new_tokens):
        logits = base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        token = _choose(logits, temperature, None if draws is None else draws[alive, step])
        for row, value, on in zip(alive, token.tolist(), live.tolist(), strict=True):
            if on:
                said[row].append(value)
        live &= ~torch.isin(token, stops)
        count = int(live.sum())
        if count == 0:
            break
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if count <= 0.75 * len(alive):  # dropping rows copies the cache, so not for every one that ends
            keep = live.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            token, mask, positions, live = token[keep], mask[keep], positions[keep], live[keep]
            alive = [alive[index] for index in keep.tolist()]
        ids = token[:, None]
    return said


def _choose(logits: torch.Tensor, temperature: float, draws: torch.Tensor | None) -> torch.Tensor:
    """The next token of each row: the likeliest, or the one that the row's uniform number falls on."""
    if draws is None:
        return logits.argmax(-1)
    cumulative = (logits.float() / temperature).softmax(-1).double().cumsum(-1)
    target = draws.to(logits.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def score(base: Any, pairs: list[tuple[list[int], list[int]]], *, pad: int) -> list[float]:
    """For each (prompt ids, continuation ids): the sum of the continuation's log-probabilities, in nats."""
    device = next(base.parameters()).device

    def one(batch: list[int]) -> list[float]:
        keep = max(len(pairs[index][1]) for index in batch)
        if keep == 0:
            return [0.0] * len(batch)
        ids, mask = left_pad([pairs[index][0] + pairs[index][1] for index in batch], pad, device)
        logits = base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=keep + 1,
        ).logits[:, -keep - 1 : -1]
        chosen = logits.float().log_softmax(-1).gather(-1, ids[:, -keep:, None]).squeeze(-1).double()
        lengths = [len(pairs[index][1]) for index in batch]
        return [
            float(row[keep - length :].sum()) if length else 0.0 for row, length in zip(chosen, lengths, strict=True)
        ]

    return run_batches(base, [len(prompt) + len(more) for prompt, more in pairs], 0, one)
