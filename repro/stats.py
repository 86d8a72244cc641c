"""Intervals, paired tests and the table of metrics: units in, plain dicts out; knows no model, no file and no axis."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy import special

ALPHA = 0.05
RESAMPLES = 10_000
EXACT_FLIPS = 2**12
MIN_SEEDS = 3  # fewer say nothing about the spread from seed to seed

Interval = tuple[float, float]
RATE: Interval = (0.0, 1.0)


class UnitLike(Protocol):
    """One thing measured once in one arm and seed: `value` is None when the answer could not be scored."""

    @property
    def metric(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    @property
    def unit(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def value(self) -> float | None: ...


class MetricLike(Protocol):
    """What the tables need to know of a metric; its `bounds`, the lowest and highest possible value, are optional."""

    @property
    def id(self) -> str: ...
    @property
    def axis(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...


Units = Mapping[tuple[str, int], Iterable[UnitLike]]  # by (arm, seed)
Key = tuple[str, str]  # (cluster, unit): what is paired between arms and averaged over seeds
Sample = dict[Key, float]  # the scored units of one seed
Cells = dict[int, dict[Key, UnitLike]]  # every unit of one metric and arm, by seed
Table = dict[str, dict[str, Cells]]  # by metric, then arm


# -- intervals for one list of numbers -------------------------------------------------------------------------------


def wilson(successes: float, n: int, alpha: float = ALPHA) -> Interval:
    """Wilson's score interval for a rate (JASA 22, 1927): keeps its coverage at 0 and 1, where mean +- 2 s.e. has none.

    Raises ValueError when nothing was counted or there are more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a rate needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z2 = float(special.ndtri(1 - alpha / 2)) ** 2
    rate = successes / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # at the ends the formula meets 0 and 1 exactly; rounding must not leave the rate itself outside
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def t_interval(values: Sequence[float], alpha: float = ALPHA, centre: float | None = None) -> Interval:
    """Student's interval for a mean, with len(values) - 1 degrees of freedom, around `centre` (default: the mean).

    Raises ValueError for fewer than two values.
    """
    count = len(values)
    if count < 2:
        raise ValueError("an interval over seeds needs at least two of them")
    middle = float(np.mean(values)) if centre is None else centre
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, 1 - alpha / 2)) * error
    return middle - half, middle + half


@lru_cache(maxsize=16)
def _resamples(clusters: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn: (RESAMPLES, clusters); metrics with as many clusters share it, for speed."""
    drawn = np.random.default_rng(seed).integers(0, clusters, size=(RESAMPLES, clusters))
    drawn += np.arange(RESAMPLES)[:, None] * clusters  # all resamples counted at once
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * clusters)
    return counts.reshape(RESAMPLES, clusters).astype(np.float32)


def _sums(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of each cluster's values; clusters are sorted, so that the order of the units does not matter."""
    order = {cluster: place for place, cluster in enumerate(sorted(set(clusters), key=str))}
    places = np.array([order[cluster] for cluster in clusters])
    counts = np.bincount(places, minlength=len(order)).astype(float)
    return np.bincount(places, weights=np.asarray(values, float), minlength=len(order)), counts


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[Hashable], alpha: float = ALPHA, seed: int = 0
) -> Interval:
    """Percentile interval for the mean over units when whole clusters are drawn again, with replacement.

    The percentiles are widened for few clusters (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015,
    section 5.2): plain ones are too narrow by sqrt((k-1)/k) and use the normal where Student's t belongs.
    Raises ValueError for fewer than two clusters: one cluster has no spread to learn from.
    """
    sums, counts = _sums(values, clusters)
    k = len(sums)
    if k < 2:
        raise ValueError("a cluster bootstrap needs at least two clusters")
    draws = _resamples(k, seed)
    means = (draws @ sums) / (draws @ counts)
    quantile = float(special.stdtrit(k - 1, 1 - alpha / 2)) * math.sqrt(k / (k - 1))
    tail = float(special.ndtr(-quantile))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# -- tests -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _signs(width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, size=(RESAMPLES, width)).astype(float) * 2 - 1


def permutation_by_cluster(differences: Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> float:
    """Two-sided p that paired differences are centred on 0: the sign of each whole cluster is flipped.

    Exact over all flips when there are at most EXACT_FLIPS of them, else RESAMPLES random ones, the observed one
    counted among them (so p is never 0). Clusters that sum to 0 change nothing and are left out.
    """
    if not len(differences):
        raise ValueError("a paired test needs at least one pair")
    sums, _ = _sums(differences, clusters)
    sums = sums[np.abs(sums) > 1e-12]
    k = len(sums)
    observed = abs(float(sums.sum())) - 1e-9  # sums in another order may differ in the last digit, and ties count
    if 2**k <= EXACT_FLIPS:
        bits = np.arange(2**k)[:, None] >> np.arange(k)[None, :]
        return float(np.mean(np.abs((1 - 2.0 * (bits & 1)) @ sums) >= observed))
    signs = _signs(-(-k // 64) * 64, seed)[:, :k]
    return (1 + int(np.sum(np.abs(signs @ sums) >= observed))) / (1 + RESAMPLES)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Scand. J. Statist. 6, 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted


# -- units -> one estimate -------------------------------------------------------------------------------------------


def index(units: Units) -> Table:
    """Units by metric, arm and seed. ValueError for a unit that occurs twice in one place or is no finite number."""
    table: Table = {}
    for (arm, seed), members in units.items():
        for unit in members:
            place = table.setdefault(unit.metric, {}).setdefault(arm, {}).setdefault(seed, {})
            key = (unit.cluster, unit.unit)
            if key in place:
                raise ValueError(f"{unit.metric}: unit {unit.unit!r} occurs twice in arm {arm}, seed {seed}")
            if unit.value is not None and not math.isfinite(unit.value):
                raise ValueError(f"{unit.metric}: unit {unit.unit!r} of arm {arm}, seed {seed} has value {unit.value}")
            place[key] = unit
    return table


def bounds_of(metric: object, table: Mapping[str, Cells]) -> Interval:
    """The metric's own `bounds` where it declares them, else the tightest of [0, 1], [-1, 1] and all numbers that holds
    every value of every arm."""
    declared = getattr(metric, "bounds", None)
    if declared is not None:
        return float(declared[0]), float(declared[1])
    units = (unit for cells in table.values() for place in cells.values() for unit in place.values())
    values = [unit.value for unit in units if unit.value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low < -1 or high > 1:
        return -math.inf, math.inf
    return (-1.0, 1.0) if low < 0 else RATE


def of_group(cells: Cells, group: str | Sequence[str] | None) -> Cells:
    """The units of one group or several, or all of them for None; a topic may change its group from seed to seed."""
    if group is None:
        return cells
    names = [group] if isinstance(group, str) else group
    return {seed: {key: unit for key, unit in place.items() if unit.group in names} for seed, place in cells.items()}


def scored(cells: Cells) -> dict[int, Sample]:
    """The values by seed; units without one, and seeds without any, are left out."""
    found = {}
    for seed, place in cells.items():
        sample = {key: unit.value for key, unit in place.items() if unit.value is not None}
        if sample:
            found[seed] = sample
    return found


def paired(first: Cells, second: Cells) -> tuple[dict[int, Sample], int]:
    """Differences first - second over units scored in both, by seed; and how many pairs are lost to a missing half.

    A seed that only one of the two has is no lost pair: there was nothing to compare.
    """
    differences: dict[int, Sample] = {}
    dropped = 0
    for seed in sorted(first.keys() & second.keys()):
        a, b = first[seed], second[seed]
        for key in sorted(a.keys() | b.keys()):
            left = a[key].value if key in a else None
            right = b[key].value if key in b else None
            if left is None or right is None:
                dropped += 1
            else:
                differences.setdefault(seed, {})[key] = left - right
    return differences, dropped


def over_seeds(samples: Mapping[int, Sample]) -> tuple[list[float], list[str]]:
    """Each unit's mean over the seeds it occurs in, and its cluster; units in sorted order."""
    collected: dict[Key, list[float]] = {}
    for sample in samples.values():
        for key, value in sample.items():
            collected.setdefault(key, []).append(value)
    keys = sorted(collected)
    return [math.fsum(collected[key]) / len(collected[key]) for key in keys], [key[0] for key in keys]


def estimate(
    samples: Mapping[int, Sample], bounds: Interval = RATE, alpha: float = ALPHA, seed: int = 0
) -> dict[str, Any]:
    """Mean over units of the unit's mean over seeds, with its interval: {value, ci, half, interval, n, per_seed}.

    From MIN_SEEDS seeds on, the interval carries their spread: Student's t around the value. With fewer, or where the
    seeds do not differ at all (the untrained model answers alike under each), it is that of one seed: Wilson's for a
    plain rate, else a cluster bootstrap. A rate of exactly 0 or 1 leaves a bootstrap nothing to draw: Wilson over the
    clusters. `interval` names which; `half` is half its width before clipping to `bounds`.
    """
    values, clusters = over_seeds(samples)
    per_seed = {s: math.fsum(samples[s].values()) / len(samples[s]) for s in sorted(samples)}
    if not values:
        return {"value": None, "ci": None, "half": None, "interval": None, "n": 0, "per_seed": {}}
    n = len(values)
    value = math.fsum(values) / n
    distinct = len(set(clusters))
    means = list(per_seed.values())
    ci: Interval | None
    if len(means) >= MIN_SEEDS and max(means) - min(means) > 1e-12:
        name, ci = "t over seeds", t_interval(means, alpha, centre=value)
    elif bounds == RATE and distinct == n and set(values) <= {0.0, 1.0}:
        name, ci = "wilson", wilson(sum(values), n, alpha)
    elif bounds == RATE and (set(values) == {0.0} or set(values) == {1.0}):
        name, ci = "wilson", wilson(value * distinct, distinct, alpha)
    elif distinct >= 2:
        name, ci = "bootstrap", cluster_bootstrap(values, clusters, alpha, seed)
    else:
        name, ci = "none", None
    half = None if ci is None else (ci[1] - ci[0]) / 2
    clipped = None if ci is None else [max(bounds[0], ci[0]), min(bounds[1], ci[1])]
    return {"value": value, "ci": clipped, "half": half, "interval": name, "n": n, "per_seed": per_seed}


def difference_bounds(bounds: Interval) -> Interval:
    return bounds[0] - bounds[1], bounds[1] - bounds[0]


def compare(first: Cells, second: Cells, bounds: Interval = RATE, seed: int = 0) -> dict[str, Any] | None:
    """first - second over the same units: {delta, ci, p, p_holm: None, pairs, dropped}; None without a single pair."""
    samples, dropped = paired(first, second)
    if not samples:
        return None
    found = estimate(samples, difference_bounds(bounds), seed=seed)
    p = permutation_by_cluster(*over_seeds(samples), seed=seed)
    pairs = sum(map(len, samples.values()))
    return {"delta": found["value"], "ci": found["ci"], "p": p, "p_holm": None, "pairs": pairs, "dropped": dropped}


# -- the table -------------------------------------------------------------------------------------------------------


def metrics_table(
    units: Units,
    metrics: Mapping[str, MetricLike],
    *,
    versus: str | Sequence[str] = "base",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per metric, arm and seed, and before them the pooled row (seed None), as in results.json's "metrics".

    `value` is None where nothing could be scored; `unscored` counts answers, never zeros. `versus` names the arms that
    every other arm is compared with; its p_holm is adjusted over the metrics of the same two arms and the same seed.
    """
    table = index(units)
    others = [versus] if isinstance(versus, str) else list(versus)
    rows: list[dict[str, Any]] = []
    for name, metric in metrics.items():
        arms = table.get(name, {})
        bounds = bounds_of(metric, arms)
        for arm, cells in arms.items():
            for which in (None, *sorted(cells)):
                row = _row(metric, arm, which, cells, bounds, seed)
                for other in others:
                    if other != arm and other in arms:
                        found = compare(_only(cells, which), _only(arms[other], which), bounds, seed)
                        if found is not None:
                            row["versus"][other] = found
                rows.append(row)
    _adjust(rows)
    return rows


def _only(cells: Cells, seed: int | None) -> Cells:
    return cells if seed is None else {s: place for s, place in cells.items() if s == seed}


def _row(metric: MetricLike, arm: str, which: int | None, cells: Cells, bounds: Interval, seed: int) -> dict[str, Any]:
    cells = _only(cells, which)
    found = estimate(scored(cells), bounds, seed=seed)
    every = [unit for place in cells.values() for unit in place.values()]
    groups = []
    for group in sorted({unit.group for unit in every if unit.group is not None}):
        part = estimate(scored(of_group(cells, group)), bounds, seed=seed)
        groups.append({"group": group, **{key: part[key] for key in ("n", "value", "ci")}})
    unscored = sum(unit.value is None for unit in every)
    return {
        "axis": metric.axis,
        "metric": metric.id,
        "arm": arm,
        "seed": which,
        "n": found["n"],
        "observations": len(every) - unscored,
        "unscored": unscored,
        "value": found["value"],
        "ci": found["ci"],
        "interval": found["interval"],
        "bounds": list(bounds) if math.isfinite(bounds[0]) else None,
        "higher_is_better": metric.higher_is_better,
        "versus": {},
        "groups": groups,
    }


def _adjust(rows: list[dict[str, Any]]) -> None:
    families: dict[tuple[str, str, int | None], list[dict[str, Any]]] = {}
    for row in rows:
        for other, found in row["versus"].items():
            families.setdefault((row["arm"], other, row["seed"]), []).append(found)
    for family in families.values():
        for found, adjusted in zip(family, holm([entry["p"] for entry in family]), strict=True):
            found["p_holm"] = adjusted
