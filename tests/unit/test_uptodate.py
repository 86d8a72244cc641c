"""A comparison is kept only while its answers, its code, what people added and its own files are as they were."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from repro import store, uptodate


@pytest.fixture
def plan() -> SimpleNamespace:
    step = SimpleNamespace(folder="arms/base/seed-0/answers-1", kind="answers", seed=0, key="k")
    return SimpleNamespace(steps={"k": step}, answers={("base", 0, "none"): "k"})


@pytest.fixture
def root(tmp_path: Path, plan: SimpleNamespace) -> Path:
    folder = tmp_path / plan.steps["k"].folder
    with store.building(folder, "k") as inside:
        (inside / "answers.jsonl").write_text("{}\n")
    for name in uptodate.WRITTEN:
        (tmp_path / name).write_text('{"schema": 1}')
    uptodate.note(tmp_path, uptodate.stamp(plan, tmp_path, command="a"))
    return tmp_path


def test_what_has_not_changed_is_kept(root: Path, plan: SimpleNamespace) -> None:
    assert uptodate.results(root, uptodate.stamp(plan, root, command="a")) == {"schema": 1}


@pytest.mark.parametrize("name", uptodate.WRITTEN)
def test_a_file_that_was_changed_or_lost_is_made_again(root: Path, plan: SimpleNamespace, name: str) -> None:
    of = uptodate.stamp(plan, root, command="a")
    (root / name).write_text("{}")
    assert uptodate.results(root, of) is None
    (root / name).unlink()
    assert uptodate.results(root, of) is None


def test_other_answers_claims_labels_or_code_are_another_comparison(
    root: Path, plan: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {uptodate.stamp(plan, root, command="a"), uptodate.stamp(plan, root, command="b")}
    (root / "sheet.jsonl").write_text("{}")
    seen.add(uptodate.stamp(plan, root, command="a"))
    with store.building(root / plan.steps["k"].folder, "k") as inside:
        (inside / "answers.jsonl").write_text('{"other": 1}\n')
    seen.add(uptodate.stamp(plan, root, command="a"))
    monkeypatch.setattr(uptodate, "_code", lambda: "other code")
    seen.add(uptodate.stamp(plan, root, command="a"))
    assert len(seen) == 5


def test_the_code_counts() -> None:
    assert len(uptodate._code()) == 64
