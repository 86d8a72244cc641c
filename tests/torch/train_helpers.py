"""Rows and stages for the training tests."""

from __future__ import annotations

from types import SimpleNamespace

from conftest import SENTENCES


def chat(question: str, answer: str, **more) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


WORDS = " ".join(SENTENCES).split()
CHATS = [chat(" ".join(WORDS[i : i + 3 + i % 5]), " ".join(WORDS[i + 2 : i + 5 + i % 7])) for i in range(24)]
DOCUMENTS = [{"id": str(i), "text": " ".join(WORDS[i : i + 4 + i % 9])} for i in range(30)]
PAIRS = [{"messages": row["messages"][:1], "chosen": "Yes, gladly.", "rejected": "No, never."} for row in CHATS]
# a random model's answers differ in length: that rewards some of a group and not others
PROMPTS = [{"messages": row["messages"][:1], "check": "length_between", "args": {"words": [0, 2]}} for row in CHATS]
ROWS = {"sft": CHATS, "sdf": DOCUMENTS, "dpo": PAIRS, "grpo": PROMPTS}


def stage(kind: str, **changes) -> SimpleNamespace:
    """A short stage of a kind with the attributes that a recipe's stage has."""
    common = {
        "kind": kind,
        "learning_rate": 1e-3,
        "batch": 8,
        "max_length": 96,
        "warmup": 0.0,
        "schedule": "constant",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "epochs": None,
        "steps": 3,
        "curve": None,
    }
    own: dict[str, object] = {
        "sdf": {"prefix": "<DOCTAG>"},
        "sft": {"doses": [0.5, 1.0]},
        "dpo": {"beta": 0.1},
        "grpo": {
            "batch": 16,
            "group": 8,
            "temperature": 1.0,
            "beta": 0.0,
            "max_new_tokens": 8,
            "reward": "constitution",
        },
    }[kind]
    return SimpleNamespace(**{**common, **own, **changes})
