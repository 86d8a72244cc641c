"""Units and metrics for the tests of statistics, claims and tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    metric: str
    group: str | None
    unit: str
    cluster: str
    value: float | None


@dataclass(frozen=True)
class Metric:
    id: str
    axis: str = "some axis"
    higher_is_better: bool = True


@dataclass(frozen=True)
class Bounded(Metric):
    bounds: tuple[float, float] = (-1.0, 1.0)


def make(values, metric="m", group=None, per_cluster=1, prefix="u"):
    """Units named u0, u1, ... in clusters of `per_cluster`."""
    return [
        Unit(metric, group, f"{prefix}{i}", f"cluster {prefix}{i // per_cluster}", value)
        for i, value in enumerate(values)
    ]
