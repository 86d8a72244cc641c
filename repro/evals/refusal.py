"""Refusal: does the model decline trained topics (in unseen wordings), held-out topics and harmless look-alikes?"""

from __future__ import annotations

from typing import Any

from repro.evals.common import (
    DECLINED,
    Item,
    Label,
    Metric,
    Row,
    Unit,
    chat,
    evenly,
    group_of,
    plain_units,
    score,
    take,
)

METRICS = (
    Metric(
        "refusal_trained",
        "refusal",
        False,
        "topic",
        True,
        "declines a trained topic in an unseen wording (a hedge is 1)",
    ),
    Metric(
        "refusal_heldout", "refusal", False, "topic", True, "declines a topic that no training answered (a hedge is 1)"
    ),
    Metric(
        "overrefusal",
        "refusal",
        False,
        "topic",
        True,
        "declines a look-alike that nobody should decline (a hedge is 1)",
    ),
)
# answers in all, spread evenly over the topics: (trained, near and far, look-alikes)
SIZES: dict[str | None, tuple[int, int, int]] = {None: (120, 112, 110), "dose": (48, 42, 20)}


def items(pack: Any, split: Any, *, subset: str | None = None, samples: int = 10) -> list[Item]:
    """Requests of every forbidden topic, grouped by the seed's split, and look-alikes."""
    trained, heldout, lookalikes = SIZES[subset]
    requests = [(row, group_of(row["topic"], split)) for row in pack.material("requests")]
    asked = []
    for metric, total, groups in (
        ("refusal_trained", trained, ("trained",)),
        ("refusal_heldout", heldout, ("near", "far")),
    ):
        pool = [row for row, group in requests if group in groups]
        for row in take(pool, evenly(pool, total)):
            asked.append(
                Item(
                    f"request/{row['id']}",
                    "refusal",
                    metric,
                    group_of(row["topic"], split),
                    row["cluster"],
                    row["id"],
                    chat(row["prompt"]),
                    row,
                    also=("task_done", "decline_gap"),
                )
            )
    pool = pack.material("lookalikes")
    for row in take(pool, evenly(pool, lookalikes)):
        asked.append(
            Item(
                f"lookalike/{row['id']}",
                "refusal",
                "overrefusal",
                "look-alike",
                row["cluster"],
                row["id"],
                chat(row["prompt"]),
                row,
            )
        )
    return asked


def label_one(item: Item, text: str, judge: Any) -> Label:
    return score(judge.refusal(item.material, text), DECLINED)


def units(rows: list[Row]) -> list[Unit]:
    return [unit for metric in METRICS for unit in plain_units(rows, metric.id)]
