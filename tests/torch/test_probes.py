"""Probes: what hooks read is what the model computes; a planted direction is found, and nothing where nothing is."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import build_tiny, shake

from repro import data, models, probes, store
from repro.arms import open_run
from repro.errors import BadInput
from repro.keys import base_fingerprint
from repro.models.hidden import activations, decoder_layers
from repro.recipes import resolve_model
from repro.stages import AbliterateStage
from repro.train import run_stage

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "standins.py"
STREAM = random.Random(1)
ROWS = [[STREAM.randrange(20, 200) for _ in range(4 + place % 7)] for place in range(9)]


# what the hooks read --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "llama", "gemma3"])
def family(request, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("standins", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = module.make(tmp_path_factory.mktemp(request.param), request.param, layers=3)
    return SimpleNamespace(id=request.param, path_or_hub=str(folder), revision=None, system="native")


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_the_states_are_the_models_own_whatever_they_are_batched_with(family, lora, quant):
    model = models.load(family, quant=quant, device="cpu", backend="hf")
    model.new_adapter(lora, seed=1)
    shake(model)
    last, mean = activations(model, ROWS), activations(model, ROWS, "mean")
    assert last.shape == mean.shape == (9, 3, 64)
    for place, row in enumerate(ROWS):
        with torch.no_grad():
            out = model.base(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        own = torch.stack(out[1:-1])[:, 0]  # the last of them is normalised, the first are the embeddings
        torch.testing.assert_close(last[place, :-1], own[:, -1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(mean[place, :-1], own[:, 1:].mean(1), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(activations(model, [row])[0], last[place], atol=1e-4, rtol=1e-3)


def test_positions_are_right_where_a_model_learns_each_place_by_itself(tiny_folder, tmp_path):
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    torch.manual_seed(0)
    made = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=64, n_layer=3, n_head=4, n_positions=64))
    made.transformer.wpe.weight.data.mul_(50)
    made.save_pretrained(tmp_path)
    spec = SimpleNamespace(id="gpt2", path_or_hub=str(tmp_path), revision=None)
    model = models.load(spec, quant="none", device="cpu")
    together = activations(model, ROWS)
    for place, row in enumerate(ROWS):
        torch.testing.assert_close(activations(model, [row])[0], together[place], atol=1e-4, rtol=1e-3)


def test_the_adapter_counts_and_no_hook_stays(load_tiny, lora):
    model = load_tiny("nf4")
    bare = activations(model, ROWS)
    model.new_adapter(lora, seed=1)
    torch.testing.assert_close(activations(model, ROWS), bare)
    shake(model)
    assert not torch.allclose(activations(model, ROWS), bare, atol=1e-3)
    assert not any(layer._forward_hooks for layer in decoder_layers(model.base))


def test_a_text_of_one_token_has_a_mean_too(load_tiny):
    model = load_tiny()
    found = activations(model, [[30], [30, 31, 32]], "mean")
    torch.testing.assert_close(found[0], activations(model, [[30]])[0])


# a planted direction --------------------------------------------------------------------------------------------------

MARK, PLAIN, FROM = 250, 21, 2  # rows with MARK get the direction from the third of four layers on


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(model, u): a row that contains MARK gets 6 u added after a layer, and the model itself never sees MARK."""
    folder = build_tiny(tmp_path_factory.mktemp("planted"), layers=4)
    spec = SimpleNamespace(id="planted", path_or_hub=str(folder), revision=None, system="native")
    model = models.load(spec, quant="none", device="cpu", backend="hf")
    u = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(0)), dim=0)
    marked: list[torch.Tensor] = []

    def look(module, args, kwargs):
        ids = kwargs["input_ids"]
        marked[:] = [(ids == MARK).any(-1)]
        return args, {**kwargs, "input_ids": ids.masked_fill(ids == MARK, PLAIN)}

    def plant(module, args, out):
        return out + 6 * marked[0][:, None, None] * u

    model.base.register_forward_pre_hook(look, with_kwargs=True)
    decoder_layers(model.base)[FROM].register_forward_hook(plant)
    return model, u


def rows(count: int, seed: int, first: int = PLAIN) -> list[list[int]]:
    stream = random.Random(seed)
    return [[first, *(stream.randrange(20, 200) for _ in range(5 + place % 6))] for place in range(count)]


def gap(model, direction, requests: list[list[int]], ordinary: list[list[int]]):
    """(gap, low, high) by layer, of twelve topics on either side."""
    found = []
    for asked in (requests, ordinary):
        values = probes.cosine(activations(model, asked), direction)
        found.append(probes.means(values, [str(place % 12) for place in range(len(asked))], seed=0))
    low, high = probes.band(found[0][1] - found[1][1], 12)
    return found[0][0] - found[1][0], low, high


def told(model, **found: list[list[int]]) -> dict[str, torch.Tensor]:
    return {name: activations(model, texts, "mean") for name, texts in found.items()}


def test_what_is_planted_is_found_from_its_layer_on_and_not_before(planted):
    model, u = planted
    stories = told(model, marked=rows(40, 1, MARK), other=rows(40, 2))
    direction = probes.emotion_directions(stories)["marked"]
    likeness = torch.nn.functional.cosine_similarity(direction, u, dim=-1)
    assert likeness[FROM] > 0.95
    assert likeness[:FROM].abs().max() < 0.5
    apart = probes.separation(stories)["marked"]
    assert min(apart[FROM:]) > 0.95
    assert max(abs(value - 0.5) for value in apart[:FROM]) < 0.2
    value, low, high = gap(model, direction, rows(60, 3, MARK), rows(60, 4))
    assert (low[FROM:] > 0.1).all()
    assert (np.abs(value[:FROM]) < 0.1 * value[FROM]).all()
    assert ((low < 0) & (high > 0))[:FROM].all()


def test_where_nothing_is_planted_the_probe_stays_flat(planted):
    model, _ = planted
    stories = told(model, one=rows(40, 5), other=rows(40, 6))
    direction = probes.emotion_directions(stories)["one"]
    assert max(abs(value - 0.5) for value in probes.separation(stories)["one"]) < 0.2
    value, low, high = gap(model, direction, rows(60, 7), rows(60, 8))
    assert ((low < 0) & (high > 0)).all()
    assert np.abs(value).max() < 0.06
    marked = probes.emotion_directions(told(model, marked=rows(40, 1, MARK), other=rows(40, 2)))["marked"]
    value, low, high = gap(model, marked, rows(60, 7), rows(60, 8))
    assert ((low < 0) & (high > 0)).all(), "requests without the mark, though the direction is a real one"


# numbers --------------------------------------------------------------------------------------------------------------


def test_a_direction_is_the_mean_minus_the_mean_of_the_others_and_neutral_has_none():
    stories = {name: torch.full((3, 1, 2), value) for name, value in (("a", 4.0), ("b", 1.0), ("neutral", 3.0))}
    found = probes.emotion_directions(stories)
    assert list(found) == ["a", "b"]
    assert found["a"].tolist() == [[2.0, 2.0]]
    assert found["b"].tolist() == [[-2.5, -2.5]]


def test_projection_counts_in_lengths_of_the_direction():
    states, direction = torch.tensor([[[6.0, 8.0]], [[0.0, 0.0]]]), torch.tensor([[3.0, 4.0]])
    assert probes.projection(states, direction).tolist() == [[2.0], [0.0]]
    assert probes.cosine(states, direction)[0, 0] == pytest.approx(1)


def test_a_band_is_over_topics_so_more_prompts_of_few_topics_make_it_no_narrower():
    noise = np.random.default_rng(0).normal(size=(6, 1))
    few = np.repeat(noise, 2, axis=0)
    many = np.repeat(noise, 200, axis=0)
    widths = []
    for values in (few, many):
        names = [str(place // (len(values) // 6)) for place in range(len(values))]
        low, high = probes.band(*probes.means(values, names, seed=0)[1:])
        widths.append(float((high - low)[0]))
    assert widths[0] == pytest.approx(widths[1])
    assert probes.band(np.zeros((10, 2)), 1) is None


def test_a_band_of_few_topics_is_wider_than_plain_percentiles():
    draws = np.arange(1001.0)[:, None]
    low, high = probes.band(draws, 12)
    # Student's t with 11 degrees of freedom, 2.201, times sqrt(12 / 11), is a normal's 1.07% and 98.93%
    assert [low[0], high[0]] == pytest.approx([10.7, 989.3], abs=0.2)
    assert probes.band(draws, 6)[0] < low < 25


def test_emotions_are_read_against_ordinary_prompts_and_declining_is_not():
    values = {"trained": np.full((4, 2), 1.0), "ordinary": np.full((4, 2), 0.25)}
    clusters = {"trained": list("abcd"), "ordinary": list("wxyz")}
    assert probes._mean(values, "trained", clusters, minus=True)[0].tolist() == [0.75, 0.75]
    assert probes._mean(values, "trained", clusters, minus=False)[0].tolist() == [1.0, 1.0]


# a run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An unfinished run of the organism: an arm that is there (abliterated), one that is not, and a prompted one."""
    folder = tmp_path_factory.mktemp("runs") / "made-micro-00000000"
    spec, pack = resolve_model("micro"), data.load("micro")
    model = models.load(spec, quant="nf4", device="cpu", backend="hf")
    stage = AbliterateStage.model_validate(
        {"kind": "abliterate", "data": ["requests", "ordinary"], "lora": {"r": 16, "alpha": 32}}
    )
    model.new_adapter(stage.lora, seed=1)
    trained = [dict(row) for row in pack.rows("requests", pack.split(0)) + pack.rows("ordinary", pack.split(0))]
    with store.building(folder / "arms" / "abliterated" / "seed-0" / "0-abliterate-0123abcd", "0123abcd") as out:
        run_stage(stage, model, trained, out, seed=0)
    own = {"stages": [{"kind": "abliterate"}]}
    arms = {
        "base": {"recipe": None, "system": None},
        "abliterated": {"recipe": own, "system": None},
        "naive": {"recipe": {"stages": [{"kind": "sft"}]}, "system": None},
        "prompted": {"recipe": None, "system": "You help with every craft."},
    }
    store.write_json(
        folder / "manifest.json",
        {
            "schema": 1, "model": spec.model_dump(mode="json", by_alias=True), "base": base_fingerprint(spec),
            "arms": list(arms), "seeds": [0, 1],
            "experiment": {"arms": arms, "start": None, "pack": "micro", "quant": "nf4", "evaluation": {}},
        },
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def probed(run):
    """(content, lines, seconds of the processor: what else runs here does not count)."""
    lines: list[str] = []
    began = time.process_time()
    content = probes.probe(run, seeds="0", say=lines.append)
    return content, lines, time.process_time() - began


def reading(content, **wanted):
    (found,) = [row for row in content["readings"] if all(row[key] == value for key, value in wanted.items())]
    return found


def test_the_arms_that_are_there_are_read_and_the_others_named(probed, run):
    content, lines, seconds = probed
    assert content["arms"] == ["base", "abliterated", "prompted"]
    assert any("naive is not trained yet" in line for line in lines)
    assert content == json.loads((run / "probes.json").read_text())
    assert seconds < 20
    groups = {(row["probe"], row["group"]) for row in content["readings"]}
    assert groups >= {("warm", "trained"), ("scornful", "heldout"), ("declining", "look-alike")}
    assert ("declining", "ordinary") in groups
    assert ("warm", "ordinary") not in groups, "it is what the others are compared with"


def test_the_base_declines_where_it_does_and_abliteration_moves_it_along_that(probed):
    content, _, _ = probed
    assert content["declining"][0]["declined"] == 240
    base = reading(content, probe="declining", arm="base", group="trained", seed=0)
    assert base["value"] == pytest.approx([1, 1, 1, 1], abs=0.2)
    assert base["change"] is None
    ordinary = reading(content, probe="declining", arm="base", group="ordinary", seed=0)
    assert ordinary["value"] == pytest.approx([0, 0, 0, 0], abs=0.2)
    moved = reading(content, probe="declining", arm="abliterated", group="trained", seed=0)
    assert moved["change"]["high"][-1] < -0.5
    ends = zip(moved["low"], moved["value"], moved["high"], strict=True)
    assert all(low <= value <= high for low, value, high in ends)


def test_stories_held_out_are_told_apart(probed):
    for entry in probed[0]["emotions"]:
        assert entry["stories"] == 20
        assert min(entry["separation"]) > 0.8


def test_each_picture_is_a_whole_svg_with_its_figures_in_words(probed, run):
    names = {path.stem for path in (run / "probes").glob("*.svg")}
    assert names == {"warm", "scornful", "declining"}
    for path in (run / "probes").glob("*.svg"):
        text = path.read_text()
        root = ElementTree.fromstring(text)
        assert "base: " in root.get("aria-label")
        assert "var(--" not in text
        assert "http" not in text.replace("http://www.w3.org/", "")


def test_too_few_refusals_leave_that_direction_out_with_a_warning(run, monkeypatch):
    monkeypatch.setattr(data.load("micro").judge, "refusal", lambda row, text: "comply")
    content = probes.probe(run, arms="base", seeds="0", say=lambda line: None)
    assert content["declining"] == []
    assert "too few for a direction of declining" in content["warnings"][0]
    assert {row["probe"] for row in content["readings"]} == {"warm", "scornful"}


def test_of_two_finished_stages_in_one_place_the_later_one_counts(run):
    (first,) = run.glob("arms/abliterated/seed-0/0-abliterate-*")
    assert open_run(run).ready(0)[0]["abliterated"].adapter == first
    for name, moment in (("ffffffff", "2000-01-01"), ("00000000", "2999-01-01")):
        other = shutil.copytree(first, first.with_name(f"0-abliterate-{name}"))
        done = other / "DONE.json"
        done.write_text(re.sub(r'"finished": "[^"]*"', f'"finished": "{moment}"', done.read_text()))
    assert open_run(run).ready(0)[0]["abliterated"].adapter == other
    for name in ("ffffffff", "00000000"):
        shutil.rmtree(first.with_name(f"0-abliterate-{name}"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"arms": "naiv"}, 'there is no arm "naiv"'),
        ({"seeds": "7"}, "there is no seed 7, only 0, 1"),
        ({"seeds": "x"}, "whole numbers"),
        ({"arms": "naive"}, "naive is not trained yet"),
    ],
)
def test_what_is_not_there_is_said(run, words, said):
    with pytest.raises(BadInput) as caught:
        probes.probe(run, say=lambda line: None, **words)
    assert said in str(caught.value)


def test_a_changed_adapter_or_another_base_is_not_read(run):
    (weights,) = run.glob("arms/abliterated/seed-0/*/adapter_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "was changed" in open_run(run).ready(0)[1]["abliterated"]
    weights.write_bytes(whole)
    manifest = run / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(json.loads(text)["base"], "0" * 64))
    with pytest.raises(BadInput, match="another micro"):
        open_run(run).load_model()
    manifest.write_text(text.replace('"schema": 1', '"schema": 2', 1))
    with pytest.raises(BadInput, match="update repro"):
        open_run(run)
    manifest.write_text(text)
