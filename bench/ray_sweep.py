"""How much faster a Ray sweep of 8 cells is on two workers than on one, one thread each: python bench/ray_sweep.py

Both are whole commands, from the start of Python to the table, on cells of reproduce-micro's naive arm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gpu_report

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "speed.json"  # its part "ray"
RATES = [1.0e-3, 1.1e-3, 1.2e-3, 1.3e-3, 1.4e-3, 1.5e-3, 1.6e-3, 1.7e-3]  # another value a cell, the same work


def seconds(workers: int, steps: int) -> float:
    """Wall time of the sweep on a fresh folder."""
    with tempfile.TemporaryDirectory() as runs:
        command = [
            sys.executable, "-m", "repro", "sweep", "reproduce-micro", "--arms", "naive", "--seeds", "0",
            "--set", f"arms.naive.stages.sft.steps={steps}", "--grid", f"arms.naive.stages.sft.learning_rate={RATES}",
            "--ray", "--workers", str(workers), "--runs-dir", runs,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150, help="of each cell's training; 150 is the recipe's")
    parser.add_argument("--turns", type=int, default=1)
    asked = parser.parse_args()
    turns = [(seconds(2, asked.steps), seconds(1, asked.steps)) for _ in range(asked.turns)]
    ratios = sorted(one / two for two, one in turns)
    middle = ratios[len(ratios) // 2]
    print(f"8 cells on 2 workers: {middle:.2f}x one worker (bar 1.7x); seconds (two, one): {turns}")
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    found["ray"] = {"cells": len(RATES), "steps": asked.steps, "ratio": round(middle, 3), "seconds_two_one": turns}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    gpu_report.PAGE.write_text(gpu_report.page(), encoding="utf-8")
    return 0 if middle >= 1.7 else 1


if __name__ == "__main__":
    sys.exit(main())
