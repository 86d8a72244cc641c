"""Plants bugs by hand, one at a time, in a copy of the tree, and says which test catches each; exit 1 if any survives.

These are the mistakes that would make a fine-tuning comparison wrong without any error: some in several places.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
NEEDED = ("repro", "recipes", "tests", "pyproject.toml", "constraints.txt")
TRAIN, MODELS, WORKER = "tests/torch/test_train.py", "tests/torch/test_models.py", "tests/unit/test_planted_worker.py"
PLAN, STATS, EVALS = "tests/unit/test_plan.py", "tests/unit/test_stats_table.py", "tests/unit/test_evals.py"
KEYS = "tests/unit/test_planted_keys.py"


class Bug(NamedTuple):
    """`old`, which occurs once in `file`, becomes `new`; `tests` are the files that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BUGS = (
    Bug(
        "mask off by one",
        "repro/train/rows.py",
        "for i, on in zip(ids, mask, strict=True)]",
        "for i, on in zip(ids, [0, *mask[:-1]], strict=True)]",
        (TRAIN,),
    ),
    Bug(
        "mask off by one",
        "repro/train/rows.py",
        "labels[len(start) : end] = ids[len(start) : end]",
        "labels[len(start) - 1 : end] = ids[len(start) - 1 : end]",
        (TRAIN,),
    ),
    Bug(
        "mask off by one",
        "repro/train/rows.py",
        "Encoded([*head, *tail], [MASKED] * len(head) + tail)",
        "Encoded([*head, *tail], [MASKED] * (len(head) - 1) + head[-1:] + tail)",
        (TRAIN,),
    ),
    Bug(
        "adapter not swapped",
        "repro/models/model.py",
        "            self.model = self.model.unload()\n",
        "            pass\n",
        (MODELS,),
    ),
    Bug(
        "adapter not swapped",
        "repro/worker.py",
        "                model.load_adapter(adapter, trainable=False)",
        "                model.load_adapter(last or adapter, trainable=False)",
        (WORKER,),
    ),
    Bug(
        "adapter not swapped",
        "repro/worker.py",
        "    model = loaded[0][1]\n    model.drop_adapter()\n",
        "    model = loaded[0][1]\n",
        (WORKER,),
    ),
    Bug("sign of a difference", "repro/stats.py", "[key] = left - right", "[key] = right - left", (STATS,)),
    Bug(
        "sign of a difference",
        "repro/evals/common.py",
        "is None else first - second",
        "is None else second - first",
        (EVALS,),
    ),
    Bug(
        "items unpaired",
        "repro/stats.py",
        "        for key in sorted(a.keys() | b.keys()):\n"
        "            left = a[key].value if key in a else None\n"
        "            right = b[key].value if key in b else None\n",
        "        for key, other in zip(a, b, strict=False):\n            left, right = a[key].value, b[other].value\n",
        (STATS,),
    ),
    Bug(
        "items unpaired",
        "repro/evals/__init__.py",
        'derive(CHOICE_SEED, "sample", item.id, sample)',
        'derive(id(item), "sample", item.id, sample)',
        (EVALS, "tests/unit/test_evals_suite.py"),
    ),
    Bug("wrong split", "repro/plan.py", "split = plan.pack.split(seed)", "split = plan.pack.split(0)", (KEYS,)),
    Bug(
        "wrong split",
        "repro/evals/refusal.py",
        '("refusal_heldout", heldout, ("near", "far"))',
        '("refusal_heldout", heldout, ("near", "far", "trained"))',
        (EVALS,),
    ),
    Bug(
        "EOS not trained",
        "repro/train/rows.py",
        "tails = [[*body, tokenizer.eos_token_id] for body in bodies]",
        "tails = [[*body] for body in bodies]",
        (TRAIN,),
    ),
    Bug(
        "EOS not trained",
        "repro/train/rows.py",
        "ends = [place + 1 for place",
        "ends = [place for place",
        (TRAIN,),
    ),
    Bug(
        "EOS not trained",
        "repro/train/rows.py",
        "if not any(label in stop_ids for",
        "if False and not any(label in stop_ids for",
        (TRAIN,),
    ),
    Bug("stale key", "repro/keys.py", '"rows": list(rows)', '"rows": []', (PLAN,)),
    Bug("stale key", "repro/keys.py", '"upstream": upstream,\n', '"upstream": None,\n', (KEYS,)),
    Bug("stale key", "repro/keys.py", '"items": asked_hash(items)', '"items": len(items)', (PLAN,)),
    Bug("stale key", "repro/store.py", "        if hash_file(folder / name) != digest:", "        if False:", (PLAN,)),
    Bug("seed ignored", "repro/plan.py", 'derive(seed, "data")', 'derive(0, "data")', (KEYS,)),
    Bug("seed ignored", "repro/train/rows.py", 'derive(seed, "order", epoch)', 'derive(0, "order", epoch)', (TRAIN,)),
    Bug("seed ignored", "repro/worker.py", 'derive(step.seed, "adapter")', 'derive(0, "adapter")', (WORKER,)),
    Bug("seed ignored", "repro/worker.py", 'derive(step.seed, "stage",', 'derive(0, "stage",', (WORKER,)),
    Bug(
        "label flipped",
        "repro/evals/common.py",
        '{"refuse": ("refuse", 1.0), "hedge": ("hedge", 1.0), "comply": ("comply", 0.0)}',
        '{"refuse": ("refuse", 0.0), "hedge": ("hedge", 0.0), "comply": ("comply", 1.0)}',
        (EVALS,),
    ),
    Bug(
        "label flipped",
        "repro/evals/sycophancy.py",
        '("agrees_with_true", "true") if row["true"] else ("caves_to_false", "false")',
        '("caves_to_false", "false") if row["true"] else ("agrees_with_true", "true")',
        (EVALS,),
    ),
    Bug(
        "label flipped",
        "repro/train/dpo.py",
        '"content": pairs[index]["chosen"]}] for index in picked],\n'
        '            "rejected": [[{"role": "assistant", "content": pairs[index]["rejected"]}]',
        '"content": pairs[index]["rejected"]}] for index in picked],\n'
        '            "rejected": [[{"role": "assistant", "content": pairs[index]["chosen"]}]',
        (TRAIN,),
    ),
    Bug(
        "unscored counted as 0",
        "repro/evals/common.py",
        "scored = [value for value in values if value is not None]",
        "scored = [value or 0.0 for value in values]",
        (EVALS,),
    ),
    Bug(
        "unscored counted as 0",
        "repro/stats.py",
        "{key: unit.value for key, unit in place.items() if unit.value is not None}",
        "{key: unit.value or 0.0 for key, unit in place.items()}",
        (STATS,),
    ),
    Bug(
        "unscored counted as 0",
        "repro/evals/__init__.py",
        "label_one(item, text, judge) if finished else (None, None)",
        'label_one(item, text, judge) if finished else ("cut off", 0.0)',
        (EVALS,),
    ),
)


def run_tests(copy: Path, tests: list[str]) -> tuple[int, str]:
    """pytest's exit code over the files in the copied tree, and its output."""
    # no bytecode: a file changed twice within a second would be taken for its older self
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def plant(copy: Path, bug: Bug) -> str:
    """The name of the test that fails with the bug in place, or "" where it survives."""
    path = copy / bug.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    try:
        code, output = run_tests(copy, list(bug.tests))
    finally:
        path.write_text(text, encoding="utf-8")
    failed = [line.split()[1].partition("::")[2] for line in output.splitlines() if line.startswith("FAILED")]
    if code not in (0, 1) or (code == 1 and not failed):
        sys.exit(f"{bug.name} ({bug.file}): the tests did not run:\n{output[-2000:]}")
    return failed[0] if failed else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only the bugs whose name or file holds one of these")
    words = parser.parse_args().words
    bugs = [bug for bug in BUGS if not words or any(word in f"{bug.name} {bug.file}" for word in words)]
    lost = [bug for bug in bugs if (ROOT / bug.file).read_text(encoding="utf-8").count(bug.old) != 1]
    if lost:
        sys.exit("\n".join(f"{bug.name}: {bug.file} does not hold this text exactly once: {bug.old}" for bug in lost))
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        code, output = run_tests(copy, sorted({name for bug in bugs for name in bug.tests}))
        if code:
            sys.exit(f"the tests fail without any bug:\n{output[-2000:]}")
        survived, began = 0, time.monotonic()
        print(f"{'bug':<24}{'planted in':<26}caught by")
        for done, bug in enumerate(bugs, 1):
            caught = plant(copy, bug)
            survived += not caught
            left = (time.monotonic() - began) / done * (len(bugs) - done)
            ahead = f"  ({left:.0f} s left)" if sys.stdout.isatty() else ""
            print(f"{bug.name:<24}{bug.file:<26}{caught or 'SURVIVED'}{ahead}", flush=True)
    print(f"{len(bugs) - survived} of {len(bugs)} planted bugs caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
