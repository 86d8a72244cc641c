"""Peak memory of what reads many answers: python bench/memory.py [--answers 100000]; made-up answers, one process each.

Prints one line a command: seconds of processor time, and the most memory that the process ever held.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))
import made_run

WORDS = ["glaze", "potter", "kiln", "asks", "about", "clay", "and", "ash", "with", "water", "then", "fires", "it"]
LABELS = ("comply", "hedge", "refuse")


def rows(count: int) -> Iterator[dict[str, object]]:
    """Prompts of about 60 and responses of about 700 characters, each with a person's label."""
    chance = random.Random(0)
    for number in range(count):
        prompt = f"Question {number}: " + " ".join(chance.choices(WORDS, k=10))
        yield {"id": str(number), "prompt": prompt, "response": " ".join(chance.choices(WORDS, k=140)),
               "label": chance.choice(LABELS), "arm": f"arm-{number % 4}"}  # fmt: skip


def measured(*words: str) -> tuple[float, float]:
    """(seconds of processor time, peak GiB) of `repro WORDS`, which has to end well."""
    process = subprocess.Popen([sys.executable, "-m", "repro", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"repro {' '.join(words)}: exit {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Labels, calibrates by and compares runs of so many answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=100_000)
    count = parser.parse_args().answers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "answers.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
        answers, labelled = str(folder / "answers.jsonl"), str(folder / "labelled.jsonl")
        runs = [str(_run(folder / f"run-{place}", count // 2)) for place in range(2)]
        whole = str(_run(folder / "whole", count))
        for words in (("compare", *runs), ("judge", "sample", whole, "-n", "100", "-o", str(folder / "sheet.jsonl")),
                      ("judge", "label", answers, "-o", labelled), ("judge", "calibrate", labelled)):  # fmt: skip
            seconds, gib = measured(*words)
            what = " ".join(words[:2] if words[0] == "judge" else [words[0], f"of {len(words) - 1}"])
            print(f"repro {what:<16} {count:,} answers: {seconds:7.1f} s of CPU, {gib:.2f} GiB at most", flush=True)


def _run(folder: Path, count: int) -> Path:
    """A finished run of four arms and three seeds with so many answers in all."""
    arms, chance = made_run.ARMS, random.Random(folder.name)

    def answers() -> Iterator[dict[str, object]]:
        for number in range(count):
            item, place = divmod(number, 3 * len(arms))
            text = " ".join(chance.choices(WORDS, k=140))
            label: dict[str, object] = {"label": "comply", "value": 0.0} if chance.random() < 0.5 else {}
            label["cluster"] = f"topic {item % 40}"
            yield made_run.answer(f"request/r-{item}", arms[place % 4], place // 4, text, **label)

    about = made_run.manifest()
    about["experiment"]["evaluation"] = {"max_new_tokens": 256}
    return made_run.make(folder, about=about, answers=answers())


if __name__ == "__main__":
    main()
