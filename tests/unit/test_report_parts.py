"""What the report page is made of: packed answers, curves along the training, and the figures that may be shared."""

from __future__ import annotations

import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import made_run
import pytest

from repro import runfolder as folder
from repro.errors import CannotHere
from repro.report import curves, page, plots, sharing, transcripts


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run.make(tmp_path / "made")


# -- transcripts -----------------------------------------------------------------------------------------------------


def unpacked(content: dict[str, Any]) -> dict[str, Any]:
    """What the page gets."""
    return json.loads(gzip.decompress(base64.b64decode(transcripts.pack(content)[0])))


def test_texts_are_kept_once_and_rows_are_numbers() -> None:
    content = transcripts.collect(made_run.some_answers())
    assert len(content["rows"]) == 4 * 3 * 60
    assert len(content["items"]) == 60
    assert sorted(content["labels"]) == ["comply", "refuse", "right"]
    texts = unpacked(content)["texts"]
    assert len(texts) == len(set(texts)) == len(content["texts"])
    assert all(isinstance(value, int | float | None) for row in content["rows"] for value in row)


def test_answers_of_earlier_doses_are_counted_and_left_out() -> None:
    content = transcripts.collect([made_run.answer(), made_run.answer(dose=19), made_run.answer(dose=38)])
    assert (len(content["rows"]), content["dosed"]) == (1, 2)


def test_unscored_unfinished_and_ill_formed_answers_stay_what_they_are() -> None:
    rows = [made_run.answer(label=None, value=None, finished=False), made_run.answer(well_formed=False, value=-1.25)]
    first, second = transcripts.collect(rows)["rows"]
    assert (first[5], first[7], first[8]) == (None, 1, None)
    assert (second[5], second[7], second[8]) == (0, 2, -1.25)


def test_a_judges_confidence_and_reason_come_along() -> None:
    rows = [made_run.answer(p={"refuse": 0.93, "comply": 0.07}, why="It declines."), made_run.answer(seed=1, p=0.5)]
    content = transcripts.collect(rows)
    assert [row[9] for row in content["rows"]] == [0.93, 0.5]
    assert unpacked(content)["texts"][content["rows"][0][10]] == "It declines."


def test_a_text_that_only_its_hash_was_kept_of_is_marked_as_sealed() -> None:
    seal = "sha256:" + "0123456789abcdef" * 4
    assert [seal, 0] in unpacked(transcripts.collect([made_run.answer(text=seal)]))["texts"]


def test_texts_are_cut_shorter_until_the_page_is_small() -> None:
    chance = random.Random(1)
    rows = [made_run.answer(f"r-{n}", text=chance.randbytes(2500).hex()) for n in range(900)]
    packed_text, cap = transcripts.pack(transcripts.collect(rows))
    assert cap == 2000
    assert len(packed_text) <= transcripts.LIMIT


# -- curves ----------------------------------------------------------------------------------------------------------


def test_the_dose_curve_is_the_mean_over_seeds_of_percent_by_tokens() -> None:
    entries = [
        {"arm": "naive", "seed": s, "step": 10 * d, "tokens": 100 * d + s, "metric": "refusal_trained",
         "group": "trained", "n": 10, "value": v}
        for s, values in ((0, (1.0, 0.2)), (1, (0.5, 0.0))) for d, v in enumerate(values, 1)
    ]  # fmt: skip
    (curve,) = curves.behaviour({"doses": entries})
    assert curve.lines["naive"] == [curves.Point(100.5, 75.0, 50.0, 100.0), curves.Point(200.5, 10.0, 0.0, 20.0)]


def test_a_single_dose_is_no_curve() -> None:
    entry = {"arm": "naive", "seed": 0, "step": 5, "tokens": 9, "metric": "refusal_trained", "group": "trained", "n": 1,
             "value": 1.0}  # fmt: skip
    assert curves.behaviour({"doses": [entry]}) == []


def test_losses_leave_out_what_is_no_number_and_rewards_take_their_place(run: Path) -> None:
    log = run / "arms/naive/seed-0/0-sft-0a1b2c3d/log.jsonl"
    log.write_text('{"step": 1, "loss": NaN}\n{"step": 1, "loss": 3.0}\nbroken\n{"step": 2, "loss": "x"}\n')
    grpo = made_run.stage(run, "character", 0, "1-grpo-00000000", {"kind": "grpo"})
    made_run.jsonl(grpo / "log.jsonl", [{"step": n, "loss": 0.0, "reward": n / 4} for n in (2, 3)])
    found = {curve.title: curve for curve in curves.losses(folder.read(run).stages)}
    assert set(found) == {"loss in sft", "reward in grpo"}
    assert found["loss in sft"].lines["naive"][0].high == pytest.approx(3.0, abs=1.0)
    assert [point.mean for point in found["reward in grpo"].lines["character"]] == [0.5, 0.75]


def test_a_metric_that_nobody_was_scored_on_is_not_drawn() -> None:
    entries = [one for one in made_run.metrics() if one["axis"] == "refusal"]
    empty = {"metric": "overrefusal", "n": 0, "value": None, "ci": None}
    unscored = [{**one, **empty} for one in entries if one["metric"] == "refusal_trained"]
    drawn = plots.forest("refusal", [*entries, *unscored], made_run.ARMS, "base")
    assert drawn == plots.forest("refusal", entries, made_run.ARMS, "base")
    assert plots.forest("refusal", unscored, made_run.ARMS, "base") == ""
    some = [{**one, "value": None, "ci": None} if one["arm"] == "naive" else one for one in entries]
    assert "naive – (n 120)" in plots.forest("refusal", some, made_run.ARMS, "base")


# -- the probe's pictures ---------------------------------------------------------------------------------------------


def test_what_the_probe_found_is_drawn_and_what_cannot_be_drawn_is_named(run: Path) -> None:
    readings = [
        {"probe": probe, "measure": measure, "arm": arm, "seed": None, "group": group, "n": 12,
         "value": [0.1, 0.2, 0.3], "low": [0.0, 0.1, 0.2], "high": [0.2, 0.3, 0.4]}
        for probe, measure in (("guilty", "cosine"), ("declining", "place")) for arm in ("base", "naive")
        for group in ("trained", "heldout", "look-alike")
    ]  # fmt: skip
    content = {"schema": 1, "arms": ["base", "naive"], "emotions": [{"emotion": "guilty"}], "declining": [{}],
               "readings": readings}  # fmt: skip
    (run / "probes.json").write_text(json.dumps(content))
    html = page.write(run).read_text()
    assert html.count("cosine, requests minus ordinary prompts. ") == 1
    assert 'href="#inside"' in html
    (run / "probes.json").write_text('{"schema": 1, "arms": []}')
    html = page.write(run).read_text()
    assert "probes.json: can&#39;t be drawn" in html
    assert 'id="inside"' not in html


# -- share.json ------------------------------------------------------------------------------------------------------


def test_what_is_shared_has_figures_and_no_text_by_a_model_and_no_path(tmp_path: Path) -> None:
    run = made_run.make(tmp_path / "made", content=made_run.results(warnings=["secret words"]))
    content = sharing.share(run)
    text = (run / "share.json").read_text()
    assert json.loads(text) == content
    assert content["model"] == "made-1B"
    assert content["hardware"]["gpu"] == [{"name": "NVIDIA T4", "memory": "15360 MiB"}]
    assert content["complete"] is True
    assert len(content["metrics"]) == len(made_run.METRICS) * 4
    assert content["claims"][0]["verdict"] == "shown"
    assert content["stages"][0] == {
        "arm": "control", "seed": 0, "kind": "sft", "prompting": "none", "precision": "fp16", "steps": 60,
        "tokens": 61000, "seconds": 30.5, "peak_gib": 5.25, "micro_batch": 4,
    }  # fmt: skip
    for absent in ("Sorry", "Tell me", "secret", "somebody", "/home", str(tmp_path), "repro run"):
        assert absent not in text, absent
    assert len(text) < 40_000


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"id": "made-1B", "path_or_hub": "somebody/made-1B"}, "made-1B"),
        ({"id": "micro", "path_or_hub": "/somewhere/repro/micro/weights", "pack": "micro"}, "micro"),
        ({"id": "my-thesis", "path_or_hub": "/home/me/my-thesis"}, "local"),
        ({"id": "my-thesis", "path_or_hub": "./my-thesis"}, "local"),
        ({"id": "gpt", "path_or_hub": "openai:gpt@http://intranet:8000"}, "served"),
    ],
)
def test_a_model_of_ones_own_is_shared_without_its_name(tmp_path: Path, model: dict[str, Any], said: str) -> None:
    run = made_run.make(tmp_path / "made", about=made_run.manifest(model=model))
    assert sharing.share(run)["model"] == said


def test_where_nothing_can_be_written_is_said_in_a_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.store, "write_atomic", full)
    with pytest.raises(CannotHere, match=r"can't write .*share\.json: No space left on device"):
        sharing.share(run)


def test_half_a_run_can_be_shared_and_says_so(run: Path) -> None:
    (run / "results.json").unlink()
    content = sharing.share(run)
    assert content["complete"] is False
    assert content["metrics"] == []
    assert len(content["stages"]) == 6
