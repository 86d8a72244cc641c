"""The comparison table: 100 columns, the same figures in the terminal, in Markdown and in CSV."""

from __future__ import annotations

from typing import Any

import pytest

from repro.report import table

ARMS = ["base", "control", "naive", "character", "character-no-sdf", "character-operator", "naive-operator"]


def entry(metric="facts_accuracy", arm="base", value: float | None = 0.97, ci: Any = (0.931, 0.989), **changes):
    made = {
        "axis": "capability", "metric": metric, "arm": arm, "seed": None, "n": 120, "observations": 360, "unscored": 0,
        "value": value, "ci": None if ci is None else list(ci), "interval": "wilson", "bounds": [0.0, 1.0],
        "higher_is_better": True, "versus": {}, "groups": [],
    }  # fmt: skip
    return {**made, **changes}


def versus(delta, p_holm, ci=None):
    ci = ci or [delta - 0.01, delta + 0.01]
    return {"base": {"delta": delta, "ci": ci, "p": 0.001, "p_holm": p_holm, "pairs": 120, "dropped": 0}}


def claim(**changes):
    made = {
        "id": "steer", "statement": "The naive arm obeys operators less.", "source": "abstract",
        "metric": "facts_accuracy", "arms": ["naive", "base"], "expected": "lower", "smallest_effect": 0.1,
        "kind": "generalises", "delta": -0.316,
        "ci": [-0.4, -0.2], "p": 0.01, "p_holm": 0.02, "verdict": "shown", "why": "all 3 seeds point the expected way.",
    }  # fmt: skip
    return {**made, **changes}


def results(metrics, **changes):
    per_seed = [{**one, "seed": seed} for one in metrics for seed in (0, 1, 2)]
    made = {
        "schema": 1, "run": {"experiment": "reproduce-small", "folder": "runs/reproduce-small-micro-0a1b2c3d"},
        "model": {"id": "micro", "pack": "micro"}, "judge": {"name": "micro 1", "kappa": None, "n": None},
        "metrics": [*metrics, *per_seed], "claims": [], "claims_hash": "beef", "exploratory": [], "warnings": [],
    }  # fmt: skip
    return {**made, **changes}


def full(arms):
    """Every axis, long names, groups, unscored answers, marks and tags: as wide as it gets."""
    metrics = []
    names = [
        "facts_accuracy",
        "refusal_heldout",
        "misaligned_training_format",
        "policy_matches_behaviour",
        "log_odds_shift",
    ]
    for place, name in enumerate(names):
        for arm in arms:
            wide = name == "log_odds_shift"
            groups = [{"group": g, "n": 99, "value": 1.0, "ci": [0.9999, 1.0]} for g in ("near", "far")]
            metrics.append(
                entry(
                    name,
                    arm,
                    -12.345 if wide else 0.9999,
                    (-15.0, 12.0) if wide else (-1.0, 1.0),
                    axis=f"axis {place // 2}",
                    unscored=12 if arm == "naive" else 0,
                    versus=versus(0.5, 0.001) if arm != "base" else {},
                    bounds=None if wide else [-1, 1],
                    groups=groups if name == "refusal_heldout" else [],
                )
            )
    tags = {name: dict.fromkeys(arms, "trained") for name in names}
    claims = [
        claim(
            statement="A long sentence of the paper, " * 6, arms=list(arms[-2:]), group="trained", why="because " * 12
        )
    ]
    return results(metrics, tags=tags, claims=claims, warnings=["a long warning " * 12])


# -- the terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_the_table_fits_100_columns_with_nothing_cut_off(count):
    arms = ARMS[:count]
    text = table.render(full(arms) if count > 1 else results([entry()]), width=160)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    if count > 1:
        narrow = table.render(full(arms), width=100)
        assert [line.rstrip() for line in narrow.splitlines()] == [line.rstrip() for line in text.splitlines()]
        assert "misaligned_training_format ↑" in text
        assert " >99 " in text
        assert " [-100, 100]*t " in text


def test_four_arms_stand_side_by_side_and_seven_in_two_tables_beside_base():
    assert table.parts_of(ARMS[:4]) == [ARMS[:4]]
    assert table.parts_of(ARMS) == [["base", *ARMS[1:4]], ["base", *ARMS[4:]]]
    assert table.parts_of(ARMS[:5]) == [["base", *ARMS[1:3]], ["base", *ARMS[3:5]]]
    assert table.parts_of(["a", "b", "c", "d", "e"]) == [["a", "b", "c"], ["d", "e"]]
    assert table.parts_of([]) == [[]]
    assert table.parts_of(ARMS[:5], "naive") == [
        ["naive", "base", "control"],
        ["naive", "character", "character-no-sdf"],
    ]
    heads = [line for line in table.render(full(ARMS)).splitlines() if " n base" in line]
    assert len(heads) == 2
    assert "naive" in heads[0]
    assert "naive-operator" in heads[1]


def test_a_small_table_reads_like_this():
    groups = [
        {"group": "near", "n": 60, "value": 1.0, "ci": [0.94, 1]},
        {"group": "far", "n": 60, "value": None, "ci": None},
    ]
    metrics = [
        entry(arm="base", groups=groups),
        entry(arm="naive", value=0.5, ci=(0.4, 0.6), unscored=3, versus=versus(-0.47, 0.01)),
        entry("overrefusal", "base", 0.0, (0, 0.03), axis="refusal", higher_is_better=False),
        entry("overrefusal", "naive", None, None, axis="refusal", higher_is_better=False, n=0),
    ]  # fmt: skip
    text = table.render(results(metrics, tags={"facts_accuracy": {"naive": "trained", "base": "generalises"}}))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[:10] == [
        "reproduce-small on micro",
        "                                n base            naive",
        "─" * 65,
        "capability",
        "facts_accuracy ↑              120 97 [93, 99]     50 [40, 60]*t",
        "                                                  3 unscored",
        "  near                         60 100 [94, 100]",
        "  far                          60 –",
        "refusal",
        "overrefusal ↓                   0 0 [0, 3]        –",
    ]
    assert " ".join(lines[11:]).startswith("percent [95% interval]; ↑ higher is better, ↓ lower; * differs from base")


def test_marks_and_stacks_go_by_the_arm_that_the_run_compares_with():
    against = {"control": versus(-0.47, 0.01)["base"]}
    metrics = [entry(arm=arm, versus=against if arm != "control" else {}) for arm in ARMS[1:6]]
    made = results(metrics, versus="control")
    assert [cell.differs for cell in table.rows(made)[0].cells.values()] == [0, -1, -1, -1, -1]
    assert "; * differs from control (" in table.captions(made)[0]
    assert table.render(made).count("control") == 3
    assert "differs from" not in table.captions({**made, "versus": "base"})[0]


def test_rows_go_by_axis_however_the_metrics_come():
    metrics = [entry("one", axis="x"), entry("two", axis="y"), entry("three", axis="x")]
    assert [row.metric for row in table.rows(results(metrics))] == ["one", "three", "two"]


def test_only_pooled_rows_are_shown():
    made = results([entry(value=0.5)])
    made["metrics"][1]["value"] = 0.1
    (row,) = table.rows(made)
    assert row.cells["base"].value == 0.5


def test_a_single_group_is_the_metric_itself_and_gets_no_row():
    one = [{"group": "all", "n": 5, "value": 1.0, "ci": None}]
    assert len(table.rows(results([entry(groups=one), entry(arm="naive", groups=one)]))) == 1


def test_groups_of_any_arm_get_a_row():
    metrics = [
        entry(groups=[{"group": "near", "n": 5, "value": 1.0, "ci": [0.5, 1]}]),
        entry(arm="naive", groups=[{"group": "far", "n": 4, "value": 0.0, "ci": None}]),
    ]
    _, near, far = table.rows(results(metrics))
    assert (near.group, near.cells) == ("near", {"base": table.Cell(5, 1.0, (0.5, 1))})
    assert (far.group, far.cells) == ("far", {"naive": table.Cell(4, 0.0, None)})


# -- marks and figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "higher_is_better", "differs"),
    [
        (versus(0.2, 0.049), True, 1),
        (versus(0.2, 0.049), False, -1),
        (versus(-0.2, 0.049), True, -1),
        (versus(-0.2, 0.049), False, 1),
        (versus(0.2, 0.05), True, 0),
        (versus(0.2, 0.001, [0.0, 0.4]), True, 0),
        (versus(-0.2, 0.001, [-0.4, 0.0]), True, 0),
        ({"base": {**versus(0.2, 0.001)["base"], "ci": None}}, True, 0),
        ({"control": versus(0.2, 0.001)["base"]}, True, 0),
        ({}, True, 0),
    ],
)
def test_a_mark_needs_both_the_test_and_the_interval(found, higher_is_better, differs):
    (row,) = table.rows(results([entry(versus=found, higher_is_better=higher_is_better)]))
    assert row.cells["base"].differs == differs


def test_better_is_green_and_worse_is_red():
    assert table._styled(table.Cell(1, 0.5, None, 0, 1), True).style == "green"
    assert table._styled(table.Cell(1, 0.5, None, 0, -1), True).style == "red"
    assert table._styled(table.Cell(1, 0.5, None, 0, 0), True).style == ""
    assert table._styled(None, True).plain == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.004, "<1"), (0.005, "<1"), (0.006, "1"), (0.974, "97"), (0.996, ">99"), (0.995, ">99"),
        (0.994, "99"), (1.0, "100"), (-0.003, ">-1"), (-0.3, "-30"), (-0.999, "<-99"), (-1.0, "-100"), (1 / 3, "33"),
    ],
)  # fmt: skip
def test_0_and_100_percent_mean_just_that(value, text):
    assert table._number(value, True) == text


def test_what_is_no_share_has_two_decimals():
    assert table.cell_text(table.Cell(5, -3.14159, (-4.0, 2.5)), False) == "-3.14 [-4.00, 2.50]"
    assert table._number(-0.001, False) == "0.00"
    assert table._styled(table.Cell(5, -3.14159, (-4.0, 2.5), 2), False).plain == "-3.14\n[-4.00, 2.50]\n2 unscored"
    assert table._styled(table.Cell(5, -0.31, (-0.4, 0.25), 0), True).plain == "-31 [-40, 25]"


def test_a_cell_shows_interval_mark_and_tag_or_that_nothing_was_scored():
    assert table.cell_text(table.Cell(5, 0.5, (0.25, 0.75), 0, -1, True), True) == "50 [25, 75]*t"
    assert table.cell_text(table.Cell(5, 0.5, (0.25, 0.75), 0, 1), True) == "50 [25, 75]*"
    assert table.cell_text(table.Cell(5, 0.5, None, 0, 0, True), True) == "50t"
    assert table.cell_text(table.Cell(0, None, None, 5, 0, True), True) == "–"
    assert table.cell_text(None, True) == ""


def test_lost_samples_are_shown_rather_than_lost_units():
    (row,) = table.rows(results([entry(unscored=0, unscored_answers=7)]))
    assert row.cells["base"].unscored == 7


# -- the caption -----------------------------------------------------------------------------------------------------


def test_the_caption_of_the_organism_says_what_it_is_no_evidence_for():
    metrics = [entry(n=100), entry(arm="naive", n=150, unscored=2, versus=versus(0.1, 0.2))]
    made = results(metrics, tags={"facts_accuracy": {"naive": "trained"}}, gate={"base": 0.9, "naive": 0.71, "x": None})
    assert table.captions({**made, "warnings": ["beware"]}) == [
        "percent [95% interval]; ↑ higher is better, ↓ lower; * differs from base (paired interval without 0, and "
        "p < .05 after Holm over the table); t the arm's training showed this very thing, all else has to generalise.",
        "organism: micro · items a metric: 100-150 · seeds: 0, 1, 2 · unscored answers: 2 · judge: micro 1.",
        "naive fails the gate: 71% of its answers are well formed and on topic.",
        "The organism is a constructed model: it shows mechanics and is no evidence about real models.",
        "warning: beware",
        "run folder: runs/reproduce-small-micro-0a1b2c3d",
        "repeat: repro run reproduce-small",
    ]


def test_the_caption_of_a_real_model_names_the_judges_agreement():
    made = results(
        [entry()], model={"id": "org/name", "pack": "english"}, judge={"name": "classifier", "kappa": 0.868, "n": 1125},
        run={"name": "mine", "command": "repro run mine --seeds 0,1"},
    )  # fmt: skip
    assert table.captions(made) == [
        "percent [95% interval]; ↑ higher is better, ↓ lower.",
        "model: org/name · items a metric: 120 · seeds: 0, 1, 2 · unscored answers: 0 · "
        "judge: classifier (kappa 0.87, n=1125 human labels).",
        "repeat: repro run mine --seeds 0,1",
    ]


def test_run_model_and_judge_may_be_plain_names():
    made = results([entry()], run="mine", model="org/name", judge="j")
    assert table.title(made) == "mine on org/name"
    assert table.captions(made)[1:] == [
        "model: org/name · items a metric: 120 · seeds: 0, 1, 2 · unscored answers: 0 · judge: j.",
        "repeat: repro run mine",
    ]
    assert table.is_organism({**made, "pack": "micro"})
    assert table.is_organism({**made, "run": {"pack": "micro"}})
    assert not table.is_organism(made)
    nameless = {**made, "run": None, "model": None, "judge": None}
    assert table.title(nameless) == "comparison"
    assert table.captions(nameless)[1:] == [
        "model: ? · items a metric: 120 · seeds: 0, 1, 2 · unscored answers: 0 · judge: ?."
    ]


def test_a_command_and_a_folder_stay_on_one_line_to_be_copied():
    command, folder = "repro run x " + "--set a.b=1 " * 12 + "--end", "runs/" + "long name/" * 12 + "end"
    text = table.render(results([entry()], run={"command": command, "folder": folder}), width=400)
    assert f"repeat: {command}\n" in text.replace(" \n", "\n")
    assert f"run folder: {folder}\n" in text.replace(" \n", "\n")


# -- claims ----------------------------------------------------------------------------------------------------------


def test_a_claims_row_says_which_arms_which_metric_and_why():
    odds = entry("log_odds_shift", bounds=None)
    made = results([entry(), odds], claims=[
        claim(),
        claim(group="near", delta=0.004, ci=[-0.126, 0.134], verdict="absent", why="small."),
        claim(metric="log_odds_shift", delta=1.5, ci=[0.25, 2.75], verdict="shown", why="w."),
        claim(metric="elsewhere", delta=None, ci=None, verdict="not-testable", why="the run does not measure it."),
        claim(delta=0.0),
    ])  # fmt: skip
    statement = "The naive arm obeys operators less."
    assert table.claim_rows(made) == [
        (
            statement,
            "naive - base: facts_accuracy",
            "-32",
            "[-40, -20]",
            "shown",
            "all 3 seeds point the expected way.",
        ),
        (statement, "naive - base: facts_accuracy, near", "+0", "[-13, 13]", "absent", "small."),
        (statement, "naive - base: log_odds_shift", "+1.50", "[0.25, 2.75]", "shown", "w."),
        (statement, "naive - base: elsewhere", "", "", "not-testable", "the run does not measure it."),
        (statement, "naive - base: facts_accuracy", "0", "[-40, -20]", "shown", "all 3 seeds point the expected way."),
    ]
    assert table.tally(made) == "3 shown, 1 absent, 1 not-testable"


def test_claims_stand_below_the_table_in_the_terminal():
    text = table.render(results([entry()], claims=[claim()]))
    lines = [line.rstrip() for line in text.splitlines()]
    start = lines.index("Pre-registered claims: 1 shown")
    assert lines[start + 1] == "claim                                   delta  interval    verdict       why"
    assert (
        lines[start + 3]
        == "The naive arm obeys operators less.     -32    [-40, -20]  shown         all 3 seeds point the"
    )
    assert lines[start + 4] == "naive - base: facts_accuracy                                             expected way."
    assert "Pre-registered" not in table.render(results([entry()]))

