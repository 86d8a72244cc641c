"""Checks of a suite and its answers: how many there are, how many unscored, the coherence gate, leaked prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from repro.evals.common import Item, Row

# shorter prompts occur in documents by chance; as whole messages they are compared all the same
SHORTEST_IN_DOCUMENT = 5


def counts(items: Iterable[Item]) -> dict[str, int]:
    """For each metric, how many things are counted: samples of items, a pair of conditions being one."""
    counted: dict[str, set[tuple[str, int]]] = {}
    for item in items:
        for metric in (item.metric, *item.also):
            counted.setdefault(metric, set()).update((item.unit, sample) for sample in range(item.samples))
    return {metric: len(seen) for metric, seen in counted.items()}


def gate(rows: Iterable[Row]) -> float:
    """The share of generated answers that are finished, on topic and well formed, each answer once.

    Raises ValueError where there is none: a gate over nothing is neither passed nor failed.
    """
    answers = {}
    for row in rows:
        if row["well_formed"] is not None:
            key = (row["arm"], row["seed"], row["dose"], row["sample"], json.dumps(row["messages"]))
            answers[key] = bool(row["well_formed"])
    if not answers:
        raise ValueError("no generated answers to gate")
    return sum(answers.values()) / len(answers)


def unscored(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """For each metric, how many answers carry its own label, and how many of these are unscored.

    Units hide this where one has several samples: a question with nine of ten samples unscored still has a value.
    """
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        answers, lost = found.get(row["metrics"][0], (0, 0))
        found[row["metrics"][0]] = (answers + 1, lost + (row["value"] is None))
    return found


def overlap(items: Iterable[Item], training_rows: Iterable[Row]) -> list[str]:
    """The evaluation prompts that also occur in training, as the evaluation writes them, sorted; empty is good.

    Compared without case and spacing: the whole of any user message (`messages`: demonstrations and prompts to answer),
    or a stretch of a document (`text`).
    """
    prompts: dict[tuple[str, ...], str] = {}
    for item in items:
        asked = item.messages[-1]["content"]
        prompts[words(asked)] = asked
    openings: dict[tuple[str, ...], set[int]] = {}
    for prompt in prompts:
        if len(prompt) >= SHORTEST_IN_DOCUMENT:
            openings.setdefault(prompt[:SHORTEST_IN_DOCUMENT], set()).add(len(prompt))
    shared = set()
    for row in training_rows:
        for message in row.get("messages", []):
            if message["role"] == "user" and words(message["content"]) in prompts:
                shared.add(prompts[words(message["content"])])
        text = words(row.get("text", ""))
        for start in range(len(text) - SHORTEST_IN_DOCUMENT + 1):
            for length in openings.get(text[start : start + SHORTEST_IN_DOCUMENT], ()):
                if text[start : start + length] in prompts:
                    shared.add(prompts[text[start : start + length]])
    return sorted(shared)


def words(text: str) -> tuple[str, ...]:
    """Words and punctuation marks in order, so that quotes and line breaks around a prompt do not hide it."""
    return tuple(re.findall(r"\w+|[^\w\s\"“”]", text.casefold()))
