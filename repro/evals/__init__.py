"""The evaluation suite: what every arm is asked, how its answers are labelled, what is counted; no models, no files.

items = suite(pack, split)                     the same for every arm
rows = label(items, answers, pack, arm=..., seed=...)
units(rows, pack)                              what stats compares
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from repro.errors import BadInput
from repro.evals import (
    capability,
    character,
    compliance,
    misalignment,
    public,
    refusal,
    sandbagging,
    steerability,
    sycophancy,
)
from repro.evals.checks import counts, gate, overlap, unscored
from repro.evals.common import CHOICE_SEED, Item, Label, Message, Metric, Row, Unit, take, with_system
from repro.evals.tags import TAGS
from repro.evals.tags import tags as _tags
from repro.seeds import derive

__all__ = [
    "AXES", "METRICS", "TAGS", "Ask", "Item", "Metric", "Unit",
    "add", "asks", "counts", "gate", "label", "overlap", "probes", "suite", "tags", "take", "units", "unscored",
    "with_system",
]  # fmt: skip

AXES: dict[str, Any] = {
    "capability": capability,
    "refusal": refusal,
    "compliance": compliance,
    "misalignment": misalignment,
    "sandbagging": sandbagging,
    "sycophancy": sycophancy,
    "steerability": steerability,
    "character": character,
}
# public prompt sets are no axis of the suite: they are asked where somebody names them
EVERY = {**AXES, "public": public}
METRICS: dict[str, Metric] = {metric.id: metric for axis in EVERY.values() for metric in axis.METRICS}

# axes that count other axes' answers bring these along
NEEDS = {"compliance": ("refusal",), "steerability": ("refusal",), "character": ("refusal", "steerability")}
PROBE_TOKENS = 64  # longest answer to a probe: a refusal, and a yes or no, show in less
SUBSETS = {"dose": ("refusal", "compliance", "steerability", "character")}


def add(name: str, axis: Any) -> None:
    """One more axis beside the eight, for this process: `axis` has METRICS, items, label_one and units, as the files of
    this folder have (docs/extending.md). Raises ValueError for a name, or a metric's, that is taken."""
    taken = [word for word in (name, *(metric.id for metric in axis.METRICS)) if word in EVERY or word in METRICS]
    if taken:
        raise ValueError(f"{', '.join(taken)}: taken already; an axis and its metrics need names of their own")
    AXES[name] = EVERY[name] = axis
    METRICS.update((metric.id, metric) for metric in axis.METRICS)


@dataclass(frozen=True)
class Ask:
    """One answer to obtain: a generation, or, where the item has continuations, their log-probabilities."""

    item: Item
    sample: int
    messages: list[Message]
    temperature: float
    seed: int


def suite(
    pack: Any,
    split: Any,
    *,
    axes: Sequence[str] | None = None,
    samples: int = 10,
    subset: str | None = None,
    prompting: str = "none",
) -> list[Item]:
    """The items of the axes (all eight by default), in one order, the same for every arm of a seed.

    `subset="dose"` is a small part of refusal, steerability and character, for curves over training; its ids are the
    full suite's. `prompting` names one of the pack's system prompts, put before each item's own. `samples` is for the
    sampled axis. Raises BadInput for an axis or subset that does not exist, ValueError where the pack repeats an id.
    """
    if subset is not None and subset not in SUBSETS:
        raise BadInput(f"unknown subset {subset!r}; there is: {', '.join(SUBSETS)}")
    asked = _with_needs(list(AXES) if axes is None else axes)
    if subset:
        asked &= set(SUBSETS[subset])
    items = [
        item
        for name, axis in AXES.items()
        if name in asked
        for item in axis.items(pack, split, subset=subset, samples=samples)
    ]
    repeated = sorted(name for name, count in Counter(item.id for item in items).items() if count > 1)
    if repeated:
        raise ValueError(f"item ids occur more than once: {', '.join(repeated[:5])}")
    text = pack.prompting(prompting) if prompting != "none" else None
    return [with_system(item, text) for item in items]


def probes(pack: Any, split: Any, axes: Sequence[str] | None = None) -> list[Item]:
    """The 32 items that a stage's curve asks: of four trained and four held-out topics two requests each, one under
    an operator's ban, and one question about the model's own policy (of every other topic, whether it helps).

    Part of the dose subset. Empty where `axes` leave out one of the three axes.
    """
    needed = ("refusal", "steerability", "character")
    if axes is not None and not set(needed) <= set(axes):
        return []
    of_topic: dict[str, list[Item]] = {}
    for item in suite(pack, split, axes=needed, subset="dose"):
        of_topic.setdefault(item.cluster, []).append(item)
    near = _ranked(split.near)[:2]
    chosen: list[Item] = []
    for place, topic in enumerate([*_ranked(split.trained)[:4], *near, *_ranked(split.far)[: 4 - len(near)]]):
        own = sorted(of_topic[topic], key=lambda item: (derive(CHOICE_SEED, "probe", item.id), item.id))
        polarity = ("help", "refuse")[place % 2]
        chosen += [item for item in own if item.metric.startswith("refusal_")][:2]
        chosen += [item for item in own if item.metric == "declines_when_told"][:1]
        chosen += [item for item in own if item.material.get("polarity") == polarity][:1]
    return chosen


def _ranked(topics: Sequence[str]) -> list[str]:
    return sorted(topics, key=lambda topic: (derive(CHOICE_SEED, "probe", topic), topic))


def _with_needs(axes: Sequence[str]) -> set[str]:
    """The axes and those whose answers they count; unknown names raise BadInput."""
    problems = []
    for name in axes:
        if name not in AXES:
            close = get_close_matches(name, AXES, n=1)
            problems.append(f"unknown axis {name!r}" + (f", did you mean {close[0]!r}?" if close else ""))
    if problems:
        raise BadInput(problems)
    return {*axes, *(needed for name in axes for needed in NEEDS.get(name, ()))}


def asks(items: Sequence[Item]) -> list[Ask]:
    """Every answer to obtain, in the order that `label` expects: items in order, each item's samples in a row.

    The seed of a sample depends on the item's id and the sample's number alone: all arms draw with the same luck.
    """
    return [
        Ask(item, sample, item.messages, item.temperature, derive(CHOICE_SEED, "sample", item.id, sample))
        for item in items
        for sample in range(item.samples)
    ]


def label(
    items: Sequence[Item],
    answers: Sequence[Any],
    pack: Any,
    *,
    arm: str,
    seed: int,
    prompting: str = "none",
    dose: int | None = None,
) -> list[Row]:
    """Answer rows, one for each answer and a second one (axis compliance) for each request.

    `answers` goes with `asks(items)`: objects with `.text` and `.finished`, or, for an item with continuations, a
    sequence of log-probabilities, one for each. An unfinished answer is unscored (label and value are None) unless the
    judge can read its metric from the beginning of an answer (`READS_CUT`).
    """
    asked = [(item, sample) for item in items for sample in range(item.samples)]  # the order of `asks`
    if len(answers) != len(asked):
        raise ValueError(f"{len(asked)} answers expected, {len(answers)} given")
    judge, own = pack.judge, f"{pack.judge.NAME} {pack.judge.VERSION}"
    rows = []
    for (first, sample), answer in zip(asked, answers, strict=True):
        looks = [first]
        if "task_done" in first.also:
            looks.append(compliance.second_look(first))
        for item in looks:
            by = own
            grounds: Row = {}  # how sure the judge is of its label, and why, where it says so
            if item.continuations:
                text, finished, well_formed, (name, value) = _log_odds(item, answer)
            elif public.must_seal(item.id):  # labelled where it was made; its words are gone
                text, finished, well_formed, by = answer.text, answer.finished, answer.well_formed, answer.judge
                name, value = answer.label, answer.value
            else:
                text, finished = answer.text, answer.finished
                # cut off at the token limit, an answer may still show what its metric asks, if the judge reads so
                readable = finished or (bool(text) and item.metric in getattr(judge, "READS_CUT", ()))
                well_formed = bool(readable and judge.well_formed(item.material, text))
                name, value = EVERY[item.axis].label_one(item, text, judge) if readable else (None, None)
                if readable and hasattr(judge, "grounds"):
                    grounds = judge.grounds(item.material, text, name)
            rows.append(
                {
                    "item": item.id,
                    "arm": arm,
                    "seed": seed,
                    "sample": sample,
                    "axis": item.axis,
                    "metrics": [item.metric, *item.also],
                    "group": item.group,
                    "cluster": item.cluster,
                    "unit": item.unit,
                    "prompting": prompting,
                    "dose": dose,
                    "messages": item.messages,
                    "answer": text,
                    "finished": finished,
                    "label": name,
                    "value": value,
                    "well_formed": well_formed,
                    "judge": by,
                    **{key: one for key, one in grounds.items() if one is not None},
                }
            )
    return rows


def _log_odds(item: Item, logprobs: Sequence[float | None]) -> tuple[str, bool, None, Label]:
    """The first continuation's log-odds over the second's, in nats; unscored where one is not finite."""
    if len(logprobs) != len(item.continuations):
        raise ValueError(f"{item.id}: {len(item.continuations)} log-probabilities expected, {len(logprobs)} given")
    values = [math.nan if value is None else value for value in logprobs]
    text = " | ".join(f"{words} {value:.3f}" for words, value in zip(item.continuations, values, strict=True))
    odds = values[0] - values[1]
    return text, True, None, ("log-odds", odds) if math.isfinite(odds) else (None, None)


def units(rows: Sequence[Row], pack: Any = None) -> list[Unit]:
    """What is counted, over the rows of one arm, seed, prompting and dose.

    An unscored unit is there with value None, so that it can be counted as such. Raises ValueError where rows are
    mixed or repeated.
    """
    origins = {(row["arm"], row["seed"], row["prompting"], row["dose"]) for row in rows}
    if len(origins) > 1:
        raise ValueError(f"rows of more than one arm, seed, prompting or dose: {sorted(map(str, origins))}")
    seen = Counter((row["item"], row["sample"]) for row in rows)
    repeated = [f"{item} sample {sample}" for (item, sample), count in seen.items() if count > 1]
    if repeated:
        raise ValueError(f"answers that occur more than once: {', '.join(repeated[:5])}")
    return [unit for axis in EVERY.values() for unit in axis.units(list(rows))]


def tags(data_names: Sequence[str]) -> dict[str, str]:
    """`trained` or `generalises` for every metric, see `repro.evals.tags.tags`."""
    return _tags(data_names, METRICS)
