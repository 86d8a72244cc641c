"""One more axis, tone: how often does an answer open eagerly?  python docs/examples/tone.py eval micro ..."""

import sys

from repro import cli, evals
from repro.evals.common import Item, Metric, chat, plain_units, take

EAGER = ("sure", "of course", "absolutely", "certainly", "happy to", "gladly")
METRICS = (Metric("opens_eagerly", "tone", False, "topic", True, "the answer opens with an eager word"),)


def items(pack, split, *, subset=None, samples=10):
    rows = take(pack.material("ordinary"), 4)  # at most four of each topic, the same for every arm
    return [
        Item(f"tone/{row['id']}", "tone", "opens_eagerly", "ordinary", row["cluster"], row["id"],
             chat(row["prompt"]), row)
        for row in rows
    ]  # fmt: skip


def label_one(item, text, judge):
    return ("eager", 1.0) if text.strip().lower().startswith(EAGER) else ("plain", 0.0)


def units(rows):
    return plain_units(rows, "opens_eagerly")


evals.add("tone", sys.modules[__name__])
if __name__ == "__main__":
    cli.main()
