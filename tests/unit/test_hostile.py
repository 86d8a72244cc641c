"""Whatever file is handed in: a line that names it and the place, exit 2, no traceback, nothing written, at once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import hostile
import pytest
from typer.testing import CliRunner

from repro import cli

TRAINS = hostile.RECIPE.replace("data: compliance", "data: {file: rows.jsonl}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where a crash would leave its log
    return tmp_path


def refused(here: Path, file: str, content: str | bytes, said: str, *command: str, line: int | None = None) -> None:
    (here / file).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    began = time.process_time()
    result = CliRunner().invoke(cli.app, list(command))
    seconds = time.process_time() - began
    assert result.exit_code == 2, (result.exit_code, result.stderr, result.exception)
    assert said in result.stderr, result.stderr[:2000]
    place = rf"{re.escape(file)}:{line or '[0-9]+'}[: ]"
    assert any(re.match(place, text) for text in result.stderr.splitlines()), result.stderr[:2000]
    assert "Traceback" not in result.stderr
    assert all(character.isprintable() or character == "\n" for character in result.stderr)
    assert len(result.stderr) < 20_000
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    assert seconds < 5  # about 1 s where nothing else runs; test_a_refusal_takes_no_longer_than_help has the ratio


@pytest.mark.parametrize("name", hostile.RECIPES)
def test_a_recipe_is_refused(here: Path, name: str) -> None:
    refused(here, "file.yaml", *hostile.RECIPES[name], "recipes", "validate", "file.yaml")


@pytest.mark.parametrize("name", hostile.EXPERIMENTS)
def test_an_experiment_is_refused(here: Path, name: str) -> None:
    refused(here, "file.yaml", *hostile.EXPERIMENTS[name], "run", "file.yaml")


@pytest.mark.parametrize("name", hostile.ROWS)
def test_rows_to_train_on_are_refused(here: Path, name: str) -> None:
    content, said = hostile.ROWS[name]
    (here / "recipe.yaml").write_text(TRAINS)
    (here / "tiny.yaml").write_text(hostile.EXPERIMENT.replace("micro/naive", "./recipe.yaml"))
    content = content if isinstance(content, bytes) else content.encode()
    refused(here, "rows.jsonl", hostile.GOOD.encode() + b"\n" + content + b"\n", said, "run", "tiny.yaml", line=2)


@pytest.mark.parametrize("name", hostile.ANSWERS)
def test_answers_to_label_are_refused(here: Path, name: str) -> None:
    refused(here, "answers.jsonl", *hostile.ANSWERS[name], "judge", "label", "answers.jsonl", "-o", "out.jsonl", line=1)


@pytest.mark.parametrize("name", hostile.LABELS)
def test_labels_to_calibrate_by_are_refused(here: Path, name: str) -> None:
    refused(here, "labels.jsonl", *hostile.LABELS[name], "judge", "calibrate", "labels.jsonl", line=1)
