"""Several processes that train one stage (repro.launch): what they tell each other. Alone, each of these is trivial."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def processes() -> int:
    """How many processes train the stage: each takes its share of every batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; the first, 0, writes what is kept."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Until all of them are here."""
    if processes() > 1:
        dist.barrier()


def first(value: Any) -> Any:
    """The first process's value, for all."""
    box = [value]
    if processes() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def all_of(values: list[Any]) -> list[Any]:
    """Everybody's values in one list, the first process's first."""
    if processes() == 1:
        return values
    lists: list[Any] = [None] * processes()
    dist.all_gather_object(lists, values)
    return [value for part in lists for value in part]


def least(number: int, device: str) -> int:
    """The smallest of everybody's numbers."""
    if processes() == 1:
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)
