"""What results.json passes on to the claims: tags, base and seed; and numbers that lie exactly on a limit."""

from __future__ import annotations

import pytest
from made_units import Metric, make

from repro import claims

CLAIM = {
    "id": "c", "statement": "It rises.", "source": "abstract", "metric": "m", "arms": ["a", "b"],
    "expected": "higher", "smallest_effect": 0.1, "kind": "generalises",
}  # fmt: skip


def units() -> dict:
    found = {}
    for seed in range(3):
        found["a", seed] = make([1.0] * 8 + [0.0] * (2 + seed % 2), per_cluster=2)
        found["b", seed] = make([0.0] * 8 + [1.0] * (2 + seed % 2), per_cluster=2)
    return found


def results(**more):
    return claims.results(
        run="r", model="m", judge="j", units=units(), metrics={"m": Metric("m")}, claims=[CLAIM], versus="b", **more
    )


def test_results_hand_the_tags_on_to_the_claims() -> None:
    (free,) = results()["claims"]
    (tagged,) = results(tags={"m": {"a": "trained"}})["claims"]
    assert free["verdict"] != "not-testable"
    assert tagged["verdict"] == "not-testable"
    assert tagged["why"] == "the training of a showed m itself."


def test_results_hand_the_gate_on_to_the_claims() -> None:
    found = results(gate={("a", 0): 0.5, ("a", 1): 0.7, ("b", 0): 1.0})
    assert found["claims"][0]["verdict"] == "incoherent"
    assert found["claims"][0]["gate"] == {"a": pytest.approx(0.6), "b": 1.0}


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_claim_comes_out_the_same_each_time_and_follows_its_seed(seeds: int) -> None:
    # shares of all sizes, so that no two draws of the bootstrap come out alike
    shares = {("a", s): make([(i * 37 + s) % 101 / 101 for i in range(30)], per_cluster=2) for s in range(seeds)}
    both = shares | {("b", s): make([0.1] * 30, per_cluster=2) for s in range(seeds)}

    def tested(seed: int):
        return claims.test_claims(both, [CLAIM], {"m": Metric("m")}, {}, base="b", seed=seed)

    assert tested(1) == tested(1)
    assert tested(1)[0]["ci"] != tested(2)[0]["ci"]


def test_a_claim_names_its_two_arms_in_order() -> None:
    (found,) = claims.test_claims(units(), [CLAIM], {"m": Metric("m")}, {}, base="b")
    assert found["arms"] == ["a", "b"]
    assert found["delta"] > 0
    (turned,) = claims.test_claims(units(), [{**CLAIM, "arms": ("b", "a")}], {"m": Metric("m")}, {}, base="b")
    assert turned["arms"] == ["b", "a"]
    assert turned["delta"] == -found["delta"]
