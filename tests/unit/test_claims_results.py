"""results.json: every key of it, what is exploratory, what is warned of, and what is counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_units import Metric, Unit, make
from test_claims import CLAIM, lower, run

from repro import claims, stats

# -- results.json ----------------------------------------------------------------------------------------------------


def build(units, **changes):
    options = {"run": "r", "model": "micro", "judge": {"name": "j"}, "metrics": {"m": Metric("m")}}
    return claims.results(units=units, **{**options, **changes})


def test_results_have_every_key_of_schema_1_and_what_is_added():
    units = run([0.3, 0.32, 0.34])
    found = build(units, claims=[CLAIM], claims_hash="beef", tags={"m": {"a": "generalises"}}, pack="micro")
    assert list(found) == [
        "schema", "run", "model", "judge", "arms", "seeds", "versus", "metrics", "claims", "claims_hash", "exploratory",
        "tags", "gate", "warnings", "pack",
    ]  # fmt: skip
    assert (found["schema"], found["run"], found["model"], found["judge"]) == (1, "r", "micro", {"name": "j"})
    assert (found["arms"], found["seeds"]) == (["a", "b", "base"], [0, 1, 2])
    assert (found["claims_hash"], found["pack"]) == ("beef", "micro")
    assert (found["tags"], found["warnings"]) == ({"m": {"a": "generalises"}}, [])
    assert found["claims"][0]["verdict"] == "shown"
    assert found["metrics"] == stats.metrics_table(units, {"m": Metric("m")})
    json.dumps(found, allow_nan=False)


def test_comparisons_that_no_claim_names_are_exploratory():
    units = run([0.3, 0.32, 0.34])
    found = build(units, claims=[{**CLAIM, "arms": ["base", "a"]}])
    (entry,) = found["exploratory"]
    assert (entry["metric"], entry["arms"], entry["delta"]) == ("m", ["b", "base"], 0)
    assert set(entry) == {"metric", "arms", "delta", "ci", "p", "p_holm", "pairs", "dropped"}
    assert [e["arms"] for e in build(units)["exploratory"]] == [["a", "base"], ["b", "base"]]
    other = build(units, versus="b")
    assert (other["versus"], [e["arms"] for e in other["exploratory"]]) == ("b", [["a", "b"], ["base", "b"]])
    assert build(units)["versus"] == "base"


def test_warnings_name_few_seeds_and_arms_that_fail_the_gate():
    units = run([0.3, 0.3])
    found = build(units, gate={("a", 0): 0.8, ("a", 1): 0.9, ("b", 0): 0.9}, warnings=["slow"])
    assert found["warnings"] == [
        "slow",
        "seeds: 2; below 3, no interval carries the spread from seed to seed.",
        "only 85% of a's answers are well formed and on topic (gate: 90%).",
    ]
    assert found["gate"] == pytest.approx({"a": 0.85, "b": 0.9, "base": None})


def test_lost_samples_are_counted_beside_lost_units():
    lost = {("a", 0): {"m": (40, 3), "k": (9, 9)}, ("a", 1): {"m": (40, 4)}, ("b", 0): {"m": (40, 5)}, ("b", 1): {}}
    rows = build(run([0.3, 0.3]), unscored=lost)["metrics"]
    counted = {(row["arm"], row["seed"]): row["unscored_answers"] for row in rows}
    assert counted["a", None] == 7
    assert (counted["a", 0], counted["a", 1], counted["b", None], counted["base", None]) == (3, 4, 5, 0)
    assert "unscored_answers" not in build(run([0.3, 0.3]))["metrics"][0]


def test_the_seed_reaches_the_tests():
    rng = np.random.default_rng(4)
    units = {(arm, seed): make(list(rng.random(40))) for arm in "abc" for seed in range(3)}
    one, other = (build(units, claims=[CLAIM], seed=seed, versus="b") for seed in (1, 2))
    assert one["claims"][0]["p"] != other["claims"][0]["p"]
    assert one["exploratory"][0]["p"] != other["exploratory"][0]["p"]
    assert build(units, claims=[CLAIM]) == build(units, claims=[CLAIM], seed=0)


def test_a_claim_that_generalises_is_not_tested_on_what_training_showed() -> None:
    claim = {"id": "x", "statement": "s", "source": "s", "metric": "m", "arms": ["a", "b"], "expected": "higher",
             "smallest_effect": 0.1, "kind": "generalises"}  # fmt: skip
    units = {(arm, seed): [Unit("m", "near", f"u{i}", f"c{i}", float(arm == "a")) for i in range(12)]
             for arm in ("a", "b", "base") for seed in range(3)}  # fmt: skip
    tags = {"m": {"a": "trained", "b": "generalises"}}

    def verdict_of(**changes: object) -> str:
        return claims.test_claims(units, [claim | changes], {}, {}, tags=tags)[0]["verdict"]

    assert verdict_of() == "not-testable"
    assert verdict_of(kind="trained") == "shown"
    assert verdict_of(group=["near", "far"]) == "shown"
    assert verdict_of(group="far") == "not-testable"


def test_results_measure_headroom_on_the_arm_that_all_are_compared_with():
    units = run([-0.2, -0.21, -0.22], b=0.5, metric="refusal_heldout")
    for seed in range(3):
        units["base", seed] = make([0.1] * 20, "refusal_heldout")
    options = {"metrics": {"refusal_heldout": Metric("refusal_heldout")}, "claims": [lower(metric="refusal_heldout")]}
    assert build(units, **options)["claims"][0]["verdict"] == "not-testable"
    assert build(units, versus="b", **options)["claims"][0]["verdict"] == "shown"
