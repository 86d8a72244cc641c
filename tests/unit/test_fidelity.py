"""The fidelity table is what the recipes say, and says for each ingredient where the paper's value comes from."""

from __future__ import annotations

import re
from pathlib import Path

from repro import fidelity, recipes
from repro.keys import experiment_hash

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


def test_the_committed_table_is_the_recipes_own() -> None:
    assert PAGE.read_text(encoding="utf-8") == fidelity.markdown()


def test_every_value_of_the_paper_has_a_tag_and_every_value_of_the_kit_a_source() -> None:
    lines = fidelity.ingredients()
    assert len(lines) >= 15
    assert all(re.search(r"\b(U|P|2nd|R)\b", line.paper) for line in lines)
    assert all(line.source and line.why for line in lines)
    assert len({line.what for line in lines}) == len(lines)


def test_the_tables_words_change_no_run() -> None:
    experiment = recipes.load_experiment("reproduce-small")
    assert "ingredients" not in str(experiment.model_dump(mode="json"))
    assert experiment_hash(experiment) == experiment_hash(experiment.model_copy(update={"paper": None}))
