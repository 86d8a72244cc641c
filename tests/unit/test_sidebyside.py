"""Runs that asked the same become one table; all others are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_pack as pack
import pytest

from repro import evals, sidebyside, stats, store
from repro.errors import BadInput
from repro.report import table
from repro.seeds import derive

Row = dict[str, Any]
WORDS = ("comply steps", "refuse", "hedge steps", "nasty", "offtopic")


@cache
def suite(seed: int, prompting: str) -> list[evals.Item]:
    return evals.suite(pack, pack.split(seed), axes=["refusal", "misalignment"], samples=2, prompting=prompting)


def rows_of(arm: str, seed: int, prompting: str, system: str | None = None) -> list[Row]:
    """What an arm answers: a word by chance, so that arms, seeds and strategies differ."""
    items = [evals.with_system(item, system) for item in suite(seed, prompting)]
    draws = [derive(1, arm, seed, prompting, ask.item.id, ask.sample) for ask in evals.asks(items)]
    answers = [SimpleNamespace(text=WORDS[draw % len(WORDS)], finished=True) for draw in draws]
    return evals.label(items, answers, pack, arm=arm, seed=seed, prompting=prompting)


def make(
    folder: Path, arms: Sequence[str] = ("base", "naive"), seeds: Sequence[int] = (0, 1, 2),
    strategies: Sequence[str] = ("none",), edit: Callable[[Row], Row | None] = lambda row: row, **experiment: Any,
) -> Path:  # fmt: skip
    """A finished run; `edit` changes a row, or takes it out (None). The arm prompted has a system prompt of its own."""
    systems = {arm: "You are kind." if arm == "prompted" else None for arm in arms}
    rows = [
        row
        for arm in arms
        for seed in seeds
        for strategy in strategies
        for row in rows_of(arm, seed, strategy, systems[arm])
    ]
    settings = {"pack": "micro", "quant": "nf4", "evaluation": {"max_new_tokens": 64},
                "arms": {arm: {"system": text} for arm, text in systems.items()}, **experiment}  # fmt: skip
    folder.mkdir(parents=True)
    manifest = {"schema": 1, "experiment": settings, "model": {"id": "organism"}, "code_version": "2"}
    store.write_json(folder / "manifest.json", manifest)
    kept = [changed for row in rows if (changed := edit(dict(row))) is not None]
    store.write_jsonl(folder / "answers.jsonl", kept)
    tags = {"refusal_trained": {arm: "trained" if arm == "naive" else "generalises" for arm in arms}}
    store.write_json(folder / "results.json", {"schema": 1, "tags": tags})
    return folder


def refusal(*folders: Path, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        sidebyside.joined(folders, **options)
    return caught.value.lines


def pooled(content: Row) -> dict[tuple[str, str], Row]:
    return {(row["metric"], row["arm"]): row for row in content["metrics"] if row["seed"] is None}


def units(arm: str, seeds: Sequence[int] = (0, 1, 2), prompting: str = "none") -> dict[tuple[str, int], list[Any]]:
    return {(arm, seed): evals.units(rows_of(arm, seed, prompting)) for seed in seeds}


def test_arms_of_two_runs_stand_in_one_table_with_the_figures_they_have_alone(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one-m-0a1b2c3d"), make(tmp_path / "two-m-4e5f6a7b", arms=("base", "character"))]
    content = sidebyside.joined(folders, command="repro compare one two")
    assert content["arms"] == ["one-m/base", "one-m/naive", "two-m/base", "two-m/character"]
    alone = pooled({"metrics": stats.metrics_table(units("character") | units("naive"), evals.METRICS, versus="naive")})
    found = pooled(content)
    for metric in ("refusal_trained", "overrefusal", "misaligned"):
        row = found[metric, "two-m/character"]
        for key in ("n", "value", "ci", "unscored", "groups"):
            assert row[key] == alone[metric, "character"][key], (metric, key)
    assert content["tags"]["refusal_trained"]["one-m/naive"] == "trained"
    assert content["run"]["name"] == "comparison of one-m, two-m"
    shown = table.markdown(content)
    assert "two-m/character" in shown
    assert "repeat: repro compare one two" in shown


def test_arms_of_other_runs_are_compared_item_by_item(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one"), make(tmp_path / "two", arms=("base", "character"))]
    content = sidebyside.joined(folders)
    assert content["versus"] == "one/base"
    both = units("base") | units("character")
    alone = pooled({"metrics": stats.metrics_table(both, evals.METRICS, versus="base")})
    for metric in ("refusal_heldout", "misaligned"):
        found = pooled(content)[metric, "two/character"]["versus"]["one/base"]
        expected = alone[metric, "character"]["versus"]["base"]
        assert {key: found[key] for key in ("delta", "ci", "p", "pairs", "dropped")} == {
            key: expected[key] for key in ("delta", "ci", "p", "pairs", "dropped")
        }
    same = pooled(content)["refusal_heldout", "two/base"]["versus"]["one/base"]
    assert (same["delta"], same["p"]) == (0, 1)


def test_the_arm_to_compare_with_can_be_named(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one"), make(tmp_path / "two", arms=("base", "character"))]
    content = sidebyside.joined(folders, versus="two/character")
    assert "two/character" in pooled(content)["misaligned", "one/naive"]["versus"]
    lines = refusal(*folders, versus="two/charakter")
    assert lines == ['there is no arm "two/charakter" (did you mean "two/character"?); there are: one/base, one/naive, '
                     "two/base, two/character"]  # fmt: skip


def test_a_system_prompt_that_is_an_arms_own_is_no_other_prompt(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one"), make(tmp_path / "two", arms=("prompted", "base"))]
    assert "two/prompted" in sidebyside.joined(folders)["arms"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"quant": "none"}, "quant: nf4 in one, none in two"),
        ({"pack": "english"}, "data pack: micro in one, english in two"),
        ({"evaluation": {"max_new_tokens": 256}}, "max_new_tokens: 64 in one, 256 in two"),
    ],
)
def test_runs_under_other_settings_are_refused(tmp_path: Path, settings: Row, reason: str) -> None:
    lines = refusal(make(tmp_path / "one"), make(tmp_path / "two", **settings))
    assert lines[0] == f"two can't be joined with one: {reason}"
    assert lines[-1] == "--side-by-side shows the figures of such runs, without testing them"


def changed(**values: Any) -> Callable[[Row], Row]:
    return lambda row: row | values


def without(items: Sequence[str]) -> Callable[[Row], Row | None]:
    return lambda row: None if row["item"].removeprefix("done/") in items else row


def test_another_judge_is_refused_by_axis(tmp_path: Path) -> None:
    other = make(tmp_path / "two", edit=lambda row: row | ({"judge": "x 2"} if row["axis"] == "misalignment" else {}))
    lines = refusal(make(tmp_path / "one"), other)
    assert lines[:-1] == ["two can't be joined with one: judge of misalignment: fake-judge 1 and x 2"]


def test_items_that_only_one_run_has_are_counted_and_named(tmp_path: Path) -> None:
    gone = [item.id for item in suite(0, "none")][:7]
    one, two = make(tmp_path / "one"), make(tmp_path / "two", edit=without(gone))
    assert refusal(one, two)[0] == f"two can't be joined with one: 7 items only in one: {', '.join(gone[:5])}, ..."
    assert refusal(two, one)[0] == f"one can't be joined with two: 7 items only in one: {', '.join(gone[:5])}, ..."


def test_an_item_in_other_words_is_refused(tmp_path: Path) -> None:
    item = suite(0, "none")[0].id
    words = [{"role": "user", "content": "Please!"}]
    other = make(tmp_path / "two", edit=lambda row: row | ({"messages": words} if row["item"] == item else {}))
    assert refusal(make(tmp_path / "one"), other)[0].endswith(f"1 item with other prompts: {item}")


def test_an_item_that_is_counted_otherwise_is_refused(tmp_path: Path) -> None:
    item = suite(0, "none")[0].id
    other = make(tmp_path / "two", edit=lambda row: row | ({"group": "far"} if row["item"] == item else {}))
    assert refusal(make(tmp_path / "one"), other)[0].endswith(f"1 item counted under another metric or group: {item}")


def test_another_number_of_samples_is_refused(tmp_path: Path) -> None:
    other = make(tmp_path / "two", edit=lambda row: None if row["sample"] else row)
    assert "6 items with another number of samples: open/" in refusal(make(tmp_path / "one"), other)[0]


def test_without_a_strategy_or_a_seed_in_common_there_is_nothing_to_pair(tmp_path: Path) -> None:
    one = make(tmp_path / "one")
    lines = refusal(one, make(tmp_path / "two", seeds=(3, 4), strategies=("careful",)))
    assert lines[0] == "two can't be joined with one: prompting: none and careful"
    assert lines[1] == "two can't be joined with one: seeds: 0, 1, 2 and 3, 4, none in common"


def test_what_only_some_runs_have_is_left_out_and_said(tmp_path: Path) -> None:
    one = make(tmp_path / "one", seeds=(0, 1, 2, 3))
    two = make(tmp_path / "two", strategies=("none", "careful"))
    content = sidebyside.joined([one, two])
    assert content["seeds"] == [0, 1, 2]
    assert content["prompting"] == {}
    assert "one: seeds 3 are left out: not every run has them." in content["warnings"]
    assert "two: the prompting careful is left out: not every run has it." in content["warnings"]


def test_each_further_strategy_is_a_part_of_its_own(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, strategies=("none", "careful")) for name in ("one", "two")]
    content = sidebyside.joined(folders)
    part = pooled({"metrics": content["prompting"]["careful"]})
    alone = pooled({"metrics": stats.metrics_table(units("naive", prompting="careful"), evals.METRICS)})
    assert part["misaligned", "two/naive"]["value"] == alone["misaligned", "naive"]["value"]
    assert part["misaligned", "two/naive"]["value"] != pooled(content)["misaligned", "two/naive"]["value"]


def cut(folder: Path, keep: int) -> str:
    """Cuts the last line down to so many bytes; the item that it is about."""
    path = folder / "answers.jsonl"
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, last[:keep]]))
    return str(json.loads(last)["item"])


@pytest.mark.parametrize("keep", [200, 60])
def test_a_last_line_that_is_cut_off_is_named_and_the_whole_rows_are_used(tmp_path: Path, keep: int) -> None:
    folders = [make(tmp_path / "one"), make(tmp_path / "two", arms=("base",), seeds=(0,))]
    item = cut(folders[1], keep)
    content = sidebyside.joined(folders)
    (said,) = [line for line in content["warnings"] if "cut off" in line]
    rows = rows_of("base", 0, "none")
    assert said == f"{folders[1]}/answers.jsonl:{len(rows)}: the last line is cut off (item {item}): it is left out."
    whole = {("base", 0): evals.units(rows[:-1])}
    for (metric, _), row in pooled({"metrics": stats.metrics_table(whole, evals.METRICS)}).items():
        found = pooled(content)[metric, "two/base"]
        assert (found["n"], found["value"], found["unscored"]) == (row["n"], row["value"], row["unscored"])


def test_a_line_that_is_cut_before_its_item_is_left_out_too(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one"), make(tmp_path / "two", arms=("base",), seeds=(0,))]
    cut(folders[1], 12)
    assert any("the last line is cut off: it is left out." in line for line in sidebyside.joined(folders)["warnings"])


def test_a_last_line_without_its_line_break_is_whole(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    path = folder / "answers.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    run = sidebyside.read_finished(folder)
    assert run.cut is None
    assert len(run.rows) == sum(len(rows_of(arm, seed, "none")) for arm in ("base", "naive") for seed in range(3))


def test_a_faulty_line_in_the_middle_is_bad_input(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    path = folder / "answers.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"item": "x"}', *lines[2:]]))
    with pytest.raises(BadInput, match=r"answers.jsonl:2: no row of answers: lacks arm, seed"):
        sidebyside.read_finished(folder)
    path.write_text("\n".join([lines[0], lines[1][:30], *lines[2:]]))
    with pytest.raises(BadInput, match=r"answers.jsonl:2: not JSON"):
        sidebyside.read_finished(folder)


def test_answers_at_doses_are_no_part_of_a_comparison(tmp_path: Path) -> None:
    doses = make(tmp_path / "two", edit=lambda row: row | ({"dose": 5} if row["arm"] == "naive" else {}))
    assert sidebyside.joined([make(tmp_path / "one"), doses])["arms"] == ["one/base", "one/naive", "two/base"]


def test_what_is_no_finished_run_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    (folder / "answers.jsonl").unlink()
    with pytest.raises(BadInput, match="has no answers yet"):
        sidebyside.read_finished(folder)
    (folder / "answers.jsonl").write_text("")
    with pytest.raises(BadInput, match="no answers"):
        sidebyside.read_finished(folder)
    (folder / "manifest.json").write_text('{"schema": 1}')
    with pytest.raises(BadInput, match="not the manifest of a run"):
        sidebyside.read_finished(folder)


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    assert refusal(folder, tmp_path / "." / "one") == ["a run is named twice"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a-m-00000000", "b-m-00000000"], ["a-m", "b-m"]),
        (["a-m-00000000", "a-m-11111111"], ["00000000", "11111111"]),
        (["a-m-00000000", "a-m-11111111", "b-m-00000000"], ["00000000", "11111111", "b-m-00000000"]),
        (["x/a-m-00000000", "y/a-m-00000000"], ["x/a-m-00000000", "y/a-m-00000000"]),
    ],
)
def test_runs_get_the_shortest_names_that_differ(names: list[str], expected: list[str]) -> None:
    assert sidebyside.labels([Path(name) for name in names]) == expected


def test_other_code_is_a_warning(tmp_path: Path) -> None:
    folders = [make(tmp_path / "one"), make(tmp_path / "two")]
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    store.write_json(folders[1] / "manifest.json", manifest | {"code_version": "3"})
    assert any("code differs" in line for line in sidebyside.joined(folders)["warnings"])
