"""The table of metrics: units of several arms and seeds in, paired comparisons and intervals out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_units import Bounded, Metric, Unit, make

from repro import stats


def table(units, *names, **options):
    return stats.metrics_table(units, {name: Metric(name) for name in names or ("m",)}, **options)


def row_of(rows, arm, seed=None, metric="m"):
    (row,) = (r for r in rows if (r["arm"], r["seed"], r["metric"]) == (arm, seed, metric))
    return row


# -- values ----------------------------------------------------------------------------------------------------------


def test_a_row_says_what_results_json_needs():
    rows = table({("base", 0): make([1, 0, 1, None])})
    low, high = stats.wilson(2, 3)
    assert rows[0] == {
        "axis": "some axis", "metric": "m", "arm": "base", "seed": None, "n": 3, "observations": 3, "unscored": 1,
        "value": pytest.approx(2 / 3), "ci": pytest.approx([low, high]), "interval": "wilson", "bounds": [0.0, 1.0],
        "higher_is_better": True, "versus": {}, "groups": [],
    }  # fmt: skip
    assert [(row["arm"], row["seed"]) for row in rows] == [("base", None), ("base", 0)]


def test_unscored_is_counted_and_never_a_zero():
    rows = table({("base", 0): make([1, 1, None, None]), ("base", 1): make([1, 1, 1, None])})
    pooled = row_of(rows, "base")
    assert (pooled["value"], pooled["n"], pooled["observations"], pooled["unscored"]) == (1.0, 3, 5, 3)
    assert row_of(rows, "base", 1)["unscored"] == 1


def test_nothing_scored_is_no_number():
    row = row_of(table({("base", 0): make([None, None])}), "base")
    assert (row["value"], row["ci"], row["interval"], row["n"], row["unscored"]) == (None, None, None, 0, 2)


def test_the_pooled_value_averages_each_unit_over_the_seeds_it_occurs_in():
    units = {
        ("base", 0): make([1, 0, 1, 1]),
        ("base", 1): make([0, 0]),
        ("base", 2): make([0, None]),
    }
    # u0: 1/3, u1: 0, u2: 1, u3: 1
    assert row_of(table(units), "base")["value"] == pytest.approx((1 / 3 + 0 + 1 + 1) / 4)
    assert row_of(table(units), "base", 1)["value"] == 0


def test_units_of_one_name_in_two_clusters_are_two_units():
    units = [Unit("m", None, "q1", "a", 1.0), Unit("m", None, "q1", "b", 0.0)]
    assert row_of(table({("base", 0): units}), "base")["n"] == 2


def test_a_unit_twice_in_one_place_is_an_error():
    with pytest.raises(ValueError, match="m: unit 'u0' occurs twice in arm base, seed 4"):
        table({("base", 4): make([1]) + make([1])})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_an_error(value):
    with pytest.raises(ValueError, match=f"m: unit 'u1' of arm base, seed 4 has value {value}"):
        table({("base", 4): make([1, value])})


def test_metrics_without_units_have_no_rows():
    assert table({("base", 0): make([1])}, "other") == []


# -- intervals -------------------------------------------------------------------------------------------------------


def test_three_seeds_give_students_interval_around_the_pooled_value():
    units = {("base", 0): make([1, 1, 0, 1]), ("base", 1): make([1, 0, 0, 1]), ("base", 2): make([1, 0, 0])}
    row = row_of(table(units), "base")
    assert row["value"] == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)
    low, high = stats.t_interval([3 / 4, 2 / 4, 1 / 3], centre=row["value"])
    assert row["interval"] == "t over seeds"
    assert row["ci"] == pytest.approx([max(0, low), min(1, high)])


def test_an_interval_is_clipped_to_what_the_metric_can_be():
    spread = {("base", seed): make([value] * 3) for seed, value in enumerate((0.0, 1.0, 1.0))}
    assert row_of(table(spread), "base")["ci"] == [0.0, 1.0]
    signed = stats.metrics_table(spread, {"m": Bounded("m")})
    assert row_of(signed, "base")["ci"] == pytest.approx([2 / 3 - 4.30265 / 3, 1.0], abs=1e-5)
    wide = {key: [Unit("m", None, "x", "c", 10 * unit.value) for unit in units[:1]] for key, units in spread.items()}
    row = row_of(table(wide), "base")
    assert row["bounds"] is None
    assert row["ci"] == pytest.approx([10 * (2 / 3 - 4.30265 / 3), 10 * (2 / 3 + 4.30265 / 3)], abs=1e-4)


def test_two_seeds_give_the_interval_of_one():
    units = {("base", seed): make([1, 0] * 10, per_cluster=2) for seed in (0, 1)}
    assert row_of(table(units), "base")["interval"] == "bootstrap"


def test_seeds_that_do_not_differ_carry_no_spread_of_their_own():
    units = {("base", seed): make([1, 0, 1, 1]) for seed in range(5)}
    row = row_of(table(units), "base")
    assert (row["interval"], row["ci"]) == ("wilson", pytest.approx(list(stats.wilson(3, 4))))


def test_units_that_share_a_cluster_get_a_bootstrap():
    values = [1, 0, 1, 1, 0, 0, 1, 1]
    row = row_of(table({("base", 0): make(values, per_cluster=2)}), "base")
    assert row["interval"] == "bootstrap"
    assert row["ci"] == pytest.approx(list(stats.cluster_bootstrap(values, [i // 2 for i in range(8)])))


def test_values_between_0_and_1_get_a_bootstrap():
    assert row_of(table({("base", 0): make([1, 0.5, 0])}), "base")["interval"] == "bootstrap"


@pytest.mark.parametrize(("value", "expected"), [(1.0, stats.wilson(4, 4)), (0.0, stats.wilson(0, 4))])
def test_a_rate_at_the_end_in_few_clusters_counts_the_clusters(value, expected):
    row = row_of(table({("base", 0): make([value] * 12, per_cluster=3)}), "base")
    assert (row["interval"], row["ci"]) == ("wilson", pytest.approx(list(expected)))


def test_one_cluster_of_several_units_has_no_interval():
    row = row_of(table({("base", 0): make([1, 0, 1], per_cluster=3)}), "base")
    assert (row["value"], row["ci"], row["interval"]) == (pytest.approx(2 / 3), None, "none")


def test_a_difference_never_gets_a_rates_interval():
    rows = stats.metrics_table({("base", 0): make([1, 0, 1, 1])}, {"m": Bounded("m")})
    assert rows[0]["interval"] == "bootstrap"


@pytest.mark.parametrize(
    ("values", "bounds"),
    [([0, 1], (0, 1)), ([-0.5, 1], (-1, 1)), ([-1, 0], (-1, 1)), ([0, 1.5], (-math.inf, math.inf)),
     ([-1.5, 0], (-math.inf, math.inf)), ([None], (0, 1))],
)  # fmt: skip
def test_bounds_are_the_tightest_that_hold_every_value(values, bounds):
    assert stats.bounds_of(Metric("m"), stats.index({("a", 0): make(values), ("b", 0): make([None])})["m"]) == bounds


def test_a_metric_may_declare_its_bounds():
    assert stats.bounds_of(Bounded("m", bounds=(-2, 3)), {}) == (-2.0, 3.0)


# -- comparisons -----------------------------------------------------------------------------------------------------


def test_delta_is_the_arm_minus_base_over_the_same_units():
    units = {("base", 0): make([1, 1, 0, 1]), ("naive", 0): make([0, 0, 0, 1])}
    found = row_of(table(units), "naive")["versus"]["base"]
    assert found["delta"] == -0.5
    assert found["p"] == found["p_holm"] == 2 / 4
    assert (found["pairs"], found["dropped"]) == (4, 0)
    assert row_of(table(units), "base")["versus"] == {}


def test_a_missing_half_drops_the_pair_and_is_counted():
    units = {
        ("base", 0): make([1, None, 1, 1, None]),
        ("naive", 0): make([0, 1, None, 1, None, 0]),
    }
    found = row_of(table(units), "naive")["versus"]["base"]
    assert (found["delta"], found["pairs"], found["dropped"]) == (-0.5, 2, 4)


def test_without_a_common_unit_there_is_no_comparison():
    units = {("base", 0): make([1, None]), ("naive", 0): make([None, 1]), ("other", 1): make([1, 1])}
    rows = table(units)
    assert row_of(rows, "naive")["versus"] == row_of(rows, "other")["versus"] == {}


def test_seeds_of_only_one_arm_are_no_lost_pairs():
    units = {("base", 0): make([1, 1]), ("naive", 0): make([0, 1]), ("naive", 1): make([0, 0])}
    found = row_of(table(units), "naive")["versus"]["base"]
    assert (found["delta"], found["pairs"], found["dropped"]) == (-0.5, 2, 0)
    assert row_of(table(units), "naive", 1)["versus"] == {}
    assert row_of(table(units), "naive", 0)["versus"]["base"]["delta"] == -0.5


def test_pairing_goes_by_unit_not_by_position():
    rng = np.random.default_rng(0)
    values = list(map(float, rng.integers(0, 2, 40)))
    arms = {("base", 0): make(values, per_cluster=2), ("naive", 0): make(values, per_cluster=2)[::-1]}
    found = row_of(table(arms), "naive")["versus"]["base"]
    assert (found["delta"], found["ci"], found["p"]) == (0, [0, 0], 1)


def test_pairing_makes_a_constant_shift_certain():
    # the units differ a lot from each other: unpaired, this difference would drown
    base = [i / 40 for i in range(30)]
    arms = {("base", 0): make(base), ("naive", 0): make([value + 0.1 for value in base])}
    found = row_of(table(arms), "naive")["versus"]["base"]
    assert found["ci"] == pytest.approx([0.1, 0.1])
    assert found["p"] < 0.001


def test_a_difference_over_three_seeds_has_students_interval_within_twice_the_range():
    units = {}
    for seed, count in enumerate((1, 2, 4)):
        units["base", seed] = make([0.0] * 4)
        units["naive", seed] = make([1.0] * count + [0.0] * (4 - count))
    found = row_of(table(units), "naive")["versus"]["base"]
    low, high = stats.t_interval([0.25, 0.5, 1.0])
    assert low < -0.2
    assert high > 1
    assert found["ci"] == pytest.approx([low, 1.0])
    units["naive", 0][0] = Unit("m", None, "u0", "cluster u0", -1.0)  # now the metric runs from -1 to 1
    assert row_of(table(units), "naive")["versus"]["base"]["ci"][1] > 1


def test_p_flips_a_topic_once_over_all_seeds():
    units = {}
    for seed in range(3):
        units["base", seed] = make([0, 0, 0, 0])
        units["naive", seed] = make([1, 1, 1, 1])
    assert row_of(table(units), "naive")["versus"]["base"]["p"] == 2 / 16


def test_holm_runs_over_the_metrics_of_the_same_two_arms_and_seed():
    units = {}
    for arm, down in (("base", 0), ("naive", 3), ("control", 0)):
        for seed in (0, 1):
            one = make([1.0] * (6 - down) + [0.0] * down, "m")
            six = make([float(arm == "base")] * 6, "k")
            units[arm, seed] = one + six
    rows = table(units, "m", "k")
    versus = {metric: row_of(rows, "naive", None, metric)["versus"]["base"] for metric in ("m", "k")}
    assert [versus[m]["p"] for m in ("m", "k")] == [2 / 8, 2 / 64]
    assert [versus[m]["p_holm"] for m in ("m", "k")] == [2 / 8, 4 / 64]
    other = {metric: row_of(rows, "control", 0, metric)["versus"]["base"] for metric in ("m", "k")}
    assert [other[m]["p_holm"] for m in ("m", "k")] == [1.0, 4 / 64]


def test_every_arm_can_be_compared_with_several():
    units = {(arm, 0): make([value] * 4) for arm, value in (("base", 1.0), ("control", 0.5), ("naive", 0.0))}
    rows = table(units, versus=["base", "control", "absent"])
    assert {arm: found["delta"] for arm, found in row_of(rows, "naive")["versus"].items()} == {
        "base": -1.0, "control": -0.5,
    }  # fmt: skip
    assert list(row_of(rows, "base")["versus"]) == ["control"]


def test_the_seed_reaches_bootstrap_and_flips():
    rng = np.random.default_rng(1)
    units = {(arm, 0): make(list(rng.random(60)), group="g", per_cluster=2) for arm in ("base", "naive")}
    one, other = (row_of(table(units, seed=seed), "naive") for seed in (1, 2))
    assert one["ci"] != other["ci"]
    assert one["groups"][0]["ci"] != other["groups"][0]["ci"]
    assert one["versus"]["base"]["ci"] != other["versus"]["base"]["ci"]
    assert one["versus"]["base"]["p"] != other["versus"]["base"]["p"]
    assert row_of(table(units), "naive") == row_of(table(units, seed=0), "naive")


# -- groups ----------------------------------------------------------------------------------------------------------


def test_groups_are_shown_each_and_may_rotate_with_the_seed():
    units = {
        ("base", 0): make([1, 1], group="trained", prefix="a") + make([0, 0], group="far", prefix="b"),
        ("base", 1): make([0, 0], group="far", prefix="a") + make([1, None], group="trained", prefix="b"),
    }
    row = row_of(table(units), "base")
    assert [(g["group"], g["n"], g["value"]) for g in row["groups"]] == [("far", 4, 0.0), ("trained", 3, 1.0)]
    assert row["groups"][0]["ci"] == pytest.approx(list(stats.wilson(0, 4)))
    assert set(row["groups"][0]) == {"group", "n", "value", "ci"}
    assert row["value"] == pytest.approx((0.5 + 0.5 + 0.5 + 0) / 4)
    assert [g["value"] for g in row_of(table(units), "base", 0)["groups"]] == [0.0, 1.0]


# -- properties ------------------------------------------------------------------------------------------------------

answers = st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), min_size=3, max_size=12)


@given(st.lists(st.tuples(answers, answers), min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_swapping_the_arms_negates_and_shuffling_changes_nothing(seeds, random):
    units = {}
    for seed, (first, second) in enumerate(seeds):
        units["one", seed] = make(first, per_cluster=2)
        units["two", seed] = make(second, per_cluster=2)
    there = row_of(table(units, versus="one"), "two")["versus"].get("one")
    back = row_of(table(units, versus="two"), "one")["versus"].get("two")
    shuffled = {key: random.sample(members, len(members)) for key, members in units.items()}
    assert row_of(table(shuffled, versus="one"), "two") == row_of(table(units, versus="one"), "two")
    json.dumps(table(units), allow_nan=False)
    if there is None:
        assert back is None
        return
    assert there["delta"] == pytest.approx(-back["delta"])
    assert there["p"] == back["p"]
    assert (there["pairs"], there["dropped"]) == (back["pairs"], back["dropped"])
    if there["ci"] is None:
        assert back["ci"] is None
    else:
        # the bootstrap's percentiles mirror up to interpolation between two draws
        assert there["ci"] == pytest.approx([-back["ci"][1], -back["ci"][0]], abs=1e-6)
        assert there["ci"][0] - 1e-9 <= there["delta"] <= there["ci"][1] + 1e-9


@given(st.lists(answers, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_values_lie_in_their_interval_and_the_interval_in_its_bounds(seeds):
    for row in table({("base", seed): make(values, per_cluster=2) for seed, values in enumerate(seeds)}):
        if row["ci"] is not None:
            assert 0 <= row["ci"][0] <= row["value"] + 1e-9
            assert row["value"] - 1e-9 <= row["ci"][1] <= 1
