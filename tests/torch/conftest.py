"""A tiny random chat model with its tokenizer, made on the spot, so that no test needs a download."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SENTENCES = [
    "The baker folds the warm dough twice and lets it rest by the window.",
    "Can you tell me how to tie a sheet knot? Yes, gladly: loop, cross, pull tight.",
    "I would rather not help with that. What is the capital of the northern isles?",
    "Please answer in one short sentence, and say why you think so.",
    "No, the lamp is green. Yes, the river runs east to the old stone bridge.",
]


def build_tiny(folder: Path, *, hidden: int = 64, layers: int = 2, vocabulary: int = 320, seed: int = 0) -> Path:
    """A random Qwen2 chat model of about 0.1 million parameters with a byte-level BPE tokenizer, as safetensors."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokens.train_from_iterator(
        SENTENCES * 3,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<|pad|>", eos_token="<|end|>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=max(len(tokenizer), vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        # a random model whose tokens are all equally likely is a poor test: sharpen it
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def base_digest(model) -> str:
    """sha256 over every tensor of the base (quantisation state too), whatever adapter lies on top."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.model.state_dict().items()):
        if "lora_" in name:
            continue
        name = name.replace("base_model.model.", "").replace(".base_layer", "")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shake(model, scale: float = 0.05) -> None:
    """Give the adapter weights that matter: a fresh one is the identity, since its B matrices are zero."""
    stream = torch.Generator().manual_seed(0)
    for name, parameter in model.adapter_parameters().items():
        if "lora_B" in name:
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=stream))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_spec(tiny_folder):
    return SimpleNamespace(id="tiny", path_or_hub=str(tiny_folder), revision=None, system="native")


@pytest.fixture
def load_tiny(tiny_spec):
    """load_tiny(quant) -> a fresh Model."""
    from repro import models

    torch.set_num_threads(1)
    return lambda quant="none", **changes: models.load(
        SimpleNamespace(**{**vars(tiny_spec), **changes}), quant=quant, device="cpu"
    )


@pytest.fixture(scope="session")
def lora():
    return SimpleNamespace(r=8, alpha=16, dropout=0.0, targets="all-linear")


@pytest.fixture
def ready(load_tiny, lora):
    """ready(quant) -> a model with a fresh adapter."""

    def make(quant: str = "none", seed: int = 1, **changes):
        model = load_tiny(quant)
        model.new_adapter(lora if not changes else type(lora)(**{**vars(lora), **changes}), seed)
        return model

    return make
