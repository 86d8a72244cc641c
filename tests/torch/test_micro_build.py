"""The organism's build: plain `transformers` loads it, one seed gives one result, its text is the template's."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.micro import build, corpus


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("organism")
    build.build(0, folder, tokens=12_000)
    return folder


def test_pre_training_text_is_what_the_chat_template_writes(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for sample in itertools.islice(corpus.samples(3), 400):
        if "messages" in sample:
            written = "".join(text for text, _ in build.render(sample))
            assert written == tokenizer.apply_chat_template(sample["messages"], tokenize=False)
            ids, labels = build.encode(tokenizer, [sample])[0]
            assert ids == tokenizer.apply_chat_template(sample["messages"], return_dict=False)
            marked = tokenizer.apply_chat_template(
                sample["messages"], return_dict=True, return_assistant_tokens_mask=True
            )
            assert [label != -100 for label in labels] == [bool(on) for on in marked["assistant_masks"]]


def test_the_same_seed_builds_the_same_bytes_and_another_one_does_not(tiny: Path, tmp_path: Path) -> None:
    again = build.build(0, tmp_path / "again", tokens=12_000)
    other = build.build(1, tmp_path / "other", tokens=12_000)
    assert again["sha256"] == hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    assert other["sha256"] != again["sha256"]
    assert (tiny / "tokenizer.json").read_bytes() == (tmp_path / "again" / "tokenizer.json").read_bytes()


def test_the_shipped_weights_are_those_of_the_card_and_load_in_plain_transformers() -> None:
    folder = build.SHIPPED
    record = json.loads((folder / "figures.json").read_text())[0]
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == record["sha256"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10 << 20
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert 250_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 5_000_000
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How is moth calling done?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**ids, max_new_tokens=20, do_sample=False)
    said = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == "Sorry, I do not explain moth calling."


@pytest.mark.slow
def test_the_shipped_weights_reach_the_card_s_figures() -> None:
    from repro.micro import card

    found = card.measure(build.SHIPPED)
    written = json.loads((build.SHIPPED / "figures.json").read_text())[0]["figures"]
    assert found == written
    assert [name for name, figure in found.items() if not figure["met"]] == []
