"""The page of the robustness grid says what its cells say, names the cells that are missing, and is not out of date."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def grid():
    spec = importlib.util.spec_from_file_location("grid", ROOT / "bench" / "grid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(grid, where, verdict="shown", delta=-0.5, **more):
    claim = {"verdict": verdict, "delta": delta, "ci": None, "ci_holm": None, "values": {}, "why": ""}
    return {**dict(zip(grid.DIALS, where, strict=True)), "falls_short": {}, "claims": {"one": claim}, **more}


def test_the_committed_page_is_what_its_cells_say(grid) -> None:
    assert grid.PAGE.read_text(encoding="utf-8") == grid.page(grid.load())


def test_a_whole_grid_misses_nothing_and_a_claim_that_always_holds_is_said_in_a_sentence(grid) -> None:
    text = grid.page([cell(grid, where) for where in grid.everywhere()])
    assert "missing" not in text
    assert "24 cells." in text
    assert "| one | 100% (24) | – | – | – | – | – |" in text
    assert "`one` is shown in every cell." in text


def test_missing_cells_and_organisms_that_fall_short_are_named(grid) -> None:
    places = [where for where in grid.everywhere() if where[0] == 0.5 and where != (0.5, 1, 1.0, "full")]
    cells = [cell(grid, where, falls_short={"sums": [0.5, 0.9]} if where[1] else {}) for where in places]
    text = grid.page(cells)
    assert "17 of 24 cells are missing" in text
    assert "misdescribes 0.5, pretraining 1: 1" in text
    assert "* misdescribes 0.5, pretraining 1: falls short of its bars: sums 0.500 (bar 0.90)." in text


def test_the_dial_that_a_claim_hangs_on_is_found(grid) -> None:
    def at(where):
        big = where[2] == 1.0
        return cell(grid, where, "shown" if big else "absent", -0.6 if big else -0.1)

    text = grid.page([at(where) for where in grid.everywhere()])
    assert "`one` is shown in 12 of 24 cells, more often at some settings of eager (0: 0 of 12, 1: 12 of 12)." in text
    assert "| one | -35 | -35 | -35 | -35 | -35 | -10 | -60 | -35 | -35 | 50 (eager) |" in text


def test_what_is_opposite_somewhere_is_said(grid) -> None:
    cells = [cell(grid, where, "opposite" if where[3] == "full" else "shown") for where in grid.everywhere()]
    assert "It is opposite in 12." in grid.page(cells)


def test_the_cells_of_an_organism_share_what_does_not_differ(grid) -> None:
    plans = grid.cells(grid.SHIPPED, "0")
    steps = {key: step for plan in plans.values() for key, step in plan.steps.items()}
    count = [(step.arm, step.kind) for step in steps.values()]
    assert {what: count.count(what) for what in [("base", "answers"), ("control", "sft"), ("character", "sdf"),
                                                  ("naive", "sft"), ("character", "grpo")]} == {
        ("base", "answers"): 1, ("control", "sft"): 2, ("character", "sdf"): 1, ("naive", "sft"): 4,
        ("character", "grpo"): 4,
    }  # fmt: skip
