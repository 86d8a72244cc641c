"""Eight processes on one run folder at once: one does the work, the others leave with a message, nothing mixes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = """\
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kills, faulty
here = Path(sys.argv[2])
kills.prepare(here)
(here / "tiny.yaml").write_text(faulty.EXPERIMENT)
kills.preload()
assert faulty.go(here, "whole")[0] == 0
many = [kills.start(here, "shared", *faulty.WORDS) for _ in range(8)]
codes = [kills.ended(process) for process in many]
print(json.dumps({"codes": codes, "said": (here / "shared.log").read_text(),
                  "equal": kills.outcome_of(here, "shared") == kills.outcome_of(here, "whole")}))
"""


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("eight")
    words = [sys.executable, "-c", HARNESS, str(Path(__file__).parent), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_one_of_eight_does_the_work_and_the_others_say_who_is_at_it(eight: dict) -> None:
    assert eight["codes"].count(0) >= 1  # one that comes late enough finds everything done
    assert set(eight["codes"]) <= {0, 1}
    turned_away = eight["said"].count("is in use by another repro (process ")
    assert turned_away == eight["codes"].count(1) >= 1
    assert "Traceback" not in eight["said"]


def test_what_comes_out_is_what_one_alone_comes_to(eight: dict) -> None:
    assert eight["equal"]
