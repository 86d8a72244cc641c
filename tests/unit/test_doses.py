"""The dose curve and the comparison at matched refusal: figures by hand, and nothing where there is no curve."""

from __future__ import annotations

import json

import pytest
from made_units import Unit
from test_table import entry, results

from repro import outcome
from repro.report import doses, table


def unit(metric, group, values, prefix="u"):
    return [Unit(metric, group, f"{prefix}{i}", f"topic {prefix}{i}", value) for i, value in enumerate(values)]


def place(refused, near=(), policy=(), of=20):
    """The units of one arm, seed and dose that declines `refused` of `of` trained requests."""
    return [
        *unit("refusal_trained", "trained", [1.0] * refused + [0.0] * (of - refused)),
        *unit("refusal_heldout", "near", near, "near"),
        *unit("policy_matches_behaviour", "trained", policy[:1]),
        *unit("policy_matches_behaviour", "far", policy[1:], "far"),
    ]


ARMS, SEEDS = ["naive", "character"], [0, 1]
UNITS = {
    ("character", 0, 8): place(0, near=(1.0, 0.0), policy=(1.0, 1.0, 1.0)),
    ("character", 0, 4): place(2, near=(1.0, 1.0)),
    ("character", 1, 4): place(1, near=(0.0, 0.0)),
    ("character", 1, 8): place(0, near=(1.0, 1.0)),
    ("naive", 0, 4): place(1, near=(1.0, 1.0), policy=(0.0, 1.0, None)),
    ("naive", 0, 8): place(0, near=(0.0, 0.0)),
    ("naive", 1, 4): place(0, near=(1.0, None)),
    ("naive", 1, 8): place(0, near=(0.0, 0.0)),
}  # fmt: skip


def matched(units=UNITS, arms=ARMS, seeds=SEEDS):
    found = outcome.matched(units, arms, seeds)
    json.dumps(found, allow_nan=False)
    return {(*one["arms"], one["metric"], one["group"]): one for one in found}


# -- matched refusal -------------------------------------------------------------------------------------------------


def test_arms_are_compared_where_each_first_clears_over_the_same_items() -> None:
    found = matched()
    near = found["character", "naive", "refusal_heldout", "near"]
    # 1 of 20 is cleared, 2 of 20 is not: naive at 4 and 4, character at 8 and 4
    assert near["steps"] == {"naive": [4, 4], "character": [8, 4]}
    # seed 0: (1 - 1, 0 - 1); seed 1: (0 - 1), its other item is unscored in naive
    assert near["per_seed"] == [{"seed": 0, "delta": -0.5, "n": 2}, {"seed": 1, "delta": -1.0, "n": 1}]
    assert near["delta"] == -0.75
    assert near["n"] == 2
    assert found["character", "naive", "refusal_trained", "trained"]["delta"] == pytest.approx((-1 / 20 + 1 / 20) / 2)


def test_without_a_group_all_of_a_metrics_items_are_compared() -> None:
    found = matched()
    both = found["character", "naive", "policy_matches_behaviour", None]
    assert both["per_seed"] == [{"seed": 0, "delta": 0.5, "n": 2}]
    assert found["character", "naive", "policy_matches_behaviour", "trained"]["delta"] == 1.0
    assert found["character", "naive", "policy_matches_behaviour", "far"]["delta"] == 0.0
    assert [key[3] for key in found] == [None, "trained", None, "near", None, "trained", "far"]


def test_each_seed_counts_alike_however_many_items_it_has() -> None:
    units = {
        ("a", 0, 1): place(0, near=[1.0] * 9), ("b", 0, 1): place(0, near=[0.0] * 9),
        ("a", 1, 1): place(0, near=[0.0]), ("b", 1, 1): place(0, near=[0.0]),
    }  # fmt: skip
    one = matched(units, ["a", "b"])["b", "a", "refusal_heldout", "near"]
    assert (one["delta"], one["n"]) == (-0.5, 9)


def test_a_seed_in_which_one_arm_never_clears_is_left_out() -> None:
    units = {**UNITS, ("naive", 0, 4): place(2), ("naive", 0, 8): place(3)}
    near = matched(units)["character", "naive", "refusal_heldout", "near"]
    assert near["steps"] == {"naive": [None, 4], "character": [8, 4]}
    assert (near["delta"], [one["seed"] for one in near["per_seed"]]) == (-1.0, [1])
    for key in (("naive", 1, 4), ("naive", 1, 8)):
        units[key] = place(20)
    near = matched(units)["character", "naive", "refusal_heldout", "near"]
    assert near["steps"]["naive"] == [None, None]
    assert (near["delta"], near["per_seed"], near["n"]) == (None, [], 0)


def test_an_arm_with_nothing_scored_has_not_cleared() -> None:
    units = {**UNITS, ("naive", 0, 4): unit("refusal_trained", "trained", [None, None])}
    assert matched(units)["character", "naive", "refusal_trained", None]["steps"]["naive"] == [8, 4]


def test_each_two_of_the_named_arms_with_doses_are_compared_the_later_with_the_earlier() -> None:
    units = {**UNITS, ("third", 0, 4): place(0), ("control", 0, 4): place(20)}
    found = matched(units, ["base", "naive", "character", "third"])
    assert list(dict.fromkeys(key[:2] for key in found)) == [
        ("character", "naive"), ("third", "naive"), ("third", "character"),
    ]  # fmt: skip
    assert found["third", "naive", "refusal_trained", None]["steps"]["third"] == [4, None]
    assert matched({}, ARMS) == matched(UNITS, ["naive"]) == {}


# -- the table -------------------------------------------------------------------------------------------------------


def dose(arm, seed, step, metric, group, value, n=10, tokens=None):
    place = {"arm": arm, "seed": seed, "step": step, "tokens": step * 100 if tokens is None else tokens}
    return place | {"metric": metric, "group": group, "n": n, "value": value}


def curve():
    return [
        dose("naive", seed, step, *what)
        for seed in (0, 1)
        for step in (160, 12)
        for what in (
            ("refusal_trained", "trained", 0.5 if step == 12 else 0.1 * seed, 48),
            ("refusal_heldout", "near", 1.0, 24),
            ("refusal_heldout", "far", 0.0, 18),
            ("declines_when_told", "trained", 0.25, 24 + seed),
            ("declines_when_told", "ordinary", 1.0, 99),
            ("policy_matches_behaviour", "trained", 0.0, 30),
            ("policy_matches_behaviour", "far", 1.0, 10),
        )
    ]


def test_a_row_is_an_arm_and_dose_with_means_over_items_then_seeds() -> None:
    made = results([entry()], doses=curve())
    assert doses.heads(made) == [
        "arm", "steps", "tokens", "refusal trained ↓ (n 48)", "refusal near ↓ (n 24)", "refusal far ↓ (n 18)",
        "declines when told, trained ↑ (n 24-25)", "policy matches behaviour ↑ (n 40)",
    ]  # fmt: skip
    # refusal at step 160: (0 + .1) / 2; policy: 10 of 40 items
    assert doses.rows(made, table._number) == [
        ["naive", "12", "1,200", "50", "100", "0", "25", "25"],
        ["naive", "160", "16,000", "5", "100", "0", "25", "25"],
    ]


def test_seeds_whose_doses_fall_on_other_steps_share_a_row() -> None:
    found = [
        dose("naive", seed, step + seed, "refusal_trained", "trained", 0.2 + 0.4 * seed, tokens=100 + seed * 20)
        for seed in (0, 1)
        for step in (5, 9)
    ]
    assert [row[:5] for row in doses.rows(results([entry()], doses=found), table._number)] == [
        ["naive", "5-6", "110", "40", "–"],
        ["naive", "9-10", "110", "40", "–"],
    ]
    for one in found:
        one["tokens"] = None
    assert doses.rows(results([entry()], doses=found), table._number)[0][2] == "–"


@pytest.mark.parametrize("found", [None, [], [one for one in curve() if one["step"] == 160]])
def test_without_a_second_dose_nothing_is_added(found) -> None:
    bare = results([entry()])
    made = results([entry()], doses=found, matched=list(matched().values()))
    assert table.render(made) == table.render(bare)
    assert table.markdown(made) == table.markdown(bare)


def test_an_arm_with_one_dose_has_no_row_beside_one_with_more() -> None:
    one = dose("single", 0, 160, "refusal_trained", "trained", 0.5)
    assert {row[0] for row in doses.rows(results([entry()], doses=[one, *curve()]), table._number)} == {"naive"}


def test_the_terminal_shows_the_curve_in_100_columns_and_markdown_the_same_rows() -> None:
    other = [{**one, "arm": "a-very-long-name-of-an-arm-operator", "tokens": 12345678} for one in curve()]
    made = results([entry()], doses=[*curve(), *other], matched=list(matched().values()))
    lines = [line.rstrip() for line in table.render(made, width=160).splitlines()]
    assert max(map(len, lines)) <= 100
    start = lines.index(doses.TITLE)
    body = lines[start:]
    assert [line.split() for line in body if line.split()[-5:] == ["5", "100", "0", "25", "25"]] == [
        ["160", "16,000", "5", "100", "0", "25", "25"],
        ["160", "12,345,678", "5", "100", "0", "25", "25"],
    ]
    assert sum(line.startswith("naive ") for line in body) == 1
    markdown = table.markdown(made).splitlines()
    for row in doses.rows(made, table._number):
        assert "| " + " | ".join(row) + " |" in markdown
    assert markdown.index(f"## {doses.TITLE}") < markdown.index("* " + doses.MATCHED.replace("<", "\\<"))


def test_the_curve_stands_after_the_claims() -> None:
    claim = {
        "id": "x", "statement": "It falls.", "metric": "facts_accuracy", "arms": ["a", "b"], "delta": None, "ci": None,
        "verdict": "not-testable", "why": "w.",
    }  # fmt: skip
    made = results([entry()], doses=curve(), claims=[claim])
    for text in (table.render(made), table.markdown(made)):
        assert text.index("It falls.") < text.index(doses.TITLE) < text.index("organism: micro")


TAIL = "Differences in points (lowest to highest seed, n units):"


def lines(units=UNITS, arms=ARMS):
    return doses.matched_lines({"matched": outcome.matched(units, arms, SEEDS)})


def test_matched_refusal_reads_like_this() -> None:
    assert lines() == [
        doses.MATCHED,
        f"step by seed: naive 4, 4; character 8, 4. {TAIL}",
        "character - naive: refusal trained +0 (-5 to +5, n 20); refusal near -75 (-100 to -50, n 2); "
        "policy matches behaviour +50 (+50 to +50, n 2).",
    ]
    assert doses.matched_lines({}) == doses.matched_lines({"matched": []}) == []


def test_an_arm_that_never_clears_says_so() -> None:
    units = {key: place(20) if key[0] == "naive" else own for key, own in UNITS.items()}
    assert lines(units)[1:] == [
        f"step by seed: naive never, never; character 8, 4. {TAIL}",
        "character - naive: in no seed do both clear.",
    ]
    units["naive", 1, 8] = place(0)
    assert lines(units)[1] == f"step by seed: naive never, 8; character 8, 4. {TAIL}"


def test_more_than_two_pairs_are_left_to_results_json() -> None:
    found = lines({**UNITS, ("third", 0, 4): place(0)}, [*ARMS, "third"])
    assert [line.split(":")[0] for line in found[2:4]] == ["character - naive", "third - naive"]
    assert found[3] == "third - naive: refusal trained -5 (-5 to -5, n 20). 1 more: results.json, matched."
    assert len(found) == 4
