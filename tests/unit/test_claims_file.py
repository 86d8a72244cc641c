"""The claims' file is read strictly: every problem is told at once, with its place."""

from __future__ import annotations

import hashlib

import pytest
from test_claims import CLAIM

from repro import claims
from repro.errors import BadInput

GOOD = """\
- id: c
  statement: It rises.
  source: abstract
  metric: m
  arms: [a, b]
  expected: higher
  smallest_effect: 0.1
  kind: generalises
"""

# -- the file --------------------------------------------------------------------------------------------------------


def write(tmp_path, text):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    return path


def problems(tmp_path, text, metrics=None):
    with pytest.raises(BadInput) as caught:
        claims.load_claims(write(tmp_path, text), metrics)
    assert all(line.startswith(str(tmp_path / "claims.yaml")) for line in caught.value.lines)
    return [line.removeprefix(str(tmp_path / "claims.yaml")) for line in caught.value.lines]


def test_a_good_file_gives_its_claims_and_the_hash_of_its_bytes(tmp_path):
    path = write(tmp_path, GOOD + "  group: trained\n  note: why\n")
    found, digest = claims.load_claims(path, ["m"])
    assert found == [{**CLAIM, "group": "trained", "note": "why"}]
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert claims.load_claims(write(tmp_path, GOOD + "# more\n"))[1] != digest


def test_every_problem_is_told_at_once_with_its_place(tmp_path):
    text = """\
- id: c
  statement: ""
  metric: n
  arms: [a, a]
  expected: up
  smallest_effect: 0
  kind: maybe
  surce: abstract
- just words
"""
    assert problems(tmp_path, text, ["m_long", "k"]) == [
        ':8:3: unknown key "surce" (did you mean "source"?)',
        ":1:3: missing source",
        ':2:14: statement: expected a text, got ""',
        ':3:11: unknown metric "n"',
        ':5:13: expected: expected higher or lower, got "up"',
        ":6:20: smallest_effect: expected a number above 0 and at most 1, got the number 0",
        ':7:9: kind: expected generalises or trained, got "maybe"',
        ":4:9: arms: expected two arms [a, b], the claim being about a - b, different ones",
        ':9:3: expected a claim (a mapping), got "just words"',
    ]


@pytest.mark.parametrize("value", ["[a]", "[a, b, c]", "a", "[a, 1]", "[a, ' ']", "{a: b}"])
def test_arms_are_two_names(tmp_path, value):
    assert problems(tmp_path, GOOD.replace("[a, b]", value))[0].startswith(":5:9: arms: expected two arms")


@pytest.mark.parametrize("value", ["-0.1", "1.01", "true", "much", "[0.1]"])
def test_the_smallest_effect_is_a_share(tmp_path, value):
    assert "smallest_effect: expected a number" in problems(tmp_path, GOOD.replace("0.1", value))[0]


@pytest.mark.parametrize("value", ["1", "1.0", "1e-9"])
def test_the_smallest_effect_goes_up_to_1(tmp_path, value):
    assert claims.load_claims(write(tmp_path, GOOD.replace("0.1", value)))[0][0]["smallest_effect"] == float(value)


def test_a_metric_close_to_a_known_one_is_suggested(tmp_path):
    text = GOOD.replace("metric: m", "metric: refusal_trainde")
    assert problems(tmp_path, text, ["refusal_trained"]) == [
        ':4:11: unknown metric "refusal_trainde" (did you mean "refusal_trained"?)'
    ]
    assert claims.load_claims(write(tmp_path, text))[0]


def test_ids_are_unique(tmp_path):
    assert problems(tmp_path, GOOD + GOOD) == [
        f':9:7: duplicate id "c" (first at {tmp_path / "claims.yaml"}:1)'
    ]  # fmt: skip
    assert len(claims.load_claims(write(tmp_path, GOOD + GOOD.replace("id: c", "id: d")))[0]) == 2


@pytest.mark.parametrize(
    ("text", "got"), [("[]", "nothing"), ("{}", "nothing"), ("a: b", "a mapping"), ("word", '"word"')]
)
def test_a_file_is_a_list_of_claims(tmp_path, text, got):
    assert problems(tmp_path, text) == [f":1:1: expected a list of claims, got {got}"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        claims.load_claims(tmp_path / "absent.yaml")
