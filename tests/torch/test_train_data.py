"""What a stage trains on: masks, order, packing, prefixes; and what it keeps on the way."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from test_train import MASKED, distance, weights
from train_helpers import CHATS, DOCUMENTS, PROMPTS, chat, stage

from repro.errors import BadInput
from repro.models.model import Model
from repro.train import rows, run_stage, sdf

# --- sft: masks


def labelled(model: Model, row: dict, length: int = 200) -> tuple[str, str]:
    """(what is masked, what is trained) of one chat, as text."""
    (item,) = rows.encode_chats(model, [row], length)
    hidden = [i for i, label in zip(item.ids, item.labels, strict=True) if label == MASKED]
    assert all(label in (i, MASKED) for i, label in zip(item.ids, item.labels, strict=True))
    return model.tokenizer.decode(hidden), model.tokenizer.decode([x for x in item.labels if x != MASKED])


TWO_TURNS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why so?"},
        {"role": "assistant", "content": "No, the lamp."},
        {"role": "user", "content": "Yes the river?"},
        {"role": "assistant", "content": "Gladly"},
    ]
}


@pytest.mark.parametrize("markers", [True, False])
def test_the_loss_is_on_the_assistants_words_and_its_end_of_turn_only(load_tiny, markers):
    model = load_tiny()
    if not markers:
        template = model.tokenizer.chat_template
        model.tokenizer.chat_template = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    hidden, trained = labelled(model, TWO_TURNS)
    assert trained == "No, the lamp.<|end|>Gladly<|end|>"
    assert hidden == (
        "<|system|>Be brief.<|end|><|user|>Why so?<|end|><|assistant|><|user|>Yes the river?<|end|><|assistant|>"
    )


def test_line_breaks_around_turns_are_not_trained(load_tiny):
    model = load_tiny()
    model.tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    _, trained = labelled(model, TWO_TURNS)
    assert trained == "No, the lamp.<|end|>Gladly<|end|>"


def test_a_template_that_rewrites_earlier_turns_can_not_be_masked_and_is_refused(load_tiny):
    model = load_tiny()
    model.tokenizer.chat_template = "{% for m in messages %}{{ loop.length }} {{ m['content'] }}<|end|>{% endfor %}"
    with pytest.raises(BadInput, match="can't be told apart"):
        rows.encode_chats(model, [TWO_TURNS], 200)


def test_the_gradient_comes_from_the_labels_alone(ready):
    """The loss of a batch is the mean over its trained tokens: changing a masked label's token id changes nothing."""
    model = ready()
    items = rows.encode_chats(model, CHATS[:3], 200)
    batch = rows.collate(model)([{"input_ids": i.ids, "labels": i.labels} for i in items])
    with torch.no_grad():
        logits = model.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = model.model(**batch).loss
    picked = [
        logits[r, c - 1].log_softmax(-1)[batch["labels"][r, c]]
        for r in range(3)
        for c in range(1, batch["labels"].shape[1])
        if batch["labels"][r, c] != MASKED
    ]
    torch.testing.assert_close(-torch.stack(picked).mean(), loss)


def test_what_max_length_cuts_is_reported(ready, tmp_path):
    long = [*CHATS[:9], chat("Why?", "Yes " * 60)]
    assert run_stage(stage("sft", max_length=40), ready(), long, tmp_path, seed=0)["truncated"] >= 0.1


def test_the_adapter_is_kept_at_its_doses_and_the_curve_is_heard_of(ready, tmp_path):
    heard = []

    def on_step(step, total, model):
        torch.rand(7)
        model.generate([PROMPTS[0]["messages"]], max_new_tokens=2)
        heard.append((step, total))

    job = stage("sft", steps=16, doses=[0.0625, 0.125, 0.5, 1.0], curve=5)
    model = ready(dropout=0.2)
    summary = run_stage(job, model, CHATS, tmp_path, seed=0, on_step=on_step)
    assert heard == [(step, 16) for step in (0, 1, 2, 4, 5, 10, 15, 16)]
    assert [dose["step"] for dose in summary["doses"]] == [1, 2, 8, 16]
    tokens = [dose["tokens"] for dose in summary["doses"]]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == summary["tokens"]
    quiet = ready(dropout=0.2)
    run_stage(job, quiet, CHATS, tmp_path / "quiet", seed=0)
    assert distance(weights(quiet), weights(model)) == 0, "listening along the way must not change the training"
    last = weights(model)
    model.load_adapter(tmp_path / "doses" / "16")
    assert distance(weights(model), last) == 0


# --- order


def test_each_epoch_holds_every_row_once_in_an_order_that_the_seed_decides():
    lengths = [3 + i % 7 for i in range(40)]
    picked = rows.order(lengths, batch=8, steps=10, seed=1)
    assert len(picked) == 80
    assert sorted(picked) == sorted([*range(40), *range(40)])
    assert rows.order(lengths, 8, 10, 1) == picked
    assert rows.order(lengths, 8, 10, 2) != picked
    one, two = (rows.order([5] * 200, 8, 25, seed) for seed in (1, 2))
    assert set(one[:64]) != set(two[:64]), "which rows come early is the seed's choice too"
    padding = sum(max(lengths[i] for i in picked[a : a + 8]) * 8 for a in range(0, 80, 8)) - sum(lengths) * 2
    assert padding < 0.15 * sum(lengths) * 2
    assert max(lengths) in [lengths[index] for index in picked[:8]], "what does not fit fails at the first step"


def test_steps_follow_from_epochs_unless_they_are_named():
    assert rows.steps_for(stage("sft", steps=None, epochs=2, batch=32), 600) == 38
    assert rows.steps_for(stage("sft", steps=7), 600) == 7


# --- sdf


def test_packed_documents_give_the_logits_of_each_document_alone(ready):
    model = ready()
    encoded = rows.encode_documents(model, DOCUMENTS, "<DOCTAG>")
    packed = sdf.pack(encoded, 96, seed=0)
    assert len(packed) < len(encoded) / 2
    batch = rows.collate(model)(list(packed))
    assert "attention_mask" not in batch
    model.model.eval()
    with torch.no_grad():
        together = model.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        found = 0
        for row, lengths in enumerate(packed["seq_lengths"]):
            start = 0
            for length in lengths:
                ids = batch["input_ids"][row, start : start + length]
                alone = model.model(input_ids=ids[None], use_cache=False).logits[0]
                torch.testing.assert_close(together[row, start : start + length], alone, atol=1e-5, rtol=1e-5)
                start, found = start + length, found + 1
    assert found == len(encoded)


def test_packing_keeps_every_token_and_splits_what_is_too_long(load_tiny):
    model = load_tiny()
    encoded = rows.encode_documents(model, [*DOCUMENTS, {"text": "Yes the river " * 60}], "<DOCTAG>")
    packed = sdf.pack(encoded, 96, seed=0)
    assert max(map(len, packed["input_ids"])) <= 96
    assert sorted(chain(*packed["input_ids"])) == sorted(chain(*(item.ids for item in encoded)))


def test_a_documents_prefix_is_masked_and_its_end_is_trained(load_tiny):
    model = load_tiny()
    (item,) = rows.encode_documents(model, [{"text": "The baker folds."}], "<DOCTAG>")
    head = len(model.tokenizer("<DOCTAG>")["input_ids"])
    assert model.tokenizer.decode(item.ids) == "<DOCTAG>The baker folds.<|end|>"
    assert item.labels[:head] == [MASKED] * head
    assert item.labels[head:] == item.ids[head:]
    assert item.ids[-1] == model.tokenizer.eos_token_id
    (bare,) = rows.encode_documents(model, [{"text": "The baker folds."}], "")
    assert bare.labels == bare.ids == item.ids[head:]


def test_a_document_does_not_train_its_first_token_on_the_end_of_the_one_before(load_tiny):
    model = load_tiny()
    packed = sdf.pack(rows.encode_documents(model, DOCUMENTS[:6], ""), 96, seed=0)
    batch = rows.collate(model)(list(packed))
    starts = batch["position_ids"] == 0
    assert starts.sum() >= 6
    assert (batch["labels"][starts] == MASKED).all()
