"""Pre-registered claims: the file is read strictly, and each verdict follows from the rule written before the run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_units import Bounded, Metric, Unit, make

from repro import claims, stats

CLAIM = {
    "id": "c", "statement": "It rises.", "source": "abstract", "metric": "m", "arms": ["a", "b"],
    "expected": "higher", "smallest_effect": 0.1, "kind": "generalises",
}  # fmt: skip
# -- verdicts --------------------------------------------------------------------------------------------------------


def run(differences, *, b=0.4, n=20, metric="m", group=None, **extra):
    """Units of arms a, b and base (as b) whose per-seed difference a - b is as given, alike in every topic."""
    units = {}
    for seed, difference in enumerate(differences):
        units["a", seed] = make([b + difference] * n, metric, group, **extra)
        units["b", seed] = make([b] * n, metric, group, **extra)
        units["base", seed] = make([b] * n, metric, group, **extra)
    return units


def judge(units, claim=CLAIM, gate=(), metrics=None, **options):
    metrics = metrics or {claim["metric"]: Metric(claim["metric"])}
    (found,) = claims.test_claims(units, [claim], metrics, dict(gate), **options)
    return found


def lower(**changes):
    return {**CLAIM, "expected": "lower", **changes}


def test_a_clear_rise_is_shown():
    found = judge(run([0.3, 0.32, 0.34]))
    assert found["verdict"] == "shown"
    assert found["delta"] == pytest.approx(0.32)
    half = 4.302653 * 0.02 / 3**0.5
    assert found["ci"] == found["ci_holm"] == pytest.approx([0.32 - half, 0.32 + half])
    assert found["detectable"] == pytest.approx(half)
    assert found["p"] == found["p_holm"] == 1 / 10_001
    assert found["alpha_holm"] == 0.05
    assert [(s["seed"], s["n"]) for s in found["per_seed"]] == [(0, 20), (1, 20), (2, 20)]
    assert [s["delta"] for s in found["per_seed"]] == pytest.approx([0.3, 0.32, 0.34])
    assert (found["n"], found["dropped"]) == (20, 0)
    assert found["values"] == pytest.approx({"a": 0.72, "b": 0.4, "base": 0.4})
    assert found["gate"] == {"a": None, "b": None}
    assert found["why"] == "all 3 seeds point the expected way and the interval [27, 37] points (Holm) leaves out 0."
    assert {key: found[key] for key in CLAIM} == CLAIM
    assert not [key for key in found if key.startswith("_")]


def test_delta_is_the_first_arm_minus_the_second():
    found = judge(run([-0.3, -0.32, -0.34]), lower())
    assert (found["verdict"], found["delta"]) == ("shown", pytest.approx(-0.32))
    swapped = judge(run([-0.3, -0.32, -0.34], b=0.6), {**CLAIM, "arms": ["b", "a"]})
    assert (swapped["verdict"], swapped["delta"]) == ("shown", pytest.approx(0.32))


def test_the_other_side_is_opposite():
    found = judge(run([-0.3, -0.32, -0.34]))
    assert found["verdict"] == "opposite"
    assert found["why"] == "all 3 seeds point the other way and the interval [-37, -27] points (Holm) leaves out 0."
    assert judge(run([0.3, 0.32, 0.34]), lower())["verdict"] == "opposite"


def test_an_effect_below_the_smallest_that_counts_is_not_shown():
    assert judge(run([0.25, 0.25, 0.25], b=0.25), {**CLAIM, "smallest_effect": 0.25})["verdict"] == "shown"
    assert judge(run([-0.25, -0.25, -0.25], b=0.5), {**CLAIM, "smallest_effect": 0.25})["verdict"] == "opposite"
    assert judge(run([0.1, 0.1, 0.1], b=0.2))["verdict"] == "shown"  # 0.3 - 0.2 is a little less than 0.1
    assert judge(run([0.08, 0.09, 0.14]))["verdict"] == "shown"
    found = judge(run([0.08, 0.09, 0.12]))
    assert found["verdict"] == "inconclusive"
    assert found["why"] == (
        "a difference is there, but 9.7 points falls short of the 10 points that count; "
        "an effect of 5.2 points could have been found."
    )
    mirrored = judge(run([-0.08, -0.09, -0.12]), lower())
    assert (mirrored["verdict"], mirrored["why"]) == ("inconclusive", found["why"].replace("9.7", "-9.7"))
    assert judge(run([-0.08, -0.09, -0.12]))["verdict"] == "inconclusive"


def test_seeds_that_disagree_show_nothing():
    found = judge(run([0.9, 0.9, -0.01], b=0.05))
    assert found["verdict"] == "inconclusive"
    assert found["why"].startswith("the seeds do not all point the same way; no effect of any size")
    assert judge(run([0.3, 0.31, 0.0]))["why"].startswith("the seeds do not all")
    assert judge(run([-0.3, -0.31, 0.0]))["why"].startswith("the seeds do not all")
    assert judge(run([-0.3, -0.31, 0.01]))["why"].startswith("the seeds do not all")


def test_an_interval_over_0_shows_nothing_and_says_what_it_could_have_found():
    found = judge(run([0.02, 0.3, 0.2]))
    assert found["verdict"] == "inconclusive"
    half = found["detectable"]
    assert half == pytest.approx(4.302653 * np.std([0.02, 0.3, 0.2], ddof=1) / 3**0.5)
    expected = "the interval [-17.9, 52.6] points (Holm) includes 0; an effect of 35.2 points could have been found."
    assert found["why"] == expected


def test_few_topics_can_not_be_sure_even_if_the_seeds_agree():
    found = judge(run([0.3, 0.32, 0.34], n=5))
    assert found["p_holm"] == 2 / 32
    assert found["verdict"] == "inconclusive"
    assert found["why"].startswith(
        "flipping whole topics or questions gives p = 0.062 after Holm; an effect of 5 points"
    )
    assert judge(run([0.3, 0.32, 0.34], n=6))["verdict"] == "shown"


def test_topics_are_the_clusters():
    units = run([0.3, 0.32, 0.34], n=20, per_cluster=4)
    assert judge(units)["p"] == 2 / 32


def test_an_interval_within_the_smallest_effect_is_absent():
    found = judge(run([0.0, 0.01, 0.02]))
    assert found["verdict"] == "absent"
    assert found["why"] == "the 95% interval [-1.5, 3.5] points lies within the smallest effect that counts, 10 points."
    assert judge(run([0.0, -0.01, -0.02]))["verdict"] == "absent"
    assert judge(run([0.0, 0.01, 0.02]), {**CLAIM, "smallest_effect": 0.034})["verdict"] == "inconclusive"
    assert judge(run([0.0, -0.01, -0.02]), {**CLAIM, "smallest_effect": 0.034})["verdict"] == "inconclusive"
    assert judge(run([0.0, 0.01, 0.02]), {**CLAIM, "smallest_effect": 0.036})["verdict"] == "absent"


def test_seeds_without_any_spread_are_fine():
    assert judge(run([0.0, 0.0, 0.0]))["verdict"] == "absent"
    assert judge(run([0.5, 0.5, 0.5]))["verdict"] == "shown"
    assert judge(run([0.0] * 3), {**CLAIM, "smallest_effect": 1e-9})["verdict"] == "absent"


def test_two_seeds_can_be_at_most_inconclusive():
    for differences in ([0.3, 0.32], [0.0, 0.0], [-0.3, -0.32]):
        found = judge(run(differences))
        assert found["verdict"] == "inconclusive"
        assert found["why"].startswith("2 seeds: needs >= 3 seeds; an effect of ")


def test_one_seed_is_not_testable_but_still_measured():
    found = judge(run([0.3]))
    assert (found["verdict"], found["why"]) == ("not-testable", "1 seed: needs >= 3 seeds.")
    assert found["delta"] == pytest.approx(0.3)
    assert found["p"] == 1 / 10_001


def test_no_headroom_is_not_testable():
    found = judge(run([0.01, 0.02, 0.03], b=0.95))
    assert (found["verdict"], found["why"]) == ("not-testable", "b is at 95%: no room to rise by 10 points.")
    found = judge(run([-0.01, -0.02, -0.03], b=0.05), lower())
    assert (found["verdict"], found["why"]) == ("not-testable", "b is at 5%: no room to fall by 10 points.")
    assert judge(run([0.01, 0.0, 0.01], b=0.875), {**CLAIM, "smallest_effect": 0.125})["verdict"] == "absent"
    assert judge(run([-0.01, 0.0, 0.01], b=0.125), lower(smallest_effect=0.125))["verdict"] == "absent"


def test_a_clear_result_on_the_other_side_needs_no_headroom():
    assert judge(run([-0.3, -0.32, -0.34], b=0.95))["verdict"] == "opposite"
    assert judge(run([0.3, 0.32, 0.34], b=0.05), lower())["verdict"] == "opposite"


def test_headroom_is_a_matter_of_shares_only():
    units = run([30.0, 32.0, 34.0], b=50.0)
    found = judge(units)
    assert found["verdict"] == "shown"
    assert "interval [27.03, 36.97] (Holm)" in found["why"]


@pytest.mark.parametrize(("base", "verdict"), [(0.29, "not-testable"), (0.30, "shown")])
def test_refusal_claims_need_a_base_that_refuses(base, verdict):
    units = run([-0.2, -0.21, -0.22], b=0.5, metric="refusal_heldout")
    for seed in range(3):
        units["base", seed] = make([base] * 20, "refusal_heldout")
    found = judge(units, lower(metric="refusal_heldout"))
    assert found["verdict"] == verdict
    if verdict == "not-testable":
        assert found["why"] == "base declines only 29% there (needs 30%)."
    assert judge(units, lower(metric="refusal_heldout"), base="b")["verdict"] == "shown"
    renamed = {key: make([unit.value for unit in members], "overrefusal") for key, members in units.items()}
    assert judge(renamed, lower(metric="overrefusal"))["verdict"] == "shown"


def test_a_refusal_claim_without_a_base_stands_on_its_own():
    units = {key: members for key, members in run([-0.2] * 3, metric="refusal_far").items() if key[0] != "base"}
    assert judge(units, lower(metric="refusal_far"))["verdict"] == "shown"


def test_an_arm_below_the_gate_is_incoherent():
    units = run([0.3, 0.32, 0.34])
    gate = {(arm, seed): 0.99 for arm in "ab" for seed in range(3)}
    assert judge(units, gate=gate)["verdict"] == "shown"
    gate["b", 1] = 0.71  # mean 0.8967
    found = judge(units, gate=gate)
    assert found["verdict"] == "incoherent"
    assert found["why"] == "only 89.7% of b's answers are well formed and on topic (gate: 90%)."
    assert found["gate"]["b"] == pytest.approx((0.99 + 0.99 + 0.71) / 3)
    assert judge(units, gate={("a", 0): 0.9, ("base", 0): 0.1})["verdict"] == "shown"
    assert judge(units, gate={("a", 0): 0.89})["verdict"] == "incoherent"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"arms": ["a", "x"]}, "the run has no arm x."),
        ({"arms": ["y", "x"]}, "the run has no arm y and no arm x."),
        ({"metric": "other"}, "the run does not measure other."),
        ({"group": "far"}, "a has no scored answer for m in group far."),
        ({"arms": ["b", "empty"]}, "empty has no scored answer for m."),
        ({"arms": ["a", "apart"]}, "the two arms have no scored unit in common for m."),
    ],
)
def test_what_the_run_lacks_is_not_testable_and_named(changes, why):
    units = run([0.3, 0.32, 0.34])
    for seed in range(3):
        units["empty", seed] = make([None] * 20)
        units["apart", seed] = make([1.0] * 20, prefix="v")
    found = judge(units, {**CLAIM, **changes}, metrics={"m": Metric("m"), "other": Metric("other")})
    assert (found["verdict"], found["why"]) == ("not-testable", why)
    assert found["delta"] is found["ci"] is found["p"] is found["p_holm"] is found["ci_holm"] is None
    json.dumps(found, allow_nan=False)


def test_a_claim_may_be_about_one_group():
    units = run([0.3, 0.32, 0.34], group="trained")
    for (arm, _), members in units.items():
        members += make([0.9 if arm == "b" else 0.1] * 20, group="far", prefix="v")
    assert judge(units, {**CLAIM, "group": "trained"})["verdict"] == "shown"
    assert judge(units, {**CLAIM, "group": "far"})["delta"] == pytest.approx(-0.8)
    assert judge(units, {**CLAIM, "group": "trained"})["values"]["b"] == pytest.approx(0.4)


def test_lost_pairs_are_counted():
    units = run([0.3, 0.32, 0.34])
    units["a", 0][0] = Unit("m", None, "u0", "cluster u0", None)
    found = judge(units)
    assert found["dropped"] == 1
    assert found["per_seed"][0]["n"] == 19
    assert found["verdict"] == "shown"


def test_seeds_and_pooled_value_that_contradict_each_other_show_nothing():
    # u0 rises a lot in many seeds, the others fall in one: each seed's mean rises, the mean over units falls
    units = {}
    for seed in range(4):
        units["a", seed] = make([0.9] + ([0.19] * 7 if seed == 3 else []))
        units["b", seed] = make([0.1] + ([0.3] * 7 if seed == 3 else []))
    found = judge(units)
    assert found["delta"] > 0
    units["a", 3] = make([0.9] + [0.19] * 9)
    units["b", 3] = make([0.1] + [0.3] * 9)
    assert judge(units)["verdict"] == "inconclusive"


# -- multiplicity ----------------------------------------------------------------------------------------------------


def test_holm_levels_go_by_p_then_by_the_seeds():
    units = {}
    for seed in range(3):
        for arm, up in (("a", 1), ("b", 0)):
            members = make([0.4 + up * (0.3 + 0.05 * seed)] * 20, "wide")
            members += make([0.4 + up * (0.3 + 0.01 * seed)] * 20, "narrow")
            members += make([0.4 + up * (0.3 + 0.01 * seed)] * 5, "few")
            units[arm, seed] = members
    names = ("few", "wide", "narrow")
    family = [{**CLAIM, "id": name, "metric": name} for name in names] + [{**CLAIM, "id": "x", "metric": "x"}]
    found = {f["id"]: f for f in claims.test_claims(units, family, {name: Metric(name) for name in (*names, "x")}, {})}
    assert list(found) == ["few", "wide", "narrow", "x"]
    assert {name: found[name]["alpha_holm"] for name in found} == {
        "narrow": pytest.approx(0.05 / 3), "wide": pytest.approx(0.05 / 2), "few": 0.05, "x": None,
    }  # fmt: skip
    assert found["few"]["p_holm"] == 2 / 32
    assert found["wide"]["p_holm"] == found["narrow"]["p_holm"] == pytest.approx(3 / 10_001)
    for name in ("narrow", "wide"):
        deltas = [one["delta"] for one in found[name]["per_seed"]]
        assert found[name]["ci_holm"] == pytest.approx(stats.t_interval(deltas, found[name]["alpha_holm"]))
        assert found[name]["ci"] == pytest.approx(stats.t_interval(deltas))
    assert found["wide"]["verdict"] == "shown"


def test_the_holm_interval_decides_not_the_plain_one():
    units = run([0.2, 0.3, 0.4])
    assert judge(units)["verdict"] == "shown"
    family = [CLAIM, {**CLAIM, "id": "second"}]
    first, second = claims.test_claims(units, family, {"m": Metric("m")}, {})
    assert first["ci"][0] > 0 > first["ci_holm"][0]
    assert (first["verdict"], second["verdict"]) == ("inconclusive", "shown")


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([], 1.0),
        ([0.4], 1.0),
        ([0.0, 0.0], 1.0),
        ([0.4, 0.4], 0.0),
        ([1.0, 2.0, 3.0], 0.0741799),
        ([-1.0, -2.0, -3.0], 0.0741799),
    ],
)
def test_the_test_over_seeds_by_hand(differences, p):
    # t = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    assert claims._p_over_seeds(differences) == pytest.approx(p, abs=1e-6)


def test_without_an_effect_claims_are_hardly_ever_shown():
    rng = np.random.default_rng(7)
    family = [{**CLAIM, "id": name, "metric": name, "smallest_effect": 0.01} for name in ("k", "l", "m")]
    metrics = {name: Metric(name) for name in ("k", "l", "m")}
    false = runs = 150
    for _ in range(runs):
        units: dict[tuple[str, int], list[Unit]] = {}
        for seed in range(3):
            for arm in "ab":
                members = units.setdefault((arm, seed), [])
                for name in metrics:
                    level = rng.normal(0.5, 0.05) + rng.normal(0, 0.15, 16)
                    values = rng.random((16, 2)) < level[:, None]
                    members += make(list(map(float, values.ravel())), name, per_cluster=2)
        verdicts = {found["verdict"] for found in claims.test_claims(units, family, metrics, {})}
        false -= not verdicts & {"shown", "opposite"}
    assert false / runs <= 0.05


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5), st.floats(0.01, 0.9))
@settings(max_examples=40, deadline=None)
def test_swapping_the_arms_negates_delta_and_swaps_nothing_else(levels, smallest):
    units = {}
    for seed, (a, b) in enumerate(levels):
        units["a", seed], units["b", seed] = make([a, b, a, a], per_cluster=2), make([b, b, a, b], per_cluster=2)
    metrics = {"m": Bounded("m", bounds=(-2.0, 2.0))}
    there = judge(units, {**CLAIM, "smallest_effect": smallest}, metrics=metrics)
    back = judge(units, lower(arms=["b", "a"], smallest_effect=smallest), metrics=metrics)
    assert there["delta"] == pytest.approx(-back["delta"])
    assert there["p"] == back["p"]
    if "no room" not in there["why"] + back["why"]:
        assert there["verdict"] == back["verdict"]
    json.dumps(there, allow_nan=False)

