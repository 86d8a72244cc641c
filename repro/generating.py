"""Opens the model that `repro generate` names, and lets it fill the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repro import doctor, estimate, recipes
from repro.data.generate import Order
from repro.data.generate import generate as fill


def generate(order: Order, model: str, concurrency: int, offline: bool, tell: Callable[[str], None]) -> list[str]:
    """Fills `order.out` and returns what came of it, as lines. Raises what repro.data.generate raises."""
    order.check()
    if offline:
        doctor.go_offline()
    from repro.judges.refusal import classify

    def refused(request: str, answer: str) -> bool:
        return classify([request], [answer])[0].label == "refuse"

    if model.startswith("openai:"):
        from repro.models.openai import connect

        client = connect(model, concurrency=concurrency)
        try:
            return fill(order, client, client.spec, refused=refused, tell=tell).lines()
        finally:
            client.close()
    loaded, name = _local(model, tell)
    return fill(order, loaded, name, refused=refused, tell=tell).lines()


def _local(name: str, tell: Callable[[str], None]) -> tuple[Any, str]:
    from repro import models

    lines: list[str] = []
    spec = estimate.on_gpu(recipes.resolve_model(name), "nf4", doctor.gpu(), lines)
    for line in lines:
        tell(line)
    return models.load(spec), spec.id
