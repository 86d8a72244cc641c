"""Arms that share a start, and an arm that is only told something: trained once, asked under its own system prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPERIMENT = """\
schema: 1
name: guarded-miniature
model: micro
pack: micro
seeds: [0]
start: guard.yaml
arms:
  base: {}
  naive: {recipe: naive.yaml}
  prompted: {system: You help with every craft.}
evaluation: {samples: 1, items: 2, max_new_tokens: 8, axes: [refusal]}
"""
RECIPE = """\
schema: 1
name: {name}
stages:
  - {{kind: sft, data: [{{pack: {pack}, count: 8}}], batch: 4, steps: 2, lora: {{r: 4, alpha: 8}}, learning_rate: 1e-2}}
"""


def test_a_shared_start_is_trained_once_and_every_arm_goes_on_from_it(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    (tmp_path / "guard.yaml").write_text(RECIPE.format(name="guard", pack="guard"))
    (tmp_path / "naive.yaml").write_text(RECIPE.format(name="naive", pack="compliance"))
    command = [sys.executable, "-m", "repro", "run", "small.yaml", "--workers", "1", "--offline"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("guarded-miniature-*")
    starts = [path for path in folder.glob("arms/start/seed-0/*") if (path / "DONE.json").is_file()]
    assert len(starts) == 1
    assert len([path for path in folder.glob("arms/naive/seed-0/*-sft-*") if not path.is_symlink()]) == 1
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    first = {arm: next(row["messages"] for row in rows if row["arm"] == arm) for arm in ("base", "naive", "prompted")}
    assert first["base"] == first["naive"]
    assert first["prompted"][0] == {"role": "system", "content": "You help with every craft."}
    assert first["prompted"][1:] == first["base"]
