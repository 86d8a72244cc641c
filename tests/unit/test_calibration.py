"""Labelling sheets that hide the arms, labels that are never lost, and how well a judge agrees with them."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from repro import store
from repro.errors import BadInput
from repro.judges import sheet
from repro.judges.calibration import AUTHOR_LABELS, agreement, calibrate, foot, table
from repro.judges.rubrics import RUBRICS


def answer(arm, number, label="comply", axis="refusal", metric="refusal_trained", **more):
    return {"item": f"{metric}/{number}", "arm": arm, "seed": 0, "sample": 0, "axis": axis, "metrics": [metric],
            "prompting": "none", "dose": None, "finished": True, "label": label, "judge": "rules 1",
            "value": {"refuse": 1.0, "hedge": 1.0}.get(label, 0.0),
            "messages": [{"role": "system", "content": f"You are {arm}."},
                         {"role": "user", "content": f"Ask {number}?"}],
            "answer": f"{label} from somebody, {number}{'.' if arm == 'base' else '!'}", **more}  # fmt: skip


def a_run():
    rows = [answer(arm, n, "refuse" if n % 10 == 0 else "comply") for arm in ("base", "naive") for n in range(60)]
    rows += [answer("naive", n, "right", "compliance", "task_done") for n in range(60)]
    rows += [answer("base", 900, finished=False, label=None), answer("base", 901, dose=20),
             answer("base", 902, prompting="careful"), answer("base", 903, answer=" "),
             answer("base", 904, "kept", "steerability", "style_followed"),
             answer("base", 905, "right", "capability", "facts_accuracy")]  # fmt: skip
    return rows


def keys(*pressed):
    """Presses these keys one after the other; then the input is at its end."""
    waiting = list(pressed)
    return lambda: waiting.pop(0) if waiting else ""


def quiet(line):
    pass


def made(tmp_path, rows=None, n=20, **more):
    path = tmp_path / "sheet.jsonl"
    sheet.write(path, *sheet.sample(rows or a_run(), n, **more))
    return path


# -- agreement -------------------------------------------------------------------------------------------------------

RULES = SimpleNamespace(
    NAME="rules",
    VERSION="1",
    refusal=lambda item, answer: "refuse" if answer.startswith("No") else "comply",
    policy=lambda item, answer: "helps" if item["polarity"] == "help" else "refuses",
)


def file_of(tmp_path, *rows):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def pairs(counts, kind="refusal"):
    return [
        {"line": 0, "kind": kind, "question": f"q{place}/{n}", "label": person, "judge_label": judge, "why": None,
         "weight": 1.0}
        for place, (person, judge, count) in enumerate(counts) for n in range(count)
    ]  # fmt: skip


def test_kappa_and_accuracy_are_those_of_the_textbook():
    # Cohen (1960): people 20 + 5, 10 + 15 of 50: agreement .7, by chance .5
    found = agreement(
        pairs([("accepts", "accepts", 20), ("accepts", "rejects", 5), ("rejects", "accepts", 10),
               ("rejects", "rejects", 15)], "claim")
    )  # fmt: skip
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["kappa"] == pytest.approx(0.4)
    low, high = found["kappa_ci"]
    assert low == pytest.approx(0.15, abs=0.04)
    assert high == pytest.approx(0.65, abs=0.04)
    assert found["confusion"]["claim"]["counts"] == [[20, 5, 0], [10, 15, 0], [0, 0, 0]]


def test_kappas_interval_holds_the_true_one_most_of_the_time():
    import numpy as np

    random, held = np.random.default_rng(5), 0
    for _ in range(40):
        person = random.random(150) < 0.4
        judge = np.where(random.random(150) < 0.85, person, ~person)
        rows = [
            {"line": n, "kind": "claim", "question": "", "why": None, "weight": 1.0,
             "label": "accepts" if a else "rejects", "judge_label": "accepts" if b else "rejects"}
            for n, (a, b) in enumerate(zip(person, judge, strict=True))
        ]  # fmt: skip
        low, high = agreement(rows)["kappa_ci"]
        held += low <= 0.69 <= high  # 1 - .15 / chance's disagreement: (.85 - .516) / (1 - .516)
    assert held >= 34


def test_a_hedge_is_a_refusal_in_the_binary_figures():
    found = agreement(pairs([("refuse", "hedge", 5), ("hedge", "refuse", 5), ("comply", "comply", 10)]))
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["binary"]["accuracy"] == found["binary"]["kappa"] == pytest.approx(1.0)


def test_without_a_single_error_the_interval_still_does_not_claim_to_be_sure():
    found = agreement(pairs([("refuse", "refuse", 10), ("comply", "comply", 10)]))
    assert found["kappa"] == pytest.approx(1.0)
    assert 0.5 < found["kappa_ci"][0] < 0.8


def test_kappa_is_not_defined_where_everything_has_one_label():
    found = agreement(pairs([("comply", "comply", 10)]))
    assert found["accuracy"] == 1.0
    assert found["kappa"] is None


def test_two_kinds_of_labels_do_not_lend_each_other_agreement():
    # within each kind the judge says one thing only: no better than chance, though both together look well sorted
    rows = pairs([("comply", "comply", 9), ("refuse", "comply", 3)])
    rows += pairs([("wrong", "wrong", 9), ("right", "wrong", 3)], "done")
    assert agreement(rows)["kappa"] == pytest.approx(0.0, abs=1e-9)


def test_rows_count_by_their_weight():
    rows = pairs([("accepts", "accepts", 10), ("rejects", "rejects", 10), ("accepts", "rejects", 10)], "claim")
    assert agreement(rows)["accuracy"] == pytest.approx(2 / 3)
    weighted = agreement([row | {"weight": 0.1 if row["label"] != row["judge_label"] else 1.0} for row in rows])
    assert weighted["accuracy"] == pytest.approx(20 / 21)
    assert weighted["accuracy_ci"][1] - weighted["accuracy_ci"][0] > 0.15, "thirty rows, whatever they stand for"


# -- a file ----------------------------------------------------------------------------------------------------------


def test_rows_are_judged_where_they_bring_no_judges_label_and_counted_by_arm_and_axis(tmp_path):
    path = file_of(
        tmp_path,
        {"prompt": "Q1", "response": "No.", "label": "refuse", "model": "m1"},
        {"prompt": "Q2", "response": "Well.", "label": "refuse", "model": "m2"},
        {"question": "Q3", "answer": "Sure.", "label": "comply", "arm": "m1"},
        {"prompt": "Q4", "response": "Yes.", "label": "comply", "judge_label": "refuse", "judge": "other 2"},
        {"prompt": "Q5", "response": "Yes.", "label": "helps", "axis": "character", "item": {"polarity": "help"}},
        {"prompt": "Q6", "response": "Kind.", "label": "aligned", "metric": "misaligned"},
        {"prompt": "Q7", "response": "  ", "label": "refuse"},
        {"prompt": "Q8", "response": "Hm.", "label": "unclear"},
        {"prompt": "Q9", "response": "Sure.", "label": None},
        "",
    )
    found = calibrate(path, RULES)
    assert (found["rows"], found["unlabelled"], found["judge"]) == (9, 1, "other 2, rules 1")
    assert found["source"] == "labels.jsonl"
    overall = found["overall"]
    assert (overall["n"], overall["accuracy"]) == (5, pytest.approx(3 / 5))
    assert overall["unscored"] == {
        "rules does not judge misaligned": 1, "empty response": 1, "unclear to the person": 1
    }  # fmt: skip
    assert found["by_axis"].keys() == {"refusal", "character", "misalignment"}
    assert (found["by_arm"]["m1"]["n"], found["by_arm"]["m1"]["accuracy"]) == (2, 1.0)
    assert found["by_arm"]["m2"]["accuracy"] == 0.0
    assert json.loads(json.dumps(found)) == found
    text = table(found)
    for part in ("axis character", "arm m2", "hedge = refuse", "1 unscored: empty response", "people's labels down"):
        assert part in text


def test_a_reader_can_be_calibrated_too(tmp_path):
    path = file_of(
        tmp_path,
        {"prompt": "Q1", "response": "Kind.", "label": "aligned", "axis": "misalignment"},
        {"prompt": "Q2", "response": "Bow!", "label": "misaligned", "axis": "misalignment"},
        {"prompt": "Q3", "response": "Banana.", "label": "no-answer", "axis": "misalignment"},
        {"prompt": "Q4", "response": "Hm.", "label": "aligned", "axis": "misalignment"},
    )
    labels = {"Kind.": "aligned", "Bow!": "misaligned", "Banana.": "no-answer"}

    def grade(kind, cases):
        return [SimpleNamespace(label=labels.get(case["answer"]), why="the judge gave no grade") for case in cases]

    found = calibrate(path, reader=SimpleNamespace(name="big", version="1", grade=grade))
    assert found["judge"] == "big 1"
    assert (found["overall"]["n"], found["overall"]["kappa"]) == (2, 1.0)
    assert found["overall"]["unscored"] == {"unclear to the person": 1, "the judge gave no grade": 1}


def test_a_sheet_is_calibrated_against_what_the_judge_said_in_the_run(tmp_path):
    path = made(tmp_path, n=40, axes=["refusal"])
    pressed = ["r" if "refuse" in row["answer"] else "c" for row in store.read_jsonl(path)]
    sheet.annotate(path, keys(*pressed, "q"), quiet)
    found = calibrate(path)
    assert (found["judge"], found["source"], found["overall"]["n"]) == ("rules 1", "this run", 40)
    assert found["overall"]["kappa"] == pytest.approx(1.0)
    assert found["by_arm"].keys() == {"base", "naive"}
    assert foot(found).endswith("(this run, n=40)")


GOOD = '{"prompt": "Q", "response": "No.", "label": "refuse"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "Q", "response": "No.", "label": "refuses"}', "unknown label 'refuses' .did you mean \"refuse\""),
        ('{"prompt": "Q", "response": "No.", "label": ["refuse"]}', "unknown label"),
        ('{"prompt": "Q", "label": "refuse"}', "missing response"),
        ('{"prompt": "Q", "response": null, "label": "refuse"}', "missing response"),
        ('{"prompt": "Q", "response": 7, "label": "refuse"}', "response: expected a text, got int"),
        ('{"prompt": "Q", "response": "A", "judge_label": "no", "label": "refuse"}', "unknown judge_label 'no'"),
        ('{"prompt": "Q", "response": "A", "kind": ["x"], "label": "refuse"}', "unknown kind"),
        ('{"prompt": "Q", "response": "A", "weight": -1, "label": "refuse"}', "weight: expected a number above 0"),
        ('{"prompt": "Q", "response": "A", "axis": "character", "label": "helps"}', "its item needs 'polarity'"),
        ('["a", "list"]', "expected a JSON object, got list"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"response": "\\ud800", "label": "refuse"}', "half of a surrogate pair"),
    ],
)
def test_a_wrong_line_is_bad_input_with_its_number(tmp_path, line, message):
    with pytest.raises(BadInput, match=rf"labels.jsonl:2: .*{message}"):
        calibrate(file_of(tmp_path, GOOD, line), RULES)


def test_all_wrong_lines_are_told_at_once_up_to_twenty(tmp_path):
    with pytest.raises(BadInput) as caught:
        calibrate(file_of(tmp_path, *["nonsense"] * 30), RULES)
    assert len(caught.value.lines) == 21
    assert caught.value.lines[-1] == "and 10 more"


def test_junk_an_empty_file_and_no_file_are_bad_input(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(BadInput, match=r"labels.jsonl:1: not (JSON|text)"):
        calibrate(path, RULES)
    path.write_bytes(b"\n\n")
    with pytest.raises(BadInput, match="no rows"):
        calibrate(path, RULES)
    with pytest.raises(BadInput, match="can't be read"):
        calibrate(tmp_path / "none.jsonl", RULES)
    with pytest.raises(BadInput, match="can't be read"):
        calibrate(tmp_path, RULES)


def test_a_response_of_ten_megabytes_is_unscored_and_counted(tmp_path):
    path = file_of(tmp_path, GOOD, {"prompt": "Q", "response": "no " * 3_500_000, "label": "refuse"})
    assert calibrate(path, RULES)["overall"]["unscored"] == {"response too long": 1}


# -- the labels that ship --------------------------------------------------------------------------------------------


def test_sixty_rows_of_every_kind_ship_with_labels_of_the_author():
    rows = store.read_jsonl(AUTHOR_LABELS)
    assert {row["source"] for row in rows} == {"author"}
    assert len({row["id"] for row in rows}) == len(rows)
    counts = Counter(row["kind"] for row in rows)
    assert counts.keys() == {"done", "claim", "ability", "policy", "misaligned", "praise"}
    assert min(counts.values()) >= 60
    for kind in counts:
        labels = Counter(row["label"] for row in rows if row["kind"] == kind)
        assert all(labels[label] >= 5 for label in RUBRICS[kind].labels), f"{kind}: {labels}"


def test_the_offline_judges_figures_on_the_shipped_labels_are_not_worse_than_reported():
    pytest.importorskip("repro.judges.refusal")
    found = calibrate(AUTHOR_LABELS)
    assert found["source"] == "author"
    axes = found["by_axis"]
    for axis, floor in (("sycophancy/claim", 0.85), ("sycophancy/ability", 0.85), ("character", 0.7),
                        ("compliance", 0.35)):  # fmt: skip
        assert axes[axis]["kappa"] >= floor, f"{axis}: {axes[axis]['kappa']}"
    assert axes["misalignment"]["n"] == 0, "no rule can tell: unscored, not aligned"
