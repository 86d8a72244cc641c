"""Intervals and tests on numbers alone, against published values, scipy, and small cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from repro import stats

# -- wilson ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_intervals(successes, n, low, high):
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert stats.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01])
def test_wilson_agrees_with_scipy_at_other_levels(alpha):
    expected = reference.binomtest(7, 31).proportion_ci(1 - alpha, method="wilson")
    assert stats.wilson(7, 31, alpha) == pytest.approx(tuple(expected))


def test_wilson_touches_0_and_1_exactly_at_the_ends():
    assert stats.wilson(0, 7)[0] == 0.0
    assert stats.wilson(7, 7)[1] == 1.0
    assert stats.wilson(1, 1) == pytest.approx((1 / (1 + 1.959964**2), 1.0))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_rate(successes, n):
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        stats.wilson(successes, n)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_rate_and_mirrors(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = stats.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert stats.wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


# -- t ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_t_interval_agrees_with_scipy(alpha):
    values = [0.2, 0.5, 0.35, 0.41]
    expected = reference.ttest_1samp(values, 0).confidence_interval(1 - alpha)
    assert stats.t_interval(values, alpha) == pytest.approx((expected.low, expected.high))


def test_t_interval_of_three_seeds_uses_two_degrees_of_freedom():
    half = 4.302653 / math.sqrt(3)
    assert stats.t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_t_interval_can_lie_around_another_centre():
    low, high = stats.t_interval([0.1, 0.2, 0.3], centre=0.5)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(np.diff(stats.t_interval([0.1, 0.2, 0.3]))[0])


def test_t_interval_needs_two_values():
    assert stats.t_interval([0.4, 0.4]) == pytest.approx((0.4, 0.4))
    with pytest.raises(ValueError, match="at least two"):
        stats.t_interval([0.4])


# -- bootstrap -------------------------------------------------------------------------------------------------------


def test_bootstrap_of_many_single_units_is_close_to_students_interval():
    values = [0.0, 1.0] * 50
    low, high = stats.cluster_bootstrap(values, range(100))
    expected = stats.t_interval(values)
    assert (low, high) == pytest.approx(expected, abs=0.011)


def test_bootstrap_level_is_the_one_asked_for():
    values = list(np.linspace(0, 1, 100))
    for alpha in (0.3, 0.05, 0.005):
        assert stats.cluster_bootstrap(values, range(100), alpha) == pytest.approx(
            stats.t_interval(values, alpha), abs=0.01
        )


def test_bootstrap_draws_clusters_not_units():
    clusters = [k // 25 for k in range(200)]
    together = [float(k % 2) for k in clusters]
    mixed = [float(i % 2) for i in range(200)]
    assert np.diff(stats.cluster_bootstrap(together, clusters)) > 0.7
    assert np.diff(stats.cluster_bootstrap(mixed, clusters)) < 0.04
    assert np.diff(stats.cluster_bootstrap(together, range(200))) < 0.2


def test_bootstrap_weighs_units_not_clusters():
    values = [1.0] * 90 + [0.0] * 10
    clusters = ["large"] * 90 + [f"small {i}" for i in range(10)]
    low, high = stats.cluster_bootstrap(values, clusters)
    assert low < 0.2
    assert 0.9 < high < 1.0


def test_bootstrap_of_two_clusters_reaches_from_one_to_the_other():
    assert stats.cluster_bootstrap([0.25, 0.75], ["a", "b"]) == (0.25, 0.75)


@pytest.mark.parametrize(("k", "least"), [(6, 0.92), (10, 0.97)])
def test_bootstrap_of_few_clusters_is_about_as_wide_as_students_interval(k, least):
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(60):
        values = rng.normal(size=k)
        ratios.append(np.diff(stats.cluster_bootstrap(values, range(k))) / np.diff(stats.t_interval(values)))
    assert least < np.mean(ratios) < 1.01


def test_bootstrap_is_repeatable_whatever_the_order_and_varies_with_its_seed():
    rng = np.random.default_rng(3)
    values, clusters = rng.normal(size=60), [f"c{i % 7}" for i in range(60)]
    order = rng.permutation(60)
    first = stats.cluster_bootstrap(values, clusters, seed=5)
    again = stats.cluster_bootstrap(values[order], [clusters[i] for i in order], seed=5)
    assert again == pytest.approx(first, abs=1e-12)
    assert stats.cluster_bootstrap(values, clusters, seed=6) != first
    assert stats.cluster_bootstrap(values, clusters) == stats.cluster_bootstrap(values, clusters, seed=0)


def test_bootstrap_needs_two_clusters():
    with pytest.raises(ValueError, match="at least two clusters"):
        stats.cluster_bootstrap([0.0, 1.0], ["same", "same"])


@pytest.mark.parametrize("k", [6, 20])
def test_bootstrap_covers_the_truth_about_as_often_as_it_says(k):
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(k), 4)
    hits = 0
    for _ in range(300):
        values = np.repeat(rng.normal(0.5, 0.2, k), 4) + rng.normal(0, 0.1, 4 * k)
        low, high = stats.cluster_bootstrap(values, clusters)
        hits += low <= 0.5 <= high
    assert 0.915 <= hits / 300 <= 0.985


# -- permutation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sums", "p"),
    [
        ([1, 2, 3], 2 / 8),  # only the observed signs and their mirror reach 6
        ([1, 2, -1], 6 / 8),  # of 4, 2, 2, 0 and their mirrors all but the two zeros reach 2
        ([3, -1], 1.0),  # every flip reaches 2
        ([1] * 5, 2 / 32),
        ([5], 1.0),
        ([0, 0], 1.0),
        ([-1] * 12, 2 / 4096),
        ([1] * 12 + [0] * 40, 2 / 4096),  # clusters without a difference do not make the test random
    ],
)
def test_permutation_is_exact_for_few_clusters(sums, p):
    assert stats.permutation_by_cluster(sums, range(len(sums))) == pytest.approx(p)


def test_permutation_flips_whole_clusters():
    differences, clusters = [1, 1, 1, 1, 1, 1], ["a", "a", "b", "b", "c", "c"]
    assert stats.permutation_by_cluster(differences, clusters) == pytest.approx(2 / 8)
    assert stats.permutation_by_cluster(differences, range(6)) == pytest.approx(2 / 64)


def test_permutation_of_more_clusters_draws_flips_and_counts_the_observed_one():
    p = stats.permutation_by_cluster([1.0] * 13, range(13))
    assert (p * 10_001) == pytest.approx(round(p * 10_001))
    assert 1 / 10_001 <= p <= 10 / 10_001
    assert stats.permutation_by_cluster([1.0] * 60, range(60)) == 1 / 10_001
    assert stats.permutation_by_cluster([1.0] * 65, range(65)) == 1 / 10_001
    assert stats.permutation_by_cluster([1.0, -1.0] * 10, range(20)) == 1.0


@pytest.mark.parametrize("n", [40, 200])
def test_random_flips_agree_with_the_normal_approximation(n):
    differences = np.array([1.0, -1.0] * (n // 2))
    differences[1 : 1 + 2 * round(math.sqrt(n)) : 2] = 1.0
    z = abs(differences.sum() - 1) / math.sqrt(n)  # with continuity: totals move in steps of 2
    expected = 2 * reference.norm.sf(z)
    assert stats.permutation_by_cluster(differences, range(n)) == pytest.approx(expected, abs=0.015)


def test_permutation_depends_on_its_seed_alone():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.15, 1, 50)
    order = rng.permutation(50)
    first = stats.permutation_by_cluster(differences, range(50), seed=1)
    assert stats.permutation_by_cluster(differences[order], order, seed=1) == first
    assert stats.permutation_by_cluster(differences, range(50), seed=2) != first
    assert stats.permutation_by_cluster(differences, range(50)) == stats.permutation_by_cluster(
        differences, range(50), seed=0
    )


def test_permutation_needs_a_pair():
    with pytest.raises(ValueError, match="at least one pair"):
        stats.permutation_by_cluster([], [])


def test_ties_in_another_order_of_adding_still_count():
    differences = [0.1, 0.2, 0.3, -0.3, -0.2, 0.1]
    assert stats.permutation_by_cluster(differences, range(6)) == pytest.approx(
        stats.permutation_by_cluster([10 * d for d in differences], range(6))
    )


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_permutation_is_two_sided_and_has_no_unit(differences, scale):
    clusters = [i // 2 for i in range(len(differences))]
    p = stats.permutation_by_cluster(differences, clusters)
    assert 0 < p <= 1
    assert stats.permutation_by_cluster([-scale * d for d in differences], clusters) == pytest.approx(p)


# -- holm ------------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.5, 0.9]) == [1.0, 1.0, 1.0]
    assert stats.holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert stats.holm([0.3]) == [0.3]
    assert stats.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = stats.holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values)) or q == pytest.approx(p)
    ranks = sorted(zip(p_values, adjusted, strict=True))
    assert [q for _, q in ranks] == sorted(q for _, q in ranks)
