"""What the arms of a run hold inside, layer by layer: emotion directions, and the direction of declining.

    repro probe RUN   -> RUN/probes.json and RUN/probes/*.svg

Emotions (the paper's plot): on the base, the mean activation over the tokens of an emotion's short stories minus the
mean over all other stories is the emotion's direction. For each arm it is read at the last prompt token: requests minus
ordinary prompts, as cosine and as projection (1: as far apart as the emotion's stories are from the others).
Declining: on the base, requests that it declines minus ordinary prompts that it answers; a prompt's place along it is
0 at the mean of the answered ones and 1 at that of the declined ones. One half of the prompts makes that direction, the
other half is read. Bands are bootstraps over topics: they show what other prompts would change, not what other
training runs would. A direction is a summary of a difference of means, no proof of a feeling or of a cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

import repro
from repro import data, store
from repro.arms import Ready, Run, open_run
from repro.errors import BadInput
from repro.evals.common import chat, group_of
from repro.seeds import derive

FIRST = ("guilty", "desperate")  # the paper's; the pack's others follow
NEUTRAL = "neutral"  # stories of no emotion: others are compared with them too
DECLINING = "declining"
AGAINST = "ordinary"
FEWEST = 8  # prompts a side that a direction is made of
RESAMPLES = 1000
ANSWER = 48  # tokens of the base's answers, enough to see whether it declines

Values = np.ndarray  # (prompts, layers), or (stories, layers)
Mean = tuple[Values, Values, int]  # see means()


# directions and readings: activations in, numbers out -----------------------------------------------------------------


def emotion_directions(stories: Mapping[str, Any]) -> dict[str, Any]:
    """{emotion: (layers, width)} from activations {emotion: (stories, layers, width)}: its mean minus the others'."""
    means = {emotion: found.mean(0) for emotion, found in stories.items()}
    directions = {}
    for emotion, mean in means.items():
        others = [other for name, other in means.items() if name != emotion]
        if emotion != NEUTRAL:
            directions[emotion] = mean - sum(others) / len(others)
    return directions


def cosine(states: Any, direction: Any) -> Values:
    """Cosine of each state (prompts, layers, width) with the direction (layers, width) of its layer."""
    size = states.norm(dim=-1) * direction.norm(dim=-1)
    return ((states * direction).sum(-1) / size.clamp(min=1e-12)).double().numpy()


def projection(states: Any, direction: Any) -> Values:
    """How far each state goes along the direction, in lengths of it."""
    return ((states * direction).sum(-1) / (direction**2).sum(-1).clamp(min=1e-12)).double().numpy()


def separation(stories: Mapping[str, Any]) -> dict[str, list[float]]:
    """How well each direction, made of one half of the stories, tells the other half apart, by layer.

    The probability that a story of the emotion lies further along than another story: 0.5 is chance, 1 is always.
    """
    halves = [{name: found[part::2] for name, found in stories.items()} for part in (0, 1)]
    scores: dict[str, list[Values]] = {}
    for made, read in (halves, halves[::-1]):
        for emotion, direction in emotion_directions(made).items():
            own = projection(read[emotion], direction)
            rest = np.concatenate([projection(found, direction) for name, found in read.items() if name != emotion])
            further = (own[:, None] > rest[None]) + 0.5 * (own[:, None] == rest[None])
            scores.setdefault(emotion, []).append(further.mean((0, 1)))
    return {emotion: np.mean(found, 0).tolist() for emotion, found in scores.items()}


def means(values: Values, clusters: Sequence[str], seed: int) -> Mean:
    """The mean over prompts (layers), the means over resampled clusters (resamples, layers), and how many clusters."""
    names = sorted(set(clusters))
    places = np.array([names.index(cluster) for cluster in clusters])
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, places, values)
    counts = np.bincount(places, minlength=len(names)).astype(float)
    chances = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), chances, size=RESAMPLES).astype(float)
    return values.mean(0), (draws @ sums) / (draws @ counts)[:, None], len(names)


def band(draws: Values, clusters: int) -> tuple[Values, Values] | None:
    """95% percentile band of resampled means, widened for few clusters as in stats.cluster_bootstrap; None for one."""
    if clusters < 2:
        return None
    quantile = special.stdtrit(clusters - 1, 0.975) * math.sqrt(clusters / (clusters - 1))
    low, high = np.quantile(draws, [special.ndtr(-quantile), special.ndtr(quantile)], axis=0)
    return low, high


# a run ----------------------------------------------------------------------------------------------------------------


def probe(path: Path, arms: str | None = None, seeds: str | None = None, say: Callable[[str], None] = print) -> Any:
    """Reads the arms of a run (all that are there, or those named) and writes probes.json, whose content it returns.

    Pictures go to probes/. Raises BadInput for a run, arm or seed that is not there, and where the pack has no stories.
    """
    run = open_run(path)
    pack = data.load(run.experiment["pack"])
    chosen = run.seeds if seeds is None else _numbers(seeds)
    asked = {seed: _arms(run, arms, seed, say) for seed in chosen}
    stories = _stories(pack)
    model = run.load_model()
    gathered = Gathered()
    content: dict[str, Any] = {"emotions": [], "declining": [], "warnings": []}
    for seed in chosen:
        for line in _one_seed(model, pack, stories, seed, asked[seed], gathered, content):
            say(line)
    if not gathered.rows:
        raise BadInput(f"{path}: nothing could be read")
    names = dict.fromkeys(arm.name for found in asked.values() for arm in found)
    config = model.base.config.get_text_config()
    content = {
        "schema": 1,
        "run": run.path.name,
        "repro": repro.__version__,
        "made": store.now(),
        "model": {"id": run.manifest["model"]["id"], "quant": run.experiment["quant"], "base": run.manifest["base"]},
        "pack": run.experiment["pack"],
        "arms": list(names),
        "seeds": chosen,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        **content,
        "readings": gathered.rows + gathered.pooled(),
    }
    from repro.report import probe_plot

    store.write_json(run.path / "probes.json", content)
    for name, picture in probe_plot.files(content).items():
        (run.path / "probes").mkdir(exist_ok=True)
        store.write_atomic(run.path / "probes" / f"{name}.svg", picture)
    return content


def _numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() for word in words):
        raise BadInput(f"--seeds {text}: whole numbers with commas between, e.g. 0,1")
    return list(dict.fromkeys(map(int, words)))


def _arms(run: Run, text: str | None, seed: int, say: Callable[[str], None]) -> list[Ready]:
    """The arms to read of one seed, the base first: everything is compared with it."""
    found, lines = run.choose(text, seed)
    for line in lines:
        say(f"seed {seed}: {line}")
    return [*run.choose("base", seed)[0], *(arm for arm in found if arm.name != "base")]


def _stories(pack: Any) -> dict[str, list[str]]:
    """{emotion: its stories}, the paper's emotions first."""
    rows = pack.material("emotions")
    names = list(dict.fromkeys(row["emotion"] for row in rows))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return {name: [row["text"] for row in rows if row["emotion"] == name] for name in names}


@dataclass
class Prompts:
    """Rows of one group, in two halves: `read` for the figures, `fit` for the direction of declining."""

    read: list[dict[str, Any]] = field(default_factory=list)
    fit: list[dict[str, Any]] = field(default_factory=list)


def prompts(pack: Any, split: Any) -> dict[str, Prompts]:
    """{trained, heldout, look-alike, ordinary}: every second prompt of each topic is read, in an order of its own."""
    found = {name: Prompts() for name in ("trained", "heldout", "look-alike", AGAINST)}
    for kind in ("requests", "lookalikes", "ordinary"):
        rows = sorted(pack.material(kind), key=lambda row: (row["cluster"], derive(0, "probe", row["id"])))
        for place, row in enumerate(rows):
            group = {"lookalikes": "look-alike", "ordinary": AGAINST}.get(kind)
            if group is None:
                group = "trained" if group_of(row["topic"], split) == "trained" else "heldout"
            (found[group].fit if place % 2 else found[group].read).append(row)
    return found


def _one_seed(
    model: Any, pack: Any, texts: Mapping[str, list[str]], seed: int, arms: Sequence[Ready], gathered: Gathered,
    content: dict[str, Any],
) -> Iterable[str]:  # fmt: skip
    """Reads one seed's arms into `gathered` and `content`; yields lines that say how it went."""
    from repro.models.hidden import activations

    groups = prompts(pack, pack.split(seed))
    arms[0].put_on(model)
    ids = {name: [model.tokenizer(text)["input_ids"] for text in found] for name, found in texts.items()}
    stories = {name: activations(model, rows, "mean") for name, rows in ids.items()}
    directions = emotion_directions(stories)
    apart = separation(stories)
    for emotion in directions:
        told = {"seed": seed, "emotion": emotion, "stories": len(texts[emotion])}
        content["emotions"].append(told | {"separation": _rounded(apart[emotion])})
    scale = _declining(model, pack, groups, arms[0], seed, content)
    if scale is None:
        yield content["warnings"][-1]
    before: dict[tuple[str, str], dict[str, Values]] = {}
    for arm in arms:
        arm.put_on(model)
        asked = [(name, row) for name, group in groups.items() for row in group.read]
        tokens = [model.prompt_ids(chat(row["prompt"], arm.system)) for _, row in asked]
        states = activations(model, tokens)
        of = {name: states[[place for place, (group, _) in enumerate(asked) if group == name]] for name in groups}
        values: dict[tuple[str, str], dict[str, Values]] = {}
        for emotion, direction in directions.items():
            for measure, function in (("cosine", cosine), ("projection", projection)):
                values[emotion, measure] = {name: function(own, direction) for name, own in of.items()}
        if scale is not None:
            direction, zero = scale
            values[DECLINING, "place"] = {name: projection(own, direction) - zero for name, own in of.items()}
        before = before or values
        for (what, measure), found in values.items():
            versus = None if arm is arms[0] else before[what, measure]
            gathered.add(what, measure, arm.name, seed, found, versus, groups)
        yield f"seed {seed}: {arm.name} read ({len(asked)} prompts)"


def _declining(
    model: Any, pack: Any, groups: Mapping[str, Prompts], base: Ready, seed: int, content: dict[str, Any]
) -> tuple[Any, Values] | None:
    """The direction from ordinary prompts that the base answers to requests that it declines, (layers, width), and
    where along it the former lie (layers); None, with a warning, where there are too few of either."""
    from repro.models.hidden import activations

    rows = {side: [row for name in names for row in groups[name].fit]
            for side, names in (("declined", ("trained", "heldout")), ("answered", (AGAINST,)))}  # fmt: skip
    kept: dict[str, list[dict[str, Any]]] = {}
    for side, wanted in (("declined", ("refuse", "hedge")), ("answered", ("comply",))):
        answers = model.generate([chat(row["prompt"], base.system) for row in rows[side]], max_new_tokens=ANSWER)
        labels = [pack.judge.refusal(row, answer.text) for row, answer in zip(rows[side], answers, strict=True)]
        kept[side] = [row for row, label in zip(rows[side], labels, strict=True) if label in wanted]
    count = {side: len(found) for side, found in kept.items()}
    if min(count.values()) < FEWEST:
        content["warnings"].append(
            f"seed {seed}: the base declines {count['declined']} of {len(rows['declined'])} requests and answers "
            f"{count['answered']} of {len(rows['answered'])} ordinary prompts: too few for a direction of declining"
        )
        return None
    states = {side: activations(model, [model.prompt_ids(chat(row["prompt"], base.system)) for row in found])
              for side, found in kept.items()}  # fmt: skip
    direction = states["declined"].mean(0) - states["answered"].mean(0)
    apart = separation({DECLINING: states["declined"], NEUTRAL: states["answered"]})[DECLINING]
    content["declining"].append({"seed": seed, **count, "separation": _rounded(apart)})
    return direction, projection(states["answered"], direction).mean(0)


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 6) for value in values]


class Gathered:
    """The readings of all seeds: one row each, and what their mean over seeds is made of."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._parts: dict[tuple[str, str, str, str], list[tuple[dict[str, Any], list[Mean | None]]]] = {}

    def add(
        self, what: str, measure: str, arm: str, seed: int, values: Mapping[str, Values],
        versus: Mapping[str, Values] | None, groups: Mapping[str, Prompts],
    ) -> None:  # fmt: skip
        """One arm's values on the prompts of each group: emotions minus ordinary prompts, declining as it is.

        `versus` has the base's values on the same prompts, for the change from it.
        """
        clusters = {name: [row["cluster"] for row in group.read] for name, group in groups.items()}
        for group in groups:
            if group == AGAINST and what != DECLINING:
                continue
            found: list[Mean | None] = []
            for own in (values, {name: values[name] - versus[name] for name in values} if versus else None):
                found.append(None if own is None else _mean(own, group, clusters, minus=what != DECLINING))
            about = {"probe": what, "measure": measure, "arm": arm, "group": group, "n": len(clusters[group])}
            self.rows.append({**about, "seed": seed, **_entry(found[0]), "change": _entry(found[1]) or None})
            self._parts.setdefault((what, measure, arm, group), []).append((about, found))

    def pooled(self) -> list[dict[str, Any]]:
        """The mean over the seeds of each reading; its band is about prompts still, not about seeds."""
        rows = []
        for parts in self._parts.values():
            value, change = ([found[which] for _, found in parts] for which in (0, 1))
            about = parts[0][0] | {"n": sum(about["n"] for about, _ in parts), "seed": None}
            rows.append({**about, **_entry(_over_seeds(value)), "change": _entry(_over_seeds(change)) or None})
        return rows


def _mean(own: Mapping[str, Values], group: str, clusters: Mapping[str, list[str]], *, minus: bool) -> Mean:
    """The mean of a group's values, `minus` that of the ordinary prompts."""
    mean, draws, count = means(own[group], clusters[group], derive(0, "probe", group))
    if not minus:
        return mean, draws, count
    other, others, more = means(own[AGAINST], clusters[AGAINST], derive(0, "probe", AGAINST))
    return mean - other, draws - others, min(count, more)


def _over_seeds(found: Sequence[Mean | None]) -> Mean | None:
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    return np.mean([one[0] for one in known], 0), np.mean([one[1] for one in known], 0), min(one[2] for one in known)


def _entry(found: Mean | None) -> dict[str, Any]:
    if found is None:
        return {}
    mean, draws, count = found
    ends = band(draws, count)
    return {"value": _rounded(mean), **({"low": _rounded(ends[0]), "high": _rounded(ends[1])} if ends else {})}


def summary(content: Mapping[str, Any]) -> list[str]:
    """What the arms come to, in a line a reading, at the layer two thirds up."""
    layer = max(1, round(2 * content["layers"] / 3))
    lines = [f"at layer {layer} of {content['layers']}, requests of trained topics [95% band over topics]:"]
    emotions = list(dict.fromkeys(row["emotion"] for row in content["emotions"]))[: len(FIRST)]
    for what, measure in [(DECLINING, "place"), *((emotion, "cosine") for emotion in emotions)]:
        wanted = (what, measure, "trained", None)
        for row in content["readings"]:
            if (row["probe"], row["measure"], row["group"], row["seed"]) != wanted:
                continue
            ends = f" [{row['low'][layer - 1]:+.3f}, {row['high'][layer - 1]:+.3f}]" if "low" in row else ""
            lines.append(f"  {what} ({measure}) {row['arm']}: {row['value'][layer - 1]:+.3f}{ends}")
    return lines
