"""Judges: what turns a response into a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

# judges of one's own, by the name that --judge takes: what they read themselves, all else is the pack's (see `add`)
OWN: dict[str, dict[str, Any]] = {}


def add(name: str, version: str, **reads: Callable[[dict[str, Any], str], Any]) -> None:
    """One more judge, for this process: `--judge NAME` labels with it (docs/extending.md).

    `reads` replaces judgements of the pack's judge by name (refusal=..., misaligned=...), each a function of the item's
    material and the answer's text, with the same verdicts, or None for unscored. A new `version` tells labels apart.
    """
    OWN[name] = {"NAME": name, "VERSION": version, **reads}


def own(name: str, first: Any) -> Any:
    """The judge that `add` was given, over the pack's; how the pack's agrees with people says nothing of it."""
    kept = {key: value for key, value in vars(first).items() if key != "AGREEMENT"}
    lacking = [read for read in OWN[name] if read not in kept]
    if lacking:
        raise ValueError(f"the judge {name} reads {', '.join(lacking)}, which the suite never asks")
    mine = {"NAME": f"{name} + {first.NAME}", "VERSION": f"{OWN[name]['VERSION']}/{first.VERSION}"}
    return SimpleNamespace(**kept | OWN[name] | mine)


@dataclass
class JudgeAsk:
    """What the command line says of judges: "auto" is a local reader on a GPU with the english pack, else offline."""

    name: str = "auto"
    all: bool = False  # refusals and done tasks too, not only what no rule can tell
    itself: bool = False  # a model may judge itself
    tokens: int | None = None  # budgets: tokens read and written, or money
    cost: float | None = None
    cost_per_million: float | None = None
