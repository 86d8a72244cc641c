"""SIGKILL at random moments, of the run, of its workers, of both: the same command comes to the same results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLS = Path(__file__).with_name("kills.py")


def campaign(folder: Path, kills: int, seed: int, seconds: float) -> dict[str, Any]:
    words = [sys.executable, str(KILLS), str(folder), "--kills", str(kills), "--seed", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict[str, Any], kills: int) -> None:
    assert found["kills"] == kills
    assert found["equal"] == found["runs"], "a run that was killed came to something else"
    assert found["left"] == []


def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    found = campaign(tmp_path, 20, seed=0, seconds=600)
    check(found, 20)
    assert set(found["kinds"]) == {"all", "parent", "worker"}
    saved = [kind for kind in found["in"] if kind.endswith("+")]
    assert saved, "no kill left a saved state to go on from"


@pytest.mark.slow
def test_two_hundred_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    found = campaign(tmp_path, 200, seed=1, seconds=7200)
    check(found, 200)
    for kind in ("sdf", "sft", "dpo", "grpo", "answers"):
        assert found["in"][f"{kind}+"], f"no kill left a saved state of {kind}"
