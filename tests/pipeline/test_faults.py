"""Faults of the machine and the network: a clear message, the right exit code, and nothing finished is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = "what is finished is kept; the same command"
# fault: exit code, what is said, and what must have been finished by then and stay (steps: the base's answers)
MACHINE = {
    "a full disk": (3, ["no space left on ", "MB; " + KEPT]),
    "no space left, midway": (3, ["naive seed 0: sft failed: no space left on ", ": free about ", "MB; " + KEPT]),
    "permission lost midway": (3, ["sft failed: can't write to ", "the permission is missing; mend that; " + KEPT]),
    "read-only midway": (3, ["sft failed: can't write to ", "it is read-only; mend that; " + KEPT]),
    "files may not grow": (3, ["can't write to ", "a file may not grow any further there (see ulimit -f)", KEPT]),
    "no memory left": (3, ["failed: out of memory: close other programs, or give fewer --workers; " + KEPT]),
    "a loss that is no number": (1, ["sft failed: the loss became nan at step 1 of 3: try a lower ", KEPT]),
    "a worker killed": (1, ["sft failed: its process was killed (signal 9); out of memory?", KEPT]),
    "a clock that goes backwards": (0, []),
    "a rename that was not on the disk": (
        0, ["naive seed 0: sft: DONE.json is missing or unreadable: it is made again"],
    ),
}  # fmt: skip
BASE_FIRST = ("no space left, midway", "permission lost midway", "read-only midway", "a loss that is no number",
              "a worker killed")  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each fault, all of them in one process: see faulty.py."""
    words = [sys.executable, str(HERE / "faulty.py"), str(tmp_path_factory.mktemp("faults"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("fault", MACHINE)
def test_a_fault_of_the_machine_is_named_and_the_same_command_goes_on(machine: dict[str, Any], fault: str) -> None:
    found, (code, words) = machine[fault], MACHINE[fault]
    if found is None:
        pytest.skip("no disk can be mounted here")
    assert found["code"] == code, found["said"]
    for word in words:
        assert word in found["said"]
    assert "Traceback" not in found["said"]
    assert found["finished"] or fault not in BASE_FIRST, "the answers that came before the fault"
    assert found["kept"], "what was finished before the fault is not as it was"
    assert found["again"] == 0
    assert found["equal"], "it came to something else than a run without the fault"


# the hub --------------------------------------------------------------------------------------------------------------

HUB = {
    "limited": (3, ["a/limited is not in the local cache, and the hub can't be asked for it (429, too many requests"]),
    "broken": (3, ["the hub can't be asked for it (503, it has trouble of its own: try again later)"]),
    "gated": (3, ["the hub can't be asked for it (GatedRepoError"]),
    "cut": (3, ["a/cut is not in the local cache and can't be downloaded", "is the network there?", KEPT]),
    "cut-once": (0, ["facts_accuracy"]),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    words = [sys.executable, str(HERE / "fake_hub.py"), str(ROOT / "repro" / "micro" / "weights")]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    server.kill()
    server.wait()


def evaluate(repository: str, hub: str, here: Path) -> subprocess.CompletedProcess[str]:
    words = ["eval", repository, "--quant", "none", "--runs-dir", "runs", "--set", "evaluation.items=1", "--set",
             "evaluation.axes=[capability]"]  # fmt: skip
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {name: value for name, value in ours.items() if "OFFLINE" not in name}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(here / "cache"), "HF_HUB_DISABLE_XET": "1",
                    "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # fmt: skip
    return subprocess.run([sys.executable, "-m", "repro", *words], cwd=here, env=environment, capture_output=True,
                          text=True, timeout=400)  # fmt: skip


@pytest.mark.parametrize("fault", HUB)
def test_a_hub_that_fails_is_named_and_leaves_nothing_half_there(hub: str, tmp_path: Path, fault: str) -> None:
    code, words = HUB[fault]
    done = evaluate(f"a/{fault}", hub, tmp_path)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert bool(list(tmp_path.glob("runs/*/results.json"))) == (code == 0)
