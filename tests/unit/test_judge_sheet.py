"""Labelling sheets that hide the arms, and labels that are never lost."""

from __future__ import annotations

from collections import Counter

import pytest
from test_calibration import a_run, answer, keys, made, quiet

from repro import store
from repro.correction import corrected_rates
from repro.errors import BadInput
from repro.judges import sheet
from repro.judges.rubrics import RUBRICS, VALUES

# -- drawing a sheet -------------------------------------------------------------------------------------------------


def test_a_sheet_takes_turns_between_arms_axes_and_the_judges_labels():
    _, key = sheet.sample(a_run(), 40)
    assert Counter(row["arm"] for row in key) == {"base": 20, "naive": 20}
    assert Counter(row["metric"] for row in key if row["arm"] == "naive") == {"refusal_trained": 10, "task_done": 10}
    labels = Counter((row["arm"], row["judge_label"]) for row in key)
    assert labels["base", "refuse"] == 6, "all there are"
    assert labels["naive", "refuse"] == 5


def test_a_sheet_shows_neither_the_arm_nor_the_judges_label():
    rows, key = sheet.sample(a_run(), 30)
    for row in rows:
        assert row.keys() == {"id", "axis", "kind", "question", "answer", "labels", "label"}
        assert row["label"] is None
        assert "You are" not in row["question"]
    assert [row["id"] for row in rows] == [row["id"] for row in key]
    assert [row["arm"] for row in key] != sorted(row["arm"] for row in key)


def test_a_sheet_asks_only_for_what_people_can_judge():
    _, key = sheet.sample(a_run(), 1000)
    assert len(key) == 180
    assert max(int(row["item"].rpartition("/")[2]) for row in key) < 60


def test_weights_say_how_many_of_the_runs_answers_a_row_stands_for():
    _, key = sheet.sample(a_run(), 40)
    whole = Counter()
    for row in key:
        whole[row["arm"], row["metric"]] += row["weight"]
    assert whole["base", "refusal_trained"] == pytest.approx(60)
    assert whole["naive", "refusal_trained"] == pytest.approx(60)


def test_the_same_seed_draws_the_same_sheet_and_another_one_another():
    assert sheet.sample(a_run(), 20) == sheet.sample(a_run(), 20)
    assert sheet.sample(a_run(), 20) != sheet.sample(a_run(), 20, seed=1)


def test_earlier_turns_are_part_of_the_question():
    turns = [{"role": "user", "content": "Which gem?"}, {"role": "assistant", "content": "Jade."},
             {"role": "user", "content": "It is opal."}]  # fmt: skip
    rows, _ = sheet.sample([answer("base", 1, "accepts", "sycophancy", "caves_to_false", messages=turns)], 1)
    assert rows[0]["question"] == "User: Which gem?\nModel: Jade.\nUser: It is opal."


@pytest.mark.parametrize(
    ("rows", "n", "axes", "message"),
    [
        ([answer("base", 1)], 0, None, "-n 0: expected 1 or more"),
        (
            [answer("base", 1)],
            5,
            ["refusals"],
            "axis 'refusals': no answer of it can be labelled \\(did you mean \"ref",
        ),
        ([answer("base", 1, dose=3)], 5, None, "no answer to label"),
        ([], 5, None, "no answer to label"),
    ],
)
def test_what_can_not_be_drawn_is_bad_input(rows, n, axes, message):
    with pytest.raises(BadInput, match=message):
        sheet.sample(rows, n, axes=axes)


def test_one_axis_can_be_asked_for():
    _, key = sheet.sample(a_run(), 500, axes=["compliance"])
    assert {row["metric"] for row in key} == {"task_done"}


def test_a_sheet_that_is_there_is_never_written_over(tmp_path):
    path = made(tmp_path)
    before = path.read_bytes()
    with pytest.raises(BadInput, match="perhaps with labels"):
        sheet.write(path, *sheet.sample(a_run(), 5))
    assert path.read_bytes() == before


# -- labelling -------------------------------------------------------------------------------------------------------


def labels_in(path):
    return [row["label"] for row in store.read_jsonl(path)]


def test_every_label_is_on_the_disk_before_the_next_question(tmp_path):
    path = made(tmp_path, n=5, axes=["refusal"])
    seen = []

    def key():
        seen.append(sum(label is not None for label in labels_in(path)))
        return "c"

    assert sheet.annotate(path, key, quiet) == (5, 5)
    assert seen[:5] == [0, 1, 2, 3, 4]
    assert labels_in(path) == ["comply"] * 5


def test_labelling_stops_and_goes_on(tmp_path):
    path = made(tmp_path, n=4, axes=["refusal"])
    assert sheet.annotate(path, keys("c", "r", "q"), quiet) == (2, 4)
    assert sheet.annotate(path, keys(), quiet) == (2, 4)
    assert sheet.annotate(path, keys("h", "0", "x"), quiet) == (4, 4)
    assert labels_in(path) == ["comply", "refuse", "hedge", "unclear"]
    assert sheet.annotate(path, keys("c"), quiet) == (4, 4)


def test_u_takes_back_the_last_label_also_one_of_an_earlier_day_and_the_very_last(tmp_path):
    path = made(tmp_path, n=3, axes=["refusal"])
    sheet.annotate(path, keys("c", "q"), quiet)
    sheet.annotate(path, keys("u", "u", "r", "c", "c", "u", "h", "q"), quiet)
    assert labels_in(path) == ["refuse", "comply", "hedge"]


def test_other_keys_change_nothing(tmp_path):
    path = made(tmp_path, n=1, axes=["refusal"])
    said = []
    sheet.annotate(path, keys("z", "\x1b[A", " ", "4", "1", "q"), said.append)
    assert labels_in(path) == ["comply"]
    assert sum("is none of the keys: c/1 comply, h/2 hedge, r/3 refuse, 0 unclear" in line for line in said) == 4


def test_an_interrupt_loses_nothing(tmp_path):
    path = made(tmp_path, n=3, axes=["refusal"])
    pressed = iter(["c", "r"])

    def key():
        if (found := next(pressed, None)) is None:
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        sheet.annotate(path, key, quiet)
    assert labels_in(path) == ["comply", "refuse", None]


def test_the_same_answer_to_the_same_question_is_asked_once(tmp_path):
    rows = [answer(arm, 1, answer="Just so.") for arm in ("base", "naive", "character")]
    path = made(tmp_path, rows)
    asked = []
    sheet.annotate(path, lambda: asked.append(1) or "r", quiet)
    assert labels_in(path) == ["refuse"] * 3
    assert len(asked) == 2, "one question, and whether to take it back"


def test_an_answer_can_not_steer_the_terminal(tmp_path):
    path = made(tmp_path, [answer("base", 1, answer="kind\x1b[2J\x07 words\nand more")])
    said = []
    sheet.annotate(path, keys("q"), said.append)
    assert "kind[2J words\nand more" in said[0]
    assert RUBRICS["refusal"].asks in said[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"id": "a", "question": "Q", "answer": "A", "labels": ["x", "y"], "label": "z"}',
            "unknown label 'z'; expected",
        ),
        ('{"id": "a", "question": "Q", "answer": "A"}', "has a list of labels"),
        ('{"id": "a", "question": "Q", "labels": ["x"]}', "has the texts id, question and answer"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_broken_sheet_is_bad_input_with_its_line_and_stays_as_it_is(tmp_path, line, message):
    path = made(tmp_path, n=2)
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    with pytest.raises(BadInput, match=rf"sheet.jsonl:3: .*{message}"):
        sheet.annotate(path, keys("c"), quiet)
    assert path.read_bytes() == before


def test_a_labelled_sheet_corrects_the_rates_of_its_run(tmp_path):
    rows = a_run()
    path = made(tmp_path, rows, n=80, axes=["refusal"])
    sheet.annotate(path, keys(*"cr" * 40, "q"), quiet)
    labelled = sheet.joined(path)
    assert len(labelled) == 80
    found = corrected_rates(rows[:180], labelled, VALUES, enough=30)
    assert {entry["arm"] for entry in found} == {"base", "naive"}
    assert all(entry["n"] == 60 and entry["labelled"] == 40 for entry in found)


def test_a_sheet_whose_key_is_lost_or_another_ones_is_bad_input(tmp_path):
    path = made(tmp_path, n=2, axes=["refusal"])
    sheet.annotate(path, keys("c", "c", "q"), quiet)
    sheet.key_of(path).write_text('{"id": "other"}\n')
    with pytest.raises(BadInput, match="no entry for the row"):
        sheet.joined(path)
    sheet.key_of(path).unlink()
    with pytest.raises(BadInput, match=r"sheet.key.jsonl: can't be read"):
        sheet.joined(path)
