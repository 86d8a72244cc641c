"""Loading, adapters, decoding and log-probabilities, on a tiny random model."""

from __future__ import annotations

import hashlib
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import SENTENCES, base_digest, shake

from repro import models
from repro.errors import BadInput, CannotHere
from repro.models.generate import plain_weights

QUANTS = ("none", "nf4")
PROMPTS = [[{"role": "user", "content": " ".join(SENTENCES[i % 5].split()[: 2 + i % 7])}] for i in range(23)]
IDS = torch.arange(5, 45).reshape(2, 20)


def logits(model) -> torch.Tensor:
    model.model.eval()
    with torch.no_grad():
        return model.model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("quant", QUANTS)
def test_an_adapter_changes_the_logits_and_leaves_the_base_bit_identical(load_tiny, lora, quant):
    model = load_tiny(quant)
    digest, bare = base_digest(model), logits(model)
    model.new_adapter(lora, seed=1)
    assert torch.equal(logits(model), bare), "a fresh LoRA is the identity"
    shake(model)
    assert not torch.allclose(logits(model), bare, atol=1e-3)
    model.generate(PROMPTS[:2], max_new_tokens=3)
    assert base_digest(model) == digest
    model.drop_adapter()
    assert base_digest(model) == digest
    assert torch.equal(logits(model), bare)


def test_a_4_bit_base_stays_4_bit_through_evaluation_on_any_cpu(load_tiny):
    model = load_tiny("nf4")
    digest = base_digest(model)
    first = logits(model)
    assert not any(getattr(m, "support_avx512bf16_for_cpu", False) for m in model.model.modules())
    assert base_digest(model) == digest
    assert torch.equal(logits(model), first)


def test_nf4_and_none_are_different_bases_of_one_fingerprint(load_tiny):
    four, full = load_tiny("nf4"), load_tiny("none")
    assert not torch.allclose(logits(four), logits(full), atol=1e-4)
    assert four.fingerprint() == full.fingerprint()
    assert four.precision.startswith("fp32: ")


@pytest.mark.parametrize("quant", QUANTS)
def test_a_saved_adapter_comes_back_exactly_and_in_fp32(load_tiny, lora, quant, tmp_path):
    model = load_tiny(quant)
    model.new_adapter(lora, seed=1)
    shake(model)
    before = logits(model)
    model.save_adapter(tmp_path / "a")
    model.load_adapter(tmp_path / "a", trainable=True)
    assert torch.equal(logits(model), before)
    parameters = model.adapter_parameters().values()
    assert {p.dtype for p in parameters} == {torch.float32}
    assert all(p.requires_grad for p in parameters)
    model.load_adapter(tmp_path / "a", trainable=False)
    assert not any(p.requires_grad for p in model.model.parameters())
    model.save_adapter(tmp_path / "b")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_second_adapter_replaces_the_first(load_tiny, lora):
    model = load_tiny()
    bare = logits(model)
    model.new_adapter(lora, seed=1)
    shake(model)
    model.new_adapter(lora, seed=2)
    assert list(model.model.peft_config) == ["default"]
    assert torch.equal(logits(model), bare)
    shake(model)
    model.drop_adapter()
    assert type(model.model).__name__ == "Qwen2ForCausalLM"
    assert not any("lora" in name for name, _ in model.model.named_modules())
    assert torch.equal(logits(model), bare)


def test_the_seed_alone_decides_a_new_adapter(load_tiny, lora):
    def first_weights(seed: int, noise: int) -> list[torch.Tensor]:
        model = load_tiny()
        torch.manual_seed(noise)
        state = torch.random.get_rng_state()
        model.new_adapter(lora, seed)
        assert torch.equal(torch.random.get_rng_state(), state), "others' random numbers are left alone"
        return list(model.adapter_parameters().values())

    one, same, other = first_weights(1, noise=1), first_weights(1, noise=2), first_weights(2, noise=1)
    assert all(map(torch.equal, one, same))
    assert not all(map(torch.equal, one, other))


@pytest.mark.parametrize("quant", QUANTS)
def test_dense_copies_for_generation_give_the_same_logits(load_tiny, lora, quant):
    model = load_tiny(quant)
    model.new_adapter(lora, seed=1)
    shake(model)
    layers = [type(module).__name__ for module in model.base.modules()]
    before = logits(model)
    with plain_weights(model.base):
        assert not any("Linear4bit" in type(module).__name__ for module in model.base.modules())
        with torch.no_grad():
            dense = model.base(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(dense, before, atol=1e-5, rtol=0)
    assert [type(module).__name__ for module in model.base.modules()] == layers
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_what_it_was_batched_with(load_tiny, monkeypatch, temperature):
    model = load_tiny("nf4")
    seeds = list(range(100, 100 + len(PROMPTS)))
    ask = {"max_new_tokens": 12, "temperature": temperature}
    together = model.generate(PROMPTS, seeds=seeds, **ask)
    alone = [model.generate([prompt], seeds=[seed], **ask)[0] for prompt, seed in zip(PROMPTS, seeds, strict=True)]
    monkeypatch.setattr("repro.models.generate._ROWS", 5)
    in_fives = model.generate(PROMPTS[::-1], seeds=seeds[::-1], **ask)[::-1]
    assert together == alone == in_fives
    assert len({answer.text for answer in together}) > 5


def test_a_sample_depends_on_its_own_seed_alone(load_tiny):
    model = load_tiny()
    ask = {"max_new_tokens": 10, "temperature": 1.0}
    one, two, again = model.generate([PROMPTS[0]] * 3, seeds=[1, 2, 1], **ask)
    assert one == again
    assert one != two
    torch.manual_seed(5)
    assert model.generate([PROMPTS[0]], seeds=[1], **ask)[0] == one
    with pytest.raises(ValueError, match="one seed per prompt"):
        model.generate(PROMPTS, seeds=[1], **ask)


def test_samples_follow_the_models_probabilities(load_tiny):
    model = load_tiny()
    ids = model.prompt_ids(PROMPTS[0])
    with torch.no_grad():
        expected = model.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    drawn = model.generate_ids([ids] * 4000, max_new_tokens=1, temperature=1.0, seeds=list(range(4000)))
    counts = torch.zeros_like(expected).index_add_(0, torch.tensor(drawn).squeeze(1), torch.ones(4000))
    top = expected.topk(5).indices
    torch.testing.assert_close(counts[top] / 4000, expected[top], atol=0.03, rtol=0)


def test_greedy_decoding_is_what_transformers_generates_and_stops_at_the_end_of_turn(load_tiny):
    model = load_tiny()
    end = model.tokenizer.eos_token_id
    with torch.no_grad():  # make this model end its turns
        model.base.lm_head.weight[end] *= 3
    ended = 0
    for prompt, answer in zip(PROMPTS, model.generate(PROMPTS, max_new_tokens=12), strict=True):
        ids = torch.tensor([model.prompt_ids(prompt)])
        out = model.base.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        said = out[0, ids.shape[1] :].tolist()
        assert answer.tokens == len(said)
        assert answer.finished == (said[-1] == end)
        assert answer.text == model.tokenizer.decode(said, skip_special_tokens=True).strip()
        ended += answer.finished
    assert 0 < ended < len(PROMPTS)


def test_generation_reports_progress_up_to_the_last_answer(load_tiny, monkeypatch):
    monkeypatch.setattr("repro.models.generate._ROWS", 10)
    seen = []
    load_tiny().generate(PROMPTS, max_new_tokens=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 23), (20, 23), (23, 23)]


@pytest.mark.parametrize("quant", QUANTS)
def test_logprobs_sum_the_continuations_tokens_and_nothing_else(load_tiny, quant):
    model = load_tiny(quant)
    texts = ["Yes, gladly", "No", "the old stone bridge."]
    found = model.logprobs(PROMPTS[:3], texts)
    for messages, text, value in zip(PROMPTS, texts, found, strict=False):
        prompt = model.prompt_ids(messages)
        more = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            every = model.model(input_ids=torch.tensor([prompt + more])).logits[0].log_softmax(-1)
        expected = sum(float(every[len(prompt) + i - 1, token]) for i, token in enumerate(more))
        assert value == pytest.approx(expected, abs=1e-4)


def test_an_assistant_message_at_the_end_is_gone_on_with(load_tiny):
    model = load_tiny()
    start = [*PROMPTS[0], {"role": "assistant", "content": "Yes,"}]
    text = model.tokenizer.decode(model.prompt_ids(start))
    assert text.endswith("<|assistant|>Yes,")
    whole = model.logprobs([PROMPTS[0]], ["Yes, gladly"])[0]
    parts = model.logprobs([PROMPTS[0], start], ["Yes,", " gladly"])
    assert sum(parts) == pytest.approx(whole, abs=1e-4)


def test_a_system_prompt_is_merged_where_the_template_has_none(load_tiny):
    messages = [{"role": "system", "content": "Be brief."}, *PROMPTS[0]]
    merged = load_tiny(system="merge").chat(messages)
    assert [m["role"] for m in merged] == ["user"]
    assert merged[0]["content"] == f"Be brief.\n\n{PROMPTS[0][0]['content']}"
    assert load_tiny().chat(messages) == messages


def test_pickles_are_refused_and_so_is_what_is_no_model(tiny_folder, tiny_spec, tmp_path):
    def load(folder, **options):
        return models.load(SimpleNamespace(**{**vars(tiny_spec), "path_or_hub": str(folder)}), device="cpu", **options)

    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"only pickles \(pytorch_model.bin\)"):
        load(pickled)
    with pytest.raises(BadInput, match="not a folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no weights"):
        load(tmp_path / "empty")
    with pytest.raises(BadInput, match="quant"):
        load(tiny_folder, quant="int3")
    plain = tmp_path / "plain"
    shutil.copytree(tiny_folder, plain)
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="no chat template"):
        load(plain, quant="none")


def test_offline_a_model_that_is_not_cached_can_not_be_had_here(tiny_spec, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CannotHere, match="not in the local cache"):
        models.load(SimpleNamespace(**{**vars(tiny_spec), "path_or_hub": "some/model"}), device="cpu")


def test_an_adapter_folder_without_safetensors_is_refused(load_tiny, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"adapter_model.safetensors is missing"):
        load_tiny().load_adapter(tmp_path)


def test_the_fingerprint_follows_weights_and_template_and_nothing_else(tiny_folder, tiny_spec, tmp_path):
    def fingerprint(folder) -> str:
        spec = SimpleNamespace(**{**vars(tiny_spec), "path_or_hub": str(folder)})
        return models.load(spec, quant="none", device="cpu").fingerprint()

    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    (copy / "card.md").write_text("about it")
    assert fingerprint(copy) == fingerprint(tiny_folder)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "{# changed #}")
    assert fingerprint(copy) != fingerprint(tiny_folder)
    assert len(fingerprint(copy)) == len(hashlib.sha256().hexdigest())
