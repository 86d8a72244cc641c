"""What the four stage kinds share: trl's trainer set up one way, watched, resumed, checked and cleaned up after."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from repro import memory, store
from repro.errors import CannotHere, RunFailed
from repro.models import Model
from repro.stages import curve_steps
from repro.train import together
from repro.train.together import processes

PART = "part"  # in a stage's state: where the trainer writes, file after file; what is whole is moved out of it
REFERENCE = "ref"  # trl's name for the copy of an adapter that dpo and grpo compare with
WALKS = ("train", "zero_grad", "parameters")  # methods of the model that `_walk_less` replaces
_LOGGED = {"learning_rate": "lr", "reward": "reward", "kl": "kl", "rewards/accuracies": "accuracy"}


@dataclass(frozen=True)
class Hooks:
    """What the caller hears of a running stage, and two overrides: see `train.run_stage`."""

    on_progress: Callable[[int, int, float], None] | None = None
    on_step: Callable[[int, int, Model], None] | None = None
    checkpoint_every_minutes: float | None = 5.0
    micro_batch: int | None = None
    on_say: Callable[[str], None] | None = None
    stopping: Callable[[], bool] = lambda: False

    def say(self, line: str) -> None:
        """A line for the person who watches; without one, for the log."""
        (self.on_say or (lambda text: None))(line)


def micro_batch(model: Model, stage: Any, longest: int) -> int:
    """The largest divisor of a process's share of the batch that fits in memory, its rows having `longest` tokens.

    On a GPU the formula is the plan's own (repro.memory) on what is free now; on a CPU 2 GiB of activations.
    """
    config = model.base.config.get_text_config()
    share = stage.batch // processes()
    if model.device == "cpu":
        layers = config.num_hidden_layers * config.hidden_size * 68
        token = layers + 40 * config.hidden_size + 12 * config.vocab_size
        fitting = max(1, int((2 << 30) // (token * max(1, longest) * (2 if stage.kind == "dpo" else 1))))
        return next(size for size in memory.divisors(share) if size <= fitting)
    shape = memory.shape_of_config(config.to_dict())
    if shape is None:
        return 1
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    trained = sum(parameter.numel() for parameter in model.adapter_parameters().values())
    reference = 4 if stage.kind in ("dpo", "grpo") else 0
    room = free - trained * (6 + reference) - memory.dequantised(shape) - (256 << 20)
    return memory.largest_micro_batch(shape, stage.kind, share, longest, room)


def arguments(stage: Any, model: Model, out: Path, *, steps: int, micro: int, seed: int) -> dict[str, Any]:
    """The keyword arguments of transformers' TrainingArguments that all stages share."""
    cpu = model.device == "cpu"
    dtype = model.precision.partition(":")[0]
    shared = processes() > 1
    warmup = math.ceil(steps * (stage.warmup or 0))
    return {
        "output_dir": str(out / "state" / PART),
        "max_steps": steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": stage.batch // (micro * processes()),
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if stage.schedule == "constant" else stage.schedule,
        "warmup_steps": warmup,
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "seed": seed,
        "data_seed": seed,
        "optim": "adamw_torch" if cpu else "adamw_8bit",
        "use_cpu": cpu,
        "bf16": dtype == "bf16",
        "fp16": dtype == "fp16",
        **model.options(stage.kind),
        "train_sampling_strategy": "sequential",  # rows come ordered
        "dataloader_pin_memory": not cpu,
        "average_tokens_across_devices": shared,  # a token weighs the same whichever process has it
        **({"ddp_backend": "gloo" if cpu else "nccl", "ddp_find_unused_parameters": False} if shared else {}),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a NaN loss
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }


class Watch(TrainerCallback):
    """Writes log.jsonl, reports progress, keeps the adapter at its doses, saves state now and then, stops on NaN."""

    def __init__(self, model: Model, out: Path, doses: list[int], curve: list[int], hooks: Hooks) -> None:
        self.model, self.out, self.doses, self.curve, self.hooks = model, out, doses, curve, hooks
        self.every = math.inf if hooks.checkpoint_every_minutes is None else 60 * hooks.checkpoint_every_minutes
        self.losses: list[float] = []
        self.began = self.saved = self.stepped = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        log = self.out / "log.jsonl"
        done = log.read_text(encoding="utf-8").splitlines()[: state.global_step] if log.exists() else []
        store.write_atomic(log, "".join(line + "\n" for line in done))
        self.losses = [json.loads(line)["loss"] for line in done]
        if state.global_step == 0:
            self._probe(0, state.max_steps)

    def _probe(self, step: int, total: int) -> None:
        if step in self.curve and self.hooks.on_step:
            with undisturbed(self.model):
                self.hooks.on_step(step, total, self.model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step, total, loss = state.global_step, state.max_steps, logs["loss"]
        if not math.isfinite(loss):
            raise RunFailed(f"the loss became {loss} at step {step} of {total}: try a lower learning_rate")
        self.losses.append(loss)
        more = {short: logs[name] for name, short in _LOGGED.items() if name in logs}
        row = {"step": step, "loss": loss, **more, "seconds": round(time.monotonic() - self.began, 3)}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if step in self.doses:
            self.model.save_adapter(self.out / "doses" / str(step))
        self._probe(step, total)
        if self.hooks.on_progress:
            self.hooks.on_progress(step, total, loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        due = now + (now - self.stepped) - self.saved > self.every  # before one more step would make it late
        self.stepped = now
        if state.global_step < state.max_steps and together.first(due or self.hooks.stopping()):
            control.should_save, self.saved = True, now

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        keep_state(self.out, state.global_step)
        if self.hooks.stopping():
            raise SystemExit(f"stopped at step {state.global_step} of {state.max_steps}, which is saved")


@contextmanager
def undisturbed(model: Model) -> Iterator[None]:
    """Whatever is asked of the model inside leaves the training's random numbers and its train mode as they were."""
    mode = model.model.training
    with torch.random.fork_rng():
        yield
    model.model.train(mode)


def keep_state(out: Path, step: int) -> None:
    """What the trainer has just written becomes the state to go on from: whole, by one rename; older ones go."""
    written, kept = out / "state" / PART / f"checkpoint-{step}", out / "state" / f"checkpoint-{step}"
    for path in [*out.glob("*.jsonl"), *out.glob("doses/*/*")]:  # what a resumed stage takes for granted
        store.sync(path)
    with store.building(kept, _state_key(step)) as folder:
        for path in written.iterdir():
            path.rename(folder / path.name)
    shutil.rmtree(written.parent, ignore_errors=True)
    for other in (out / "state").iterdir():
        if other != kept:  # by name: by age, a clock that was set back would make the newest go
            shutil.rmtree(other, ignore_errors=True)


def resumed_step(out: Path) -> int:
    """The step of the last whole state that a killed run of this stage left in `out`; 0 when there is none."""
    steps = [int(path.name.rpartition("-")[2]) for path in (out / "state").glob("checkpoint-*")]
    whole = (step for step in sorted(steps, reverse=True) if _is_whole(out, step))
    return next(whole, 0)


def _state_key(step: int) -> str:
    return f"state of step {step}"


def _is_whole(out: Path, step: int) -> bool:
    """Whether the state of a step is as it was saved, and the log reaches as far."""
    log = out / "log.jsonl"
    lines = log.read_bytes().count(b"\n") if log.exists() else 0
    return lines >= step and store.is_done(out / "state" / f"checkpoint-{step}", _state_key(step))


def dose_steps(stage: Any, steps: int) -> list[int]:
    """The steps at which the adapter is kept: each fraction of `stage.doses`, at least step 1."""
    return sorted({min(steps, max(1, round(fraction * steps))) for fraction in getattr(stage, "doses", None) or []})


def build(trainer_class: type[Trainer], model: Model, **options: Any) -> Trainer:
    """trl's trainer around the model, with the adapter's weights as they were: fp32, not rounded.

    trl casts LoRA weights to bf16 under a 4-bit base (QLoRA's recipe); small updates would be rounded away, and a
    resumed run would differ. The reference that dpo and grpo copy from the adapter is frozen here, in fp32 too.
    """
    before = {name: parameter.detach().clone() for name, parameter in model.adapter_parameters().items()}
    trainer = trainer_class(model=model.model, processing_class=model.tokenizer, **options)
    parameters = dict(model.model.named_parameters())
    for name, value in before.items():
        parameters[name].data = value
        copy = parameters.get(name.replace(".default.", f".{REFERENCE}."))
        if copy is not None:
            copy.data = value.clone()
            copy.requires_grad_(False)
    return trainer


@contextmanager
def cleaned(model: Model) -> Iterator[None]:
    """On leaving, the model is as before the stage but for its adapter's weights: no hooks, copies, wraps or grads."""
    modules = (model.model, model.base)
    forwards = [module.__dict__.get("forward") for module in modules]
    hooks = model.base.get_input_embeddings()._forward_hooks
    own_hooks = set(hooks)
    try:
        yield
    finally:
        for module, forward in zip(modules, forwards, strict=True):
            module.__dict__.pop("forward", None)  # accelerate wraps it, trl replaces it
            if forward is not None:
                module.forward = forward
        for name in WALKS:
            model.model.__dict__.pop(name, None)
        if model.base.is_gradient_checkpointing:
            model.base.gradient_checkpointing_disable()
        for hook in set(hooks) - own_hooks:  # checkpointing's, which make the embeddings' output want a gradient
            del hooks[hook]
        if REFERENCE in model.model.peft_config:
            model.model.delete_adapter(REFERENCE)
        for parameter in model.model.parameters():
            parameter.grad = None
        model.ready(False)
        model.model.eval()


@torch.no_grad()
def _probe(model: Model, ids: list[int]) -> torch.Tensor:
    with undisturbed(model):
        model.model.eval()
        return model.model(input_ids=torch.tensor([ids[:64]], device=model.device), use_cache=False).logits.float()


def train(
    make: Callable[[int], Trainer],
    stage: Any,
    model: Model,
    out: Path,
    *,
    steps: int,
    longest: int,
    hooks: Hooks,
    probe: list[int],
    tokens: Callable[[int], tuple[int, int]],
) -> dict[str, Any]:
    """Run the trainer that `make(micro-batch)` builds, write adapter, doses and log to `out`; the stage's summary.

    longest: tokens of the longest row. probe: token ids whose logits must have changed. tokens(step) -> (seen, trained
    on) up to that step. A stage that was killed goes on from its last saved state in `out/state`, which is removed
    at the end; out of memory, it goes on from its last step with half the micro-batch.
    Raises RunFailed for a NaN, and for a stage that changed nothing; CannotHere where a single row does not fit.
    """
    micro = hooks.micro_batch or together.least(micro_batch(model, stage, longest), model.device)
    watch = Watch(model, out, dose_steps(stage, steps), curve_steps(getattr(stage, "curve", None), steps), hooks)
    before = _probe(model, probe)
    start = {name: value.detach().cpu().clone() for name, value in model.adapter_parameters().items()}
    shrunk = []
    while not _attempt(make, micro, model, out, watch):
        if processes() > 1:  # the others wait for this one in the middle of a step
            raise CannotHere(f"{stage.kind}: out of memory with micro-batch {micro} on each of {processes()} processes")
        smaller = next((size for size in memory.divisors(stage.batch) if size <= micro // 2), None)
        if smaller is None:
            raise CannotHere(f"{stage.kind}: out of memory even with one row of {longest} tokens at a time")
        shrunk.append(f"out of memory at step {resumed_step(out) + 1}: micro-batch {micro} -> {smaller}")
        hooks.say(f"{stage.kind}: {shrunk[-1]}")
        micro = smaller
        with torch.no_grad():  # the reference that dpo and grpo copy is the adapter as the stage found it
            for name, value in model.adapter_parameters().items():
                value.copy_(start[name])
    after = _probe(model, probe)
    bad = [name for name, value in model.adapter_parameters().items() if not torch.isfinite(value).all()]
    if bad or not torch.isfinite(after).all():
        raise RunFailed(f"{stage.kind}: the adapter holds NaN or infinity after training ({', '.join(bad[:2])})")
    if torch.equal(before, after):
        why = "every answer of a group got the same reward" if stage.kind == "grpo" else "is learning_rate 0?"
        raise RunFailed(f"{stage.kind}: training changed nothing, the logits are the same as before: {why}")
    model.save_adapter(out)
    shutil.rmtree(out / "state", ignore_errors=True)
    seen, trained = tokens(steps)
    return {
        "kind": stage.kind,
        "steps": steps,
        "micro_batch": micro,
        **({"shrunk": shrunk} if shrunk else {}),
        "tokens": seen,
        "trained_tokens": trained,
        "loss_first": watch.losses[0],
        "loss_last": watch.losses[-1],
        "logits_moved": round((after - before).abs().max().item(), 4),
        "seconds": round(time.monotonic() - watch.began, 3),
        "doses": [{"step": s, "tokens": tokens(s)[0], "folder": f"doses/{s}"} for s in watch.doses],
    }


def _walk_less(trainer: Trainer, model: Model) -> None:
    """Spares a CPU the walks over all modules at each step that change nothing: a tenth of a small model's step.

    transformers sets the train mode again, counts the parameters, and looks among the frozen ones for gradients.
    """
    if model.device != "cpu" or processes() > 1:
        return
    trained, outer = list(model.adapter_parameters().values()), model.model
    train = type(outer).train

    def zero_grad(set_to_none: bool = True) -> None:
        for parameter in trained:
            parameter.grad = None

    trainer.floating_point_ops = lambda inputs: 0  # type: ignore[method-assign]
    outer.train = lambda mode=True: outer if outer.training == mode else train(outer, mode)
    outer.zero_grad = zero_grad
    outer.parameters = lambda recurse=True: iter(trained)


def _attempt(make: Callable[[int], Trainer], micro: int, model: Model, out: Path, watch: Watch) -> bool:
    """Trains from the last saved state to the end; False when memory ran out, the state of the last step then saved."""
    with cleaned(model), model.dense() if processes() == 1 else nullcontext():
        model.ready(True)
        trainer = make(micro)
        _walk_less(trainer, model)
        if model.device == "cpu":  # with several processes it is cpu:0 else, which torch can't load a state to
            trainer.args.__dict__["_setup_devices"] = torch.device("cpu")
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch)
        shutil.rmtree(out / "state" / PART, ignore_errors=True)
        resumed = resumed_step(out)
        state = out / "state" / f"checkpoint-{resumed}"
        if resumed:
            model.read_weights(state)  # with a reference beside it transformers would restore only the reference
        try:
            trainer.train(resume_from_checkpoint=str(state) if resumed else None)
            return True
        except torch.OutOfMemoryError:
            pass  # outside of this block, where the exception's frames no longer hold the batch
        model.model.zero_grad(set_to_none=True)
        if model.device == "cuda":
            torch.cuda.empty_cache()
        if trainer.state.global_step > resumed:
            trainer._save_checkpoint(model.model, trial=None)
            keep_state(out, trainer.state.global_step)
        return False
