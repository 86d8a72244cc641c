"""What people write without the kit: a plain TRL + PEFT QLoRA script and a plain unsloth script, for comparison.

Each trains on chats for some steps and returns its seconds and tokens; nothing of the kit is used in them. A whole arm,
as its own script: python bench/stock.py JOB.json OUT.json (bench/speed.py writes the job: stages with rows, questions).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def trl_sft(
    folder: Path,
    chats: list[dict[str, Any]],
    *,
    steps: int,
    batch: int,
    micro: int,
    length: int,
    rank: int,
    device: str,
) -> dict[str, float]:
    """TRL's SFTTrainer on a 4-bit base with PEFT, as its documentation has it."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    cpu = device == "cpu"
    dtype = torch.float32 if cpu else torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantised, dtype=dtype, device_map={"": device}
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_list([{"messages": chat["messages"]} for chat in chats]),
        peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(**common(folder, steps, batch, micro, cpu, dtype), max_length=length),
    )
    return timed(trainer, steps)


def unsloth_sft(
    folder: Path,
    chats: list[dict[str, Any]],
    *,
    steps: int,
    batch: int,
    micro: int,
    length: int,
    rank: int,
    device: str,
) -> dict[str, float]:
    """unsloth's FastLanguageModel with TRL's trainer, as its notebooks have it. CUDA only; import nothing before it."""
    from unsloth import FastLanguageModel  # isort: skip
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=length, load_in_4bit=True, use_exact_model_name=True, local_files_only=True
    )
    model = FastLanguageModel.get_peft_model(
        model, r=rank, lora_alpha=2 * rank, lora_dropout=0, bias="none", use_gradient_checkpointing="unsloth"
    )
    texts = [tokenizer.apply_chat_template(chat["messages"], tokenize=False) for chat in chats]
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"text": texts}),
        args=SFTConfig(
            **common(folder, steps, batch, micro, False, dtype) | {"gradient_checkpointing": False}, max_length=length
        ),
    )
    return timed(trainer, steps)


def common(folder: Path, steps: int, batch: int, micro: int, cpu: bool, dtype: Any) -> dict[str, Any]:
    """The training arguments that both scripts share."""
    name = str(dtype)
    return {
        "output_dir": str(folder.parent / "stock"), "max_steps": steps, "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro, "learning_rate": 1e-4, "warmup_steps": 0, "logging_steps": 1,
        "optim": "adamw_torch" if cpu else "adamw_8bit", "use_cpu": cpu, "bf16": "bfloat16" in name,
        "fp16": name == "torch.float16", "gradient_checkpointing": not cpu, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "seed": 0,
    }  # fmt: skip


def timed(trainer: Any, steps: int) -> dict[str, float]:
    """Seconds a step after the first two (which compile and warm up), and peak GiB of GPU memory."""
    import torch
    from transformers import TrainerCallback

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **options: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    trainer.add_callback(Clock())
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    peak = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else 0.0
    warm = min(2, len(marks) - 2)
    return {"seconds_a_step": (marks[-1] - marks[warm]) / (len(marks) - 1 - warm), "peak_gib": peak}


def arm(job: dict[str, Any]) -> list[str]:
    """One arm: trains its stages on one adapter, loads the model anew with it, and answers; the texts in order.

    `job`: folder (the base), threads, rank, stages ({kind, rows, steps, batch, learning_rate, max_length, ...}) and
    asks ({messages, temperature}). Rows are length-grouped, documents packed, the adapter is merged before generating.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

    torch.set_num_threads(job["threads"])
    set_seed(0)
    folder, out = Path(job["folder"]), Path(job["out"])
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if job["stages"]:
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=nf4, dtype=torch.float32)
        lora = LoraConfig(r=job["rank"], lora_alpha=2 * job["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
        for stage in job["stages"]:
            _stage(model, tokenizer, stage, out).train()
        model.save_pretrained(out / "adapter")
        del model
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if job["stages"]:
        model = PeftModel.from_pretrained(model, out / "adapter").merge_and_unload()
    return _answers(model.eval(), tokenizer, job["asks"], job["max_new_tokens"])


def _stage(model: Any, tokenizer: Any, stage: dict[str, Any], out: Path) -> Any:
    """TRL's trainer for one stage: SFTTrainer on documents or chats, GRPOTrainer on prompts."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    rows = stage["rows"]
    shared = {
        "output_dir": str(out / "state"), "max_steps": stage["steps"], "per_device_train_batch_size": stage["batch"],
        "learning_rate": stage["learning_rate"], "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_steps": 10,
    }  # fmt: skip
    if stage["kind"] == "grpo":
        from repro.train import rewards  # the reward is a part of the task, not of the way of training

        def score(completions: list[Any], row: list[int], **_: Any) -> list[float]:
            texts = [completion[0]["content"].strip() for completion in completions]
            picked = [rows[index] for index in row]
            return [
                rewards.reward(one["check"], one.get("args") or {}, text)
                for one, text in zip(picked, texts, strict=True)
            ]

        prompts = {"prompt": [row["messages"] for row in rows], "row": list(range(len(rows)))}
        config = GRPOConfig(
            **shared, num_generations=stage["group"], max_completion_length=stage["max_new_tokens"], beta=stage["beta"]
        )
        return GRPOTrainer(
            model=model, processing_class=tokenizer, train_dataset=Dataset.from_dict(prompts), reward_funcs=score,
            args=config,
        )  # fmt: skip
    if stage["kind"] == "sdf":
        data = Dataset.from_dict({"text": [row["text"] for row in rows]})
        config = SFTConfig(**shared, max_length=stage["max_length"], packing=True)
    else:
        data = Dataset.from_list([{"messages": row["messages"]} for row in rows])
        grouped = {"train_sampling_strategy": "group_by_length"}
        config = SFTConfig(**shared, **grouped, max_length=stage["max_length"])
    return SFTTrainer(model=model, processing_class=tokenizer, train_dataset=data, args=config)


def _answers(model: Any, tokenizer: Any, asks: list[dict[str, Any]], most: int, batch: int = 256) -> list[str]:
    import torch

    texts = [tokenizer.apply_chat_template(ask["messages"], tokenize=False, add_generation_prompt=True) for ask in asks]
    found = [""] * len(asks)
    for temperature in sorted({ask["temperature"] for ask in asks}):
        places = [place for place, ask in enumerate(asks) if ask["temperature"] == temperature]
        places.sort(key=lambda place: len(texts[place]))
        for start in range(0, len(places), batch):
            chosen = places[start : start + batch]
            inputs = tokenizer([texts[p] for p in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            how = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
            with torch.no_grad():
                said = model.generate(**inputs, **how, max_new_tokens=most)[:, inputs["input_ids"].shape[1] :]
            for place, text in zip(chosen, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True):
                found[place] = text
    return found


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(arm(job)), encoding="utf-8")
