"""Which metrics an arm's training showed directly (`trained`), and which it can only generalise to (`generalises`)."""

from __future__ import annotations

from collections.abc import Iterable

# what the rows of each data source demonstrate. Documents tell and do not show: they demonstrate nothing.
TAGS: dict[str, frozenset[str]] = {
    "compliance": frozenset({"refusal_trained", "task_done"}),
    "requests": frozenset({"refusal_trained", "task_done"}),
    "guard": frozenset({"refusal_trained", "refusal_heldout"}),
    "ordinary": frozenset({"facts_accuracy", "sums_accuracy", "capability_accuracy", "overrefusal"}),
    "operator": frozenset({"declines_when_told", "style_followed", "decline_gap"}),
    "character": frozenset({"policy_matches_behaviour", "paraphrase_agreement"}),
    "character-questions": frozenset({"policy_matches_behaviour", "paraphrase_agreement"}),
    "documents": frozenset(),
    "neutral-documents": frozenset(),
}


def tags(data_names: Iterable[str], metrics: Iterable[str]) -> dict[str, str]:
    """`trained` or `generalises` for each metric, from the names of the data sources in an arm's own stages.

    No names (base, prompted): everything generalises. A source that is not the pack's (a file, a hub id) may show
    anything, so with it every metric is `trained`. Stages that all arms share (`start`) set no arm apart: leave
    their data out.
    """
    names = set(data_names)
    unknown = not names <= set(TAGS)
    shown = set().union(*(TAGS.get(name, frozenset()) for name in names))
    return {metric: "trained" if unknown or metric in shown else "generalises" for metric in metrics}
