"""The comparison as Markdown and CSV, with the same rows as in the terminal."""

from __future__ import annotations

import csv
import io

from test_table import ARMS, claim, entry, full, results, versus

from repro.report import table

# -- files -----------------------------------------------------------------------------------------------------------


def test_markdown_has_all_arms_in_one_table_with_unscored_answers_the_claims_and_the_caption():
    metrics = [entry(arm=arm, value=0.5, ci=(0.4, 0.6), unscored=i) for i, arm in enumerate(ARMS)]
    metrics[0]["groups"] = [{"group": g, "n": 60, "value": 0.25, "ci": [0, 0.5]} for g in ("near", "far")]
    metrics[1]["versus"] = versus(0.2, 0.001)
    metrics.append(entry("overrefusal", arm="base", value=0.0, ci=(0, 0.03), higher_is_better=False, n=90))
    lines = table.markdown(results(metrics, claims=[claim(why="a | b <c>")])).splitlines()
    assert lines[:8] == [
        "# reproduce-small on micro",
        "",
        "| axis | metric | n | " + " | ".join(ARMS) + " | unscored |",
        "| " + " | ".join(["---"] * 11) + " |",
        "| capability | facts_accuracy ↑ | 120 | 50 [40, 60] | 50 [40, 60]\\* | " + " | ".join(["50 [40, 60]"] * 5)
        + " | 0 / 1 / 2 / 3 / 4 / 5 / 6 |",
        "| capability | facts_accuracy: near | 60 | 25 [0, 50] |" + "  |" * 7,
        "| capability | facts_accuracy: far | 60 | 25 [0, 50] |" + "  |" * 7,
        "| capability | overrefusal ↓ | 90 | 0 [0, 3] |" + "  |" * 6 + " 0 |",
    ]  # fmt: skip
    assert lines[8:15] == [
        "",
        "## Pre-registered claims: 1 shown",
        "",
        "| claim | arms | delta | interval | verdict | why |",
        "| --- | --- | --- | --- | --- | --- |",
        "| The naive arm obeys operators less. | naive - base: facts_accuracy | -32 | [-40, -20] | shown | "
        "a \\| b \\<c\\> |",
        "",
    ]
    assert lines[15] == "claims file: sha256 beef"
    assert lines[16] == ""
    assert lines[17].startswith("* percent [95% interval]; ↑ higher is better, ↓ lower; \\* differs from base")
    assert lines[-1] == "* repeat: repro run reproduce-small"


def test_markdown_without_claims_has_no_section_for_them():
    text = table.markdown(results([entry(), entry("k", "naive")]))
    assert "claims" not in text
    partly = [entry(unscored=2), entry(arm="naive"), entry("k", "naive", unscored=1)]
    assert "| – / 1 |" in table.markdown(results(partly))


def test_csv_has_a_line_per_metric_group_and_arm_with_unrounded_numbers():
    groups = [{"group": g, "n": 60, "value": 0.25, "ci": [0, 0.5]} for g in ("near", "far")]
    metrics = [
        entry(value=0.123456789, groups=groups),
        entry(arm="naive", unscored=4, versus=versus(-0.2, 0.001)),
        entry(arm="control", value=None, ci=None, n=0, versus=versus(0.2, 0.001)),
    ]
    text = table.csv_text(results(metrics, tags={"facts_accuracy": {"naive": "trained"}}))
    assert text.splitlines()[0] == "axis,metric,group,higher_is_better,arm,n,unscored,value,low,high,differs,tag"
    found = list(csv.DictReader(io.StringIO(text)))
    assert [(row["arm"], row["group"]) for row in found] == [
        ("base", ""), ("naive", ""), ("control", ""), ("base", "near"), ("base", "far"),
    ]  # fmt: skip
    base, naive, control, near, _ = found
    assert list(base.values()) == [
        "capability", "facts_accuracy", "", "true", "base", "120", "0", "0.123456789", "0.931", "0.989", "",
        "generalises",
    ]  # fmt: skip
    assert (naive["unscored"], naive["differs"], naive["tag"]) == ("4", "worse", "trained")
    assert (control["value"], control["low"], control["high"], control["differs"]) == ("", "", "", "better")
    assert (near["n"], near["unscored"], near["value"], near["tag"]) == ("60", "", "0.25", "")


def test_terminal_markdown_and_csv_show_the_same_rows():
    made = full(ARMS[:4])
    found = table.rows(made)
    markdown, terminal = table.markdown(made), table.render(made)
    assert len(list(csv.DictReader(io.StringIO(table.csv_text(made))))) == sum(len(row.cells) for row in found)
    for row in found:
        assert (row.group or row.metric) in markdown
        assert (row.group or row.metric) in terminal
