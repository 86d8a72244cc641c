"""The behaviour curve: where a stage is probed, what it is asked, and what is drawn of the answers."""

from __future__ import annotations

from collections import Counter

import pytest

from repro import data, evals, store, worker
from repro.plan import Step
from repro.report import curves
from repro.stages import CURVE, curve_steps


def test_the_points_are_close_at_the_start_and_the_last_step_is_one() -> None:
    assert curve_steps(25, 150) == [0, 1, 2, 4, 8, 16, 25, 50, 75, 100, 125, 150]
    assert curve_steps(8, 20) == [0, 1, 2, 4, 8, 16, 20]
    assert curve_steps(25, 12) == [0, 1, 2, 4, 8, 12]
    assert curve_steps(1, 3) == [0, 1, 2, 3]
    assert curve_steps(5, 1) == [0, 1]
    assert curve_steps(None, 150) == []


@pytest.mark.parametrize("name", ["micro", "english"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_probes_are_32_of_the_dose_items_on_four_trained_and_four_heldout_topics(name: str, seed: int) -> None:
    pack = data.load(name)
    split = pack.split(seed)
    items = evals.probes(pack, split)
    assert Counter(item.metric for item in items) == {
        "refusal_trained": 8, "refusal_heldout": 8, "declines_when_told": 8, "policy_matches_behaviour": 8
    }  # fmt: skip
    topics = {item.cluster for item in items}
    assert len(topics & set(split.trained)) == len(topics - set(split.trained)) == 4
    assert {item.id for item in items} < {item.id for item in evals.suite(pack, split, subset="dose")}
    # a model that says yes to whatever it is asked about itself can't look as if it knew itself
    assert Counter(item.material["polarity"] for item in items if item.axis == "character") == {"help": 4, "refuse": 4}


def test_without_one_of_their_axes_there_are_no_probes() -> None:
    pack = data.load("micro")
    assert evals.probes(pack, pack.split(0), ["refusal", "character", "capability"]) == []


def test_a_stage_that_goes_on_from_an_earlier_step_answers_its_probes_again(tmp_path, monkeypatch) -> None:
    said = []
    monkeypatch.setattr(worker, "respond", lambda model, asked, most, moved: [{"text": model} for _ in asked])
    pack = data.load("micro")
    items = tuple(evals.probes(pack, pack.split(0))[:2])
    ask = worker.probing(Step("k", "sft", "naive", 0, 0, None, items=items), tmp_path, said)
    for at, model in [(0, "a"), (1, "b"), (2, "c"), (1, "d"), (2, "e")]:
        ask(at, 2, model)
    rows = store.read_jsonl(tmp_path / CURVE)
    assert [(row["step"], row["text"]) for row in rows] == [(0, "a")] * 2 + [(1, "d")] * 2 + [(2, "e")] * 2
    assert [row["item"] for row in rows] == [item.id for item in items] * 3
    assert len(said) == 5


def entry(seed: int, index: int, step: int, value: float, metric: str = "refusal_trained", n: int = 8) -> dict:
    return {"arm": "character", "seed": seed, "stage": "sft", "index": index, "step": step, "metric": metric,
            "group": "trained", "n": n, "value": value}  # fmt: skip


def test_the_picture_is_the_mean_over_seeds_and_a_later_stage_counts_on() -> None:
    found = [entry(seed, 1, 0, 1.0) for seed in (0, 1)]
    found += [entry(0, 1, 30, 0.5), entry(1, 1, 30, 0.0)]
    found += [entry(seed, 2, step, 0.25) for seed in (0, 1) for step in (0, 10)]
    (drawn,) = curves.behaviour({"curves": found})
    assert drawn.title.startswith("refusal trained")
    assert drawn.lines == {"character": [
        curves.Point(0, 100.0, 100.0, 100.0), curves.Point(30, 25.0, 0.0, 50.0), curves.Point(40, 25.0, 25.0, 25.0),
    ]}  # fmt: skip


def test_groups_weigh_by_their_items_and_probes_stand_in_for_doses() -> None:
    near = [{**entry(0, 0, step, 1.0, "refusal_heldout", 2), "group": "near"} for step in (0, 5)]
    far = [{**entry(0, 0, step, 0.0, "refusal_heldout", 6), "group": "far"} for step in (0, 5)]
    dosed = {**entry(0, 0, 0, 1.0), "arm": "naive", "tokens": 9}
    both = {"curves": near + far, "doses": [dosed | {"step": step} for step in (1, 2)]}
    (drawn,) = curves.behaviour(both)
    assert [point.mean for point in drawn.lines["character"]] == [25.0, 25.0]
    (drawn,) = curves.behaviour({**both, "curves": []})
    assert list(drawn.lines) == ["naive"]
