"""The page of what to expect of the labs is made from measured figures, and its ranges are what it says they are."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = runpy.run_path(str(ROOT / "bench" / "coursework.py"))
LABS = ROOT / "docs" / "coursework"


def test_the_page_is_what_the_measured_figures_give() -> None:
    data = json.loads(BENCH["DATA"].read_text(encoding="utf-8"))
    assert BENCH["PAGE"].read_text(encoding="utf-8") == BENCH["page"](data), "bench/coursework.py writes it"


def test_a_cell_has_the_mean_the_threes_and_the_single_seeds() -> None:
    seeds = {"0": 0.0, "1": 0.1, "2": 0.2, "3": 0.9}
    assert BENCH["threes"]([0, 3, 6, 9]) == (3, 6)
    assert BENCH["cell"](seeds) == "30 (10 to 40; 0 to 90)"
    assert BENCH["threes"]([1, 3]) == (2, 2), "fewer than three: their mean"


def test_the_figures_come_from_single_seeds_not_from_the_pooled_row() -> None:
    entry = {"metric": "refusal_trained", "arm": "naive", "value": 0.5}
    found = BENCH["arms"]({"metrics": [{**entry, "seed": None}, {**entry, "seed": 3, "value": 0.25}]})
    assert found == [{"metric": "refusal_trained", "arm": "naive", "seeds": {"3": 0.25}}]


def test_a_dose_is_weighed_over_its_groups_by_their_items() -> None:
    entry = {"arm": "naive", "metric": "refusal_heldout", "step": 9, "seed": 0}
    found = BENCH["doses"]({"doses": [{**entry, "value": 1.0, "n": 6}, {**entry, "value": 0.0, "n": 12}]})
    assert found == [{"step": 9, "metric": "refusal_heldout", "seeds": {"0": pytest.approx(1 / 3, abs=1e-3)}}]


@pytest.mark.parametrize("number", range(1, 6))
def test_every_lab_has_its_parts_and_a_rubric_that_adds_up(number: int) -> None:
    text = (LABS / f"lab{number}.md").read_text(encoding="utf-8")
    for part in ("**Aims.**", "## Hand in", "--json >", "## Rubric (20 points)"):
        assert part in text, part
    rubric = text.partition("## Rubric")[2]
    points = [int(line.split("|")[1]) for line in rubric.splitlines() if line.startswith("|") and line[2].isdigit()]
    assert sum(points) == 20
