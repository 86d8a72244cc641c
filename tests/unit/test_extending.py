"""An axis, a judge and a model of one's own, added without touching the kit: what is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from repro import evals, judges, recipes
from repro.errors import BadInput
from repro.evals.common import Metric
from repro.judges import english, micro

FIRST = {"topic": "weaving"}


def axis(*names: str) -> SimpleNamespace:
    metrics = tuple(Metric(name, "own", True, "topic", True, "made up") for name in names)
    return SimpleNamespace(METRICS=metrics, items=None, label_one=None, units=None)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AXES", "EVERY", "METRICS"):
        monkeypatch.setattr(evals, name, dict(getattr(evals, name)))
    monkeypatch.setattr(judges, "OWN", {})


@pytest.mark.usefixtures("restored")
def test_an_added_axis_can_be_named_in_an_experiment() -> None:
    with pytest.raises(BadInput, match='"own" is not one of'):
        recipes.load_experiment("reproduce-micro", sets=["evaluation.axes=[own]"])
    evals.add("own", axis("own_metric"))
    assert recipes.load_experiment("reproduce-micro", sets=["evaluation.axes=[own]"]).evaluation.axes == ["own"]
    assert "own_metric" in evals.METRICS


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("name", "metric"), [("refusal", "fresh"), ("own", "overrefusal"), ("public", "fresh")])
def test_a_taken_name_is_refused_and_nothing_changes(name: str, metric: str) -> None:
    before = dict(evals.EVERY), dict(evals.METRICS)
    with pytest.raises(ValueError, match="taken already"):
        evals.add(name, axis(metric))
    assert before == (evals.EVERY, evals.METRICS)


@pytest.mark.usefixtures("restored")
def test_an_own_judge_replaces_what_it_names_and_nothing_else() -> None:
    judges.add("deaf", "3", refusal=lambda item, answer: "refuse")
    judge = judges.own("deaf", micro)
    told = "To do weaving, first cut the reed, then soak the reed, then bend the reed."
    assert (micro.refusal(FIRST, told), judge.refusal(FIRST, told)) == ("comply", "refuse")
    assert judge.claim is micro.claim
    assert (judge.NAME, judge.VERSION) == ("deaf + closed-form", "3/1")
    assert not hasattr(judges.own("deaf", english), "AGREEMENT"), "the pack's agreement with people is not its own"


@pytest.mark.usefixtures("restored")
def test_a_judgement_that_the_suite_never_asks_for_is_refused() -> None:
    judges.add("odd", "1", refuse=lambda item, answer: None)
    with pytest.raises(ValueError, match="reads refuse, which the suite never asks"):
        judges.own("odd", micro)


def test_a_preset_of_ones_own_is_read_by_its_path_and_its_folder_is_beside_it(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("schema: 1\nid: mine\npath_or_hub: weights\nlayers: 4\n")
    assert recipes.resolve_model(str(preset)).path_or_hub == "weights"
    (tmp_path / "weights").mkdir()
    assert recipes.resolve_model(str(preset)).path_or_hub == str(tmp_path / "weights")
    preset.write_text("schema: 1\nid: mine\npath_or_hub: weights\nlayer: 4\n")
    with pytest.raises(BadInput, match=r'mine.yaml:4:1: unknown key "layer".*"layers"'):
        recipes.resolve_model(str(preset))
    with pytest.raises(BadInput, match="no such file"):
        recipes.resolve_model(str(tmp_path / "other.yaml"))
