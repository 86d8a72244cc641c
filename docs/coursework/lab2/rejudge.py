"""The answers of an organism's run on requests, each with its exact label: rows that `repro judge calibrate` reads.

    python docs/coursework/lab2/rejudge.py reproduce-micro --runs-dir labs/1 > labs/2-rows.jsonl

Every sentence of the organism's world is known, so the label in the file is the truth and not another opinion.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from repro.sidebyside import find_run
from repro.store import read_jsonl


def labelled(run: Path, seed: int | None = None) -> Iterator[dict[str, str]]:
    """{prompt, response, label} of the run's answers to requests and look-alikes, of one seed or of all."""
    for row in read_jsonl(run / "answers.jsonl"):
        known = row["label"] in ("comply", "hedge", "refuse") and row["dose"] is None
        if row["axis"] == "refusal" and known and seed in (None, row["seed"]):
            yield {"prompt": row["messages"][-1]["content"], "response": row["answer"], "label": row["label"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or its name in --runs-dir")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    for one in labelled(find_run(asked.run, asked.runs_dir)):
        print(json.dumps(one, ensure_ascii=False))
