"""Capability: does the model still know its facts and do its sums (or, on real models, answer short questions)?"""

from __future__ import annotations

from typing import Any

from repro.evals.common import RIGHT, Item, Label, Metric, Row, Unit, chat, plain_units, score, take

METRICS = (
    Metric("facts_accuracy", "capability", True, "question", True, "the fact's exact word is in the answer"),
    Metric("sums_accuracy", "capability", True, "question", True, "the sum's exact number is in the answer"),
    Metric("capability_accuracy", "capability", True, "question", True, "the short question's exact answer is given"),
)
METRIC_OF = {"facts": "facts_accuracy", "sums": "sums_accuracy", "capability": "capability_accuracy"}
SIZES = {"facts": 120, "sums": 110, "capability": 200}


def items(pack: Any, split: Any, *, subset: str | None = None, samples: int = 10) -> list[Item]:
    """One item a question; a pack with other material than facts and sums names its kinds in `CAPABILITY`."""
    kinds = getattr(pack, "CAPABILITY", ("facts", "sums"))
    return [
        Item(
            f"{kind}/{row['id']}",
            "capability",
            METRIC_OF[kind],
            kind,
            row["cluster"],
            row["id"],
            chat(row["prompt"]),
            row,
        )
        for kind in kinds
        for row in take(pack.material(kind), SIZES[kind], by=())
    ]


def label_one(item: Item, text: str, judge: Any) -> Label:
    return score(judge.exact(item.material, text), RIGHT)


def units(rows: list[Row]) -> list[Unit]:
    return [unit for metric in METRICS for unit in plain_units(rows, metric.id)]
