"""Keys, tokens and passwords of the environment reach no file of a run, no message, no log; hostile files end soon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.errors import BadInput, safe

ROOT = Path(__file__).parents[2]
PLANTED = {
    "HF_TOKEN": "hf_PLANTEDplantedPLANTEDplanted1", "OPENAI_API_KEY": "sk-planted-PLANTED-planted-2",
    "REPRO_API_KEY": "planted-key-of-a-server-3", "AWS_SECRET_ACCESS_KEY": "planted/secret+of/a/cloud4",
    "DATABASE_PASSWORD": "planted password five", "HTTPS_PROXY": "http://user:planted-password-6@127.0.0.1:9",
}  # fmt: skip
WORDS = [*(value for name, value in PLANTED.items() if name != "HTTPS_PROXY"), "planted-password-6"]
EXPERIMENT = """\
schema: 1
name: miniature
model: organism
pack: micro
quant: none
seeds: [0]
arms:
  base: {}
  naive: {recipe: micro/naive, stages: {sft: {steps: 2, batch: 2, data: [{pack: compliance, count: 4}]}}}
evaluation: {axes: [capability], samples: 1, items: 2, max_new_tokens: 8}
"""
# a library that says too much: the token, whenever a step's weights are written
CHATTY = """\
import os, sys
def said(event, given):
    if event == "open" and str(given[0]).endswith("adapter_config.json"):
        os.write(2, b"asked the hub with " + os.environb[b"HF_TOKEN"] + b" and it answered\\n")
sys.addaudithook(said)
"""


def repro(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **PLANTED, "HF_HUB_OFFLINE": "1", "TMPDIR": str(here)}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{here / 'chatty'}"
    return subprocess.run(
        [sys.executable, "-m", "repro", *words], cwd=here, env=environment, capture_output=True, text=True, timeout=600
    )


def leaks(here: Path, *said: str) -> list[str]:
    texts = {path.name: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    texts |= {f"output {place}": text.encode() for place, text in enumerate(said)}
    return [f"{name}: {word}" for name, text in texts.items() for word in WORDS if word.encode() in text]


def test_a_run_and_a_failing_server_leave_no_secret_anywhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "repro" / "micro" / "weights", tmp_path / "organism")
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    (tmp_path / "chatty").mkdir()
    (tmp_path / "chatty" / "sitecustomize.py").write_text(CHATTY)
    done = repro(tmp_path, "run", "tiny.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    logs = "".join(log.read_text() for log in (tmp_path / "runs").glob("*/logs/*"))
    assert "asked the hub with [secret] and it answered" in logs
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_server.py")), "--key"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        # it wants another key, and quotes the wrong one
        refused = repro(tmp_path, "eval", f"openai:fake@{address}", "--set", "evaluation.items=1")
    finally:
        server.kill()
        server.wait()
    assert refused.returncode == 2, refused.stderr
    named = repro(tmp_path, "eval", "openai:fake@http://user:planted-password-6@127.0.0.1:9/v1")
    assert named.returncode == 2
    asked = repro(tmp_path, "run", "tiny.yaml", "--set", f"evaluation.axes={PLANTED['HF_TOKEN']}")
    assert asked.returncode == 2
    assert "[secret]" in asked.stderr
    assert list((tmp_path / "runs").glob("*/logs/*"))
    assert leaks(tmp_path, *(one.stdout + one.stderr for one in (done, refused, named, asked))) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [("Authorization: Bearer abc.def", "Authorization: Bearer [secret]"),
     ("{'authorization': 'Basic dXNlcjpwdw=='}", "{'authorization': 'Basic [secret]'}"),
     ("https://me:pw@hub.example/x", "https://[secret]@hub.example/x"),
     ("the token hf_abcdefghijklmnopqrst is wrong", "the token [secret] is wrong"),
     ("the bearer of good news", "the bearer of good news"),
     ("openai:llama@http://localhost:1/v1", "openai:llama@http://localhost:1/v1"),
     ("key=swordfish-swordfish", "key=[secret]")],
)  # fmt: skip
def test_what_looks_like_a_secret_is_struck_and_nothing_else(text: str, kept: str, monkeypatch) -> None:
    monkeypatch.setenv("MY_SECRET", "swordfish-swordfish")
    monkeypatch.setenv("SHORT_KEY", "the")
    assert safe(text) == kept
    assert BadInput([text]).lines == [kept]


HOSTILE = {
    "laughs.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "deep.yaml": "schema: 1\nstages: " + "[" * 100_000,
    "large.yaml": "# x\n" * 2_500_000,
    "values.yaml": "".join(f"k{n}: 1\n" for n in range(80_000)),
}


def test_a_hostile_recipe_takes_a_process_little_longer_than_a_sound_one(tmp_path: Path) -> None:
    (tmp_path / "sound.yaml").write_text("schema: 1\nname: x\nstages:\n  - {kind: sft, data: compliance, steps: 2}\n")
    began = time.monotonic()
    assert repro(tmp_path, "recipes", "validate", "sound.yaml").returncode == 0
    usual = time.monotonic() - began
    for name, text in HOSTILE.items():
        (tmp_path / name).write_text(text)
        began = time.monotonic()
        done = repro(tmp_path, "recipes", "validate", name)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{name}:")
        assert time.monotonic() - began < 5 * usual + 2
