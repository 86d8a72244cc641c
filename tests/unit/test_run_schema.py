"""Run folders of every schema so far stay readable, and one of a later schema is refused with a line.

tests/data/run-schema-1 is a run of this project's own organism, its weights left out. It is never made again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from repro import runfolder as run_folder
from repro import sidebyside, store
from repro.errors import BadInput
from repro.report import page, table

OLD = Path(__file__).parents[1] / "data"
SCHEMAS = (1,)


@pytest.fixture(params=SCHEMAS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the kept run of each schema."""
    return Path(shutil.copytree(OLD / f"run-schema-{request.param}", tmp_path / "run-schema"))


def test_an_old_run_is_shown_as_it_was(old: Path) -> None:
    content = sidebyside.read_results(str(old), old.parent)
    shown, then = table.markdown(content), (old / "table.md").read_text()
    figures = [line for line in then.splitlines() if "facts_accuracy" in line]
    assert figures
    assert all(cell in shown for line in figures for cell in line.split("|"))
    assert store.changed(old) == []


def test_old_runs_are_joined_with_others(old: Path) -> None:
    other = Path(shutil.copytree(old, old.parent / "other-run"))
    content = sidebyside.joined([old, other])
    assert content["arms"] == ["run-schema/base", "run-schema/naive", "other-run/base", "other-run/naive"]


def test_an_old_run_gets_its_page(old: Path) -> None:
    text = page.write(old).read_text()
    assert "facts_accuracy" in text
    read = run_folder.read(old)
    assert [(stage.arm, stage.kind) for stage in read.stages] == [
        ("base", "answers"), ("naive", "sft"), ("naive", "answers"),
    ]  # fmt: skip
    assert read.unfinished == read.faults == []


@pytest.mark.parametrize("name", ["manifest.json", "results.json"])
def test_a_run_of_a_later_schema_is_refused_with_the_advice_to_update(old: Path, name: str) -> None:
    content = json.loads((old / name).read_text())
    (old / name).write_text(json.dumps({**content, "schema": 99}))
    readers = {
        "results.json": [lambda: sidebyside.read_results(str(old), old.parent), lambda: run_folder.read(old)],
        "manifest.json": [
            lambda: sidebyside.read_finished(old), lambda: run_folder.read(old),
            lambda: store.check(old, content["experiment_hash"]),
        ],
    }  # fmt: skip
    for read in readers[name]:
        with pytest.raises(BadInput, match=rf"{name}: schema 99 is of a newer repro.*update repro"):
            read()


def test_results_that_were_changed_afterwards_are_named(old: Path) -> None:
    path = old / "results.json"
    path.write_text(path.read_text().replace("0.5", "0.6", 1) + " ")
    with pytest.raises(BadInput, match=r"results\.json: it was changed after the run had finished"):
        sidebyside.read_results(str(old), old.parent)
    assert run_folder.read(old).faults == [
        "results.json was changed after the run had finished; the same repro run writes it again."
    ]
