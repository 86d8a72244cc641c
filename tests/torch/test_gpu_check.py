"""The GPU checks, ready to run: sections work on tiny shapes, and the page says what was measured and what not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))  # as when the script itself runs: it imports its neighbour
    spec = importlib.util.spec_from_file_location("gpu_report", BENCH / "gpu_report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "gpu_check.py"), *words], capture_output=True, text=True, **options
    )


def test_the_canary_sings_on_a_tiny_model():
    done = check("--small", "--only", "canary")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["ok"] is True


@pytest.mark.slow
def test_every_section_runs_on_tiny_shapes():
    done = check("--small")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [entry for entry in found if "error" in entry]
    assert {entry["section"] for entry in found} >= {"canary", "stages", "packed", "training", "answers", "memory"}


def test_without_a_gpu_it_says_so_and_writes_nothing():
    if importlib.import_module("torch").cuda.is_available():
        pytest.skip("there is a GPU here")
    before = sorted((BENCH / "results").iterdir())
    done = check()
    assert done.returncode == 3
    assert "no CUDA device here" in done.stderr
    assert sorted((BENCH / "results").iterdir()) == before


def test_the_page_shows_what_was_measured_and_says_what_was_not(report, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "PAGE", tmp_path / "performance.md")
    assert "| none so far | all | not yet measured |" in report.page()
    found = [
        {"section": "canary", "argument": "", "cap_gib": None, "result": {"ok": True, "loss_last": 0.1}},
        {"section": "memory", "argument": "X", "cap_gib": 6.0, "error": "not done in 9 s"},
        {"section": "repeats", "argument": "", "cap_gib": None, "result": {"ok": False}},
    ]
    path = report.write({"gpu": "Tesla T4, 15360 MiB, 550", "versions": {}}, found)
    assert path.name == "gpu-tesla-t4.json"
    page = (tmp_path / "performance.md").read_text()
    assert '| Tesla T4 | canary | yes; {"loss_last": 0.1} |' in page
    assert "| Tesla T4 | memory X (capped at 6 GiB) | failed: not done in 9 s |" in page
    assert "| Tesla T4 | repeats | NO; {} |" in page
    assert "not yet measured" not in page


def test_the_committed_page_is_the_one_that_the_results_make(report):
    assert report.PAGE.read_text(encoding="utf-8") == report.page()
