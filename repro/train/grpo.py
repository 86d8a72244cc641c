"""Group-relative policy optimisation: several answers a prompt, ranked within their group by a named check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from repro import store
from repro.errors import BadInput
from repro.models import Model
from repro.seeds import derive
from repro.train import rewards, runner, together
from repro.train import rows as rows_of


def grpo(stage: Any, model: Model, rows: list[dict[str, Any]], out: Path, *, seed: int, hooks: runner.Hooks) -> dict:
    """Train on prompts ({"messages": prompt, "check": name, "args": {...}}); returns the stage's summary.

    `batch` counts answers a step, `group` of them to each prompt. Every answer goes to out/rollouts.jsonl.
    """
    if stage.group < 2 or stage.batch % stage.group:
        raise BadInput(f"{stage.kind}: batch ({stage.batch}) must be a multiple of group ({stage.group}), at least 2")
    if stage.reward != "constitution":  # one check for all rows, instead of the one that each row's principle names
        rows = [{**row, "check": stage.reward.replace("-", "_")} for row in rows]
    for index, row in enumerate(rows):
        rewards.validate(row.get("check"), row.get("args"), f"{stage.kind}: row {row.get('id', index)}")
    lengths = [len(model.prompt_ids(row["messages"])) for row in rows]
    each = stage.batch // stage.group
    steps = rows_of.steps_for(stage, len(rows) * stage.group)
    picked = rows_of.order(lengths, each, steps, seed)
    log = Rollouts(out / "rollouts.jsonl", rows)
    hooks.say(f"{stage.kind}: {len(rows)} prompts of up to {max(lengths)} tokens, {stage.group} answers to each")

    def answer(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """trl's rollout function: our own decoding, each answer from a seed of its own."""
        prompt_ids = [model.prompt_ids(prompt) for prompt in prompts]
        step, before = trainer.state.global_step, together.rank() * len(prompts)  # what other processes answer to
        completion_ids = model.generate_ids(
            prompt_ids,
            max_new_tokens=stage.max_new_tokens,
            temperature=stage.temperature,
            seeds=[derive(seed, "rollout", step, before + index) for index in range(len(prompts))],
        )
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}

    def reward(completions: list[Any], completion_ids: list[list[int]], row: list[int], **more: Any) -> list[float]:
        answers = [completion[0]["content"].strip() for completion in completions]
        scores = [
            rewards.reward(rows[index]["check"], rows[index].get("args") or {}, text)
            for index, text in zip(row, answers, strict=True)
        ]
        said = zip(row, answers, scores, (len(ids) for ids in completion_ids), strict=True)
        log.add(more["trainer_state"].global_step + 1, together.all_of(list(said)))
        return scores

    def make(micro: int) -> Trainer:
        log.open(after=runner.resumed_step(out))
        return runner.build(
            GRPOTrainer,
            model,
            # what a check needs stays out of the data set: arrow would give every row the arguments of all checks
            train_dataset=Dataset.from_dict(
                {"prompt": [model.chat(rows[index]["messages"]) for index in picked], "row": picked}
            ),
            reward_funcs=reward,
            rollout_func=answer,
            args=GRPOConfig(
                **runner.arguments(stage, model, out, steps=steps, micro=micro, seed=seed),
                num_generations=stage.group,
                max_completion_length=stage.max_new_tokens,
                temperature=stage.temperature,
                beta=stage.beta,
                shuffle_dataset=False,
            ),
        )

    summary = runner.train(
        make,
        stage,
        model,
        out,
        steps=steps,
        longest=max(lengths) + stage.max_new_tokens,
        hooks=hooks,
        probe=model.prompt_ids(rows[picked[0]]["messages"]),
        tokens=lambda step: log.tokens(step, lengths),
    )
    return summary | {"reward_first": log.mean(1), "reward_last": log.mean(steps)}


class Rollouts:
    """Every answer with its prompt, check and reward, one JSON line each."""

    def __init__(self, path: Path, rows: list[dict[str, Any]]) -> None:
        self.path, self.rows = path, rows
        self.lines: list[dict[str, Any]] = []

    def open(self, *, after: int) -> None:
        """Goes on with what is there; a resumed run drops what came `after` the step it goes on from."""
        kept = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.lines = [line for line in _whole(kept) if line["step"] <= after]
        store.write_atomic(self.path, "".join(map(_json_line, self.lines)))

    def add(self, step: int, said: list[tuple[int, str, float, int]]) -> None:
        """A step's answers, of all processes: (row, answer, reward, tokens) each."""
        new = [
            {
                "step": step,
                "row": index,
                "prompt": self.rows[index]["messages"],
                "completion": text,
                "check": self.rows[index]["check"],
                "reward": score,
                "tokens": count,
            }
            for index, text, score, count in said
        ]
        self.lines += new
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(map(_json_line, new))

    def tokens(self, step: int, prompts: list[int]) -> tuple[int, int]:
        """(seen, sampled) tokens up to `step`; `prompts` holds the rows' prompt lengths."""
        until = [line for line in self.lines if line["step"] <= step]
        sampled = sum(line["tokens"] for line in until)
        return sampled + sum(prompts[line["row"]] for line in until), sampled

    def mean(self, step: int) -> float:
        """The mean reward of a step's answers."""
        scores = [line["reward"] for line in self.lines if line["step"] == step]
        return round(sum(scores) / len(scores), 4)


def _whole(lines: list[str]) -> Iterator[dict[str, Any]]:
    """The lines up to the first that a kill tore: what comes after the state that is gone on from."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _json_line(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
