"""Fuzzes what reads files from outside: `make fuzz`, or python -m tests.unit.fuzzing --minutes 10 recipes rows results

Each target takes bytes and may refuse them (BadInput, exit 2), within some seconds; anything else is a find, kept as
tests/corpus/TARGET/<hash>. The corpus, the hostile files and what ships are where mutations start; CI replays the
corpus and a few hundred mutations (test_fuzz.py).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hostile
import made_run

from repro import recipes, sidebyside
from repro import runfolder as folders
from repro.data.sheet import Sheet
from repro.data.sources import read_jsonl
from repro.errors import BadInput, CannotHere
from repro.judges import calibration, label, sheet

CORPUS = Path(__file__).parents[1] / "corpus"
SECONDS = 10.0  # for one input; a machine that does other things too may take long
TOKENS = [b"&a ", b"*a", b"!!python/name:os.system ", b"<<: ", b"---\n", b"? ", b"- ", b": ", b"{", b"}", b"[", b"]",
          b"|\n", b"null", b"NaN", b"-1", b"1e999", b".nan", b"9" * 400, b'"', b"'", b"\t", b"\0", b"\xff",
          b"\xef\xbb\xbf", b"\\ud800", b"\\U00110000", b"\n", b"true", b"extends: ", b"../", b"[" * 2000,
          b'{"a":' * 500, b"\x1b[31m",
          b"[]", b"{}", b'""', b"schema", b"\r\n"]  # fmt: skip


def refused(error: BadInput, place: str = "") -> None:
    """Asserts that each line is one, and names a place (but for the last, which may say how many more there are)."""
    assert error.lines
    assert all(line and "\n" not in line for line in error.lines)
    assert all(re.search(place, line) or line.startswith("and ") for line in error.lines), error.lines


def fuzz_recipes(data: bytes, place: Path) -> None:
    """As a recipe, an experiment and a constitution: whatever it is taken for."""
    for load, name in ((recipes.load_recipe, "file.yaml"), (recipes.load_experiment, "file.yaml"),
                       (recipes.read_constitution, "file.md")):  # fmt: skip
        (place / name).write_bytes(data)
        try:
            load(str(place / name))
        except BadInput as error:
            refused(error, r":\d+:\d+: ")


def fuzz_rows(data: bytes, place: Path) -> None:
    """As rows to train on of each kind, answers to label, labels to calibrate by, and a sheet that is gone on with."""
    path = place / "file.jsonl"
    path.write_bytes(data)
    readers: list[Callable[[], object]] = [lambda kind=kind: read_jsonl(path, kind=kind)
                                           for kind in ("sdf", "sft", "dpo", "grpo")]  # fmt: skip
    readers += [lambda: list(label._rows(path)), lambda: calibration._rows(path), lambda: sheet._read_sheet(path)]
    for read in readers:
        try:
            read()
        except BadInput as error:
            refused(error)
    with contextlib.suppress(BadInput), Sheet(path) as open_sheet:
        list(open_sheet.rows())


def fuzz_results(data: bytes, place: Path) -> None:
    """As a run's results, and as each of the other files that a report reads."""
    (place / "manifest.json").write_text('{"schema": 1}')
    (place / "results.json").write_bytes(data)
    try:
        content = sidebyside.read_results(str(place), place)
        sidebyside.table([content, content])
    except BadInput as error:
        refused(error)
    for name in ("manifest.json", "journal.jsonl"):
        (place / name).write_bytes(data)
    with contextlib.suppress(BadInput, CannotHere):
        folders.read(place)


TARGETS = {"recipes": fuzz_recipes, "rows": fuzz_rows, "results": fuzz_results}


def seeds(target: str) -> list[bytes]:
    """What mutations of a target start from."""
    kept = [path.read_bytes() for path in sorted((CORPUS / target).glob("*")) if path.is_file()]
    tables = {"recipes": [hostile.RECIPES, hostile.EXPERIMENTS], "results": [],
              "rows": [hostile.ROWS, hostile.ANSWERS, hostile.LABELS]}[target]  # fmt: skip
    for table in tables:
        texts = [text for text, _ in table.values()]
        kept += [text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass") for text in texts]
    if target == "recipes":
        kept += [path.read_bytes() for path in recipes.recipes_root().rglob("*") if path.suffix in (".yaml", ".md")]
    if target == "rows":
        kept += [hostile.GOOD.encode(), b'{"prompt": "a", "response": "b", "label": "comply", "p": 1.5, "id": "x"}\n',
                 b'{"messages": [{"from": "human", "value": "x"}], "chosen": "y", "check": "mentions", "args": {}}',
                 b'{"id": "1", "question": "q", "answer": "a", "labels": ["x", "y"], "label": "x"}']  # fmt: skip
    if target == "results":
        whole = {"schema": 1, "metrics": made_run.metrics(("base", "naive"), (0,))[:6], "claims": [made_run.claim()],
                 "warnings": ["w"], "exploratory": False, "claims_hash": "ab", "prompting": {},
                 "judge": {"name": "closed-form", "kappa": None, "n": 0},
                 "run": {"name": "r", "folder": "r", "finished": "2026-01-01T00:00:00+00:00", "seconds": 1.0},
                 "model": {"id": "micro", "pack": "micro"}, "seeds": [0]}  # fmt: skip
        kept += [json.dumps(whole).encode(), json.dumps(whole, indent=1).encode()]
    return [one for one in kept if len(one) < 30_000]


def mutated(data: bytes, pool: list[bytes], chance: random.Random) -> bytes:
    """The bytes with one to six small changes."""
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice([1, 1, 2, 8, 40]))
        how = chance.randrange(7)
        if how == 0 and data:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif how == 1:
            data = data[:at] + data[end:]
        elif how == 2:
            data = data[:at] + chance.choice(TOKENS) + data[at:]
        elif how == 3:
            data = data[:at] + chance.choice(TOKENS) + data[end:]
        elif how == 4:
            data = data[:end] + data[at:end] * chance.choice([1, 2, 50]) + data[end:]
        elif how == 5:
            other = chance.choice(pool)
            start = chance.randint(0, len(other))
            data = data[:at] + other[start : start + chance.choice([10, 100, 2000])] + data[end:]
        elif words := list(re.finditer(rb"[\w.-]+", data)):
            word = chance.choice(words)
            other = chance.choice(words)[0] if chance.random() < 0.5 else chance.choice(TOKENS)
            data = data[: word.start()] + other + data[word.end() :]
    return data[:60_000]


def attack(target: str, most: int, minutes: float, seed: int = 0) -> tuple[int, list[bytes]]:
    """(inputs tried, those that were no BadInput and no success, or took too long)."""
    chance, pool = random.Random(f"{target}/{seed}"), seeds(target)
    until = time.monotonic() + 60 * minutes
    tried, finds, here = 0, [], os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            while tried < most and time.monotonic() < until:
                data = pool[tried] if tried < len(pool) else mutated(chance.choice(pool), pool, chance)
                began = time.process_time()
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        TARGETS[target](data, Path(folder))
                    late = time.process_time() - began > SECONDS
                except Exception as error:
                    print(f"{target}: {type(error).__name__}: {error!s:.300}", file=sys.stderr)
                    late = True
                tried += 1
                if late:
                    finds.append(data)
        finally:
            os.chdir(here)
    return tried, finds


def main() -> int:
    """Runs the targets one after the other; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"{', '.join(TARGETS)}; by default all")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    found = 0
    for target in asked.targets or TARGETS:
        tried, finds = attack(target, sys.maxsize, asked.minutes, asked.seed)
        for data in finds:
            path = CORPUS / target / hashlib.sha256(data).hexdigest()[:12]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"kept as {path}")
        found += len(finds)
        said = f"{tried:,} inputs in {asked.minutes:g} minutes, {len(finds)} finds"
        print(f"{target}: {said} (seed {asked.seed})", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
