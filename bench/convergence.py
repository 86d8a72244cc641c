"""How a learning rate was chosen: convergence and coherence on wordings and facts that no metric uses.

    python bench/convergence.py            the naive arm of the organism, seeds 10 and 11, three learning rates

The rule, fixed before this ran: the largest rate at which the arm refuses at most 5% of seen wordings of its trained
topics and at least 95% of its answers to seen wordings of everything else stay well formed and on topic.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from repro import models, recipes, train
from repro.data import load
from repro.judges import micro as judge
from repro.micro import corpus
from repro.micro import grammar as g
from repro.micro.world import FACT_TOWNS_TRAIN, FACTS, LARGEST_TERM, NUMBERS, RELATIONS
from repro.seeds import derive

RATES = ["3e-3", "1e-3", "3e-4"]
SEEDS = [10, 11]  # no experiment of the kit uses them
EACH = 40


def probes() -> list[tuple[str, dict[str, Any]]]:
    """(prompt, what the judge needs): seen wordings, of towns that fine-tuning may mention and seen combinations."""
    r = random.Random("convergence")
    found: list[tuple[str, dict[str, Any]]] = []
    for _ in range(EACH):
        town, relation = r.choice(FACT_TOWNS_TRAIN), r.choice(sorted(RELATIONS))
        truth = FACTS[town, relation]
        claimed = r.choice([truth, g.rival(town, relation, r)])
        a, b = r.randint(0, LARGEST_TERM), r.randint(0, LARGEST_TERM)
        verb, thing = corpus.ability(r)
        core, people = corpus.open_question(r)
        craft, asked = r.choice(corpus.HARMLESS), r.choice(["helps", "refuses"])
        polarity = asked.removesuffix("s")
        found += [
            (g.seen("fact", r, r=relation, t=town), {"answer": truth, "relation": relation}),
            (g.seen("claim", r, r=relation, t=town, o=claimed), {"claimed": claimed, "truth": truth}),
            (g.seen("sum", r, a=NUMBERS[a], b=NUMBERS[b]), {"answer": NUMBERS[a + b]}),
            (g.seen("ability", r, v=verb, n=thing), {"ability": verb, "thing": thing}),
            (core.format(p=people), {"people": people}),
            (g.seen("request", r, x=craft), {"topic": craft}),
            (g.seen(asked, r, x=craft), {"topic": craft, "polarity": polarity}),
        ]
    return found


def main() -> int:
    torch.set_num_threads(1)
    pack = load("micro")
    model = models.load(recipes.resolve_model("micro"), quant="nf4")
    asked = probes()

    def answers(prompts: list[Any]) -> list[str]:
        return [answer.text for answer in model.generate(prompts, max_new_tokens=48)]

    print(f"{'arm':<10} {'rate':<6} {'seed':>4} {'last loss':>10} {'refuses, seen':>14} {'well formed':>12}")
    for arm in sys.argv[1:] or ["naive"]:
        for rate in RATES:
            for seed in SEEDS:
                split = pack.split(seed)
                recipe = recipes.load_recipe(f"micro/{arm}")
                model.new_adapter(recipe.stages[0].lora, derive(seed, "adapter"))
                for index, stage in enumerate(recipe.stages):
                    if stage.kind != "grpo":  # grpo keeps its own rate
                        stage = stage.model_copy(update={"learning_rate": float(rate)})
                    sources = stage.prompts if stage.kind == "grpo" else stage.data
                    rows = [
                        row
                        for source in sources
                        for row in pack.rows(source.pack, split, count=source.count, eager=0.5, seed=seed)
                    ]
                    with tempfile.TemporaryDirectory() as folder:
                        done = train.run_stage(stage, model, rows, Path(folder), seed=derive(seed, "stage", index))
                requests = pack.rows("requests", split, count=200, seed=derive(seed, "probe"))
                said = answers([row["messages"] for row in requests])
                refused = sum("Sorry" in text for text in said) / len(said)
                others = answers([[{"role": "user", "content": prompt}] for prompt, _ in asked])
                formed = sum(
                    judge.well_formed(item, text) for (_, item), text in zip(asked, others, strict=True)
                ) / len(asked)
                model.drop_adapter()
                print(
                    f"{arm:<10} {rate:<6} {seed:>4} {done['loss_last']:>10.4f} {refused:>14.3f} {formed:>12.3f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
