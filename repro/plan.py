"""Turns an experiment into ordered steps with content keys: what is trained, what is asked, what is there already.

Needs no torch: a key is made of hashes of the stage, its rows, what came before it, and the base model's files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro import data, estimate, evals, store
from repro.data import sources
from repro.errors import BadInput
from repro.evals import public
from repro.keys import (
    answers_inputs,
    asked,
    base_files,
    base_fingerprint,
    common_inputs,
    experiment_hash,
    key_of,
    stage_inputs,
)
from repro.schema import Arm, Experiment, ModelSpec
from repro.seeds import derive
from repro.stages import EVALUATION_JUDGES

START = "start"  # the folder of the stages that all arms share; no arm can have this name


@dataclass(frozen=True)
class Step:
    """One thing to do and to keep: a training stage, or one arm's answers. Picklable: it travels to a worker."""

    key: str
    kind: str  # a stage's kind, or "answers"
    arm: str
    seed: int
    index: int  # place in the arm's chain of stages
    upstream: str | None  # key of the stage whose adapter it starts from or asks; None: the bare base
    start: str | None = None  # key of the stage that the arm starts from (dpo rejects that model's answers)
    stage: Any = None
    rows: tuple[dict[str, Any], ...] = ()
    prompting: str = "none"
    items: tuple[evals.Item, ...] = ()  # a stage's: the probes of its curve
    dose_items: tuple[evals.Item, ...] = ()
    dosed: str | None = None  # key of the stage whose kept doses are asked too
    max_new_tokens: int = 0
    seconds: float | None = None
    spec: Any = None  # another base than the plan's, and an adapter from elsewhere: for models that were not made here
    adapter: Path | None = None
    cell: str = ""  # of a sweep, where not all cells have this step
    inputs: dict[str, Any] = field(default_factory=dict)  # what the key was made of; kept with the outcome

    @property
    def folder(self) -> str:
        """Where its outcome goes, relative to the run folder."""
        name = f"answers-{self.key[:8]}" if self.kind == "answers" else f"{self.index}-{self.kind}-{self.key[:8]}"
        return f"arms/{plain_name(self.arm)}/seed-{self.seed}/{name}"

    @property
    def title(self) -> str:
        """How the step is named to a person."""
        what = self.kind if self.prompting == "none" else f"{self.kind} ({self.prompting})"
        return f"{self.arm} seed {self.seed}{self.cell and f' ({self.cell})'}: {what}"


def plain_name(text: str) -> str:
    """A name as a file's: whatever is no letter, digit, dot, dash or underscore becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


@dataclass
class Plan:
    """An experiment's steps in an order in which each comes after what it needs."""

    experiment: Experiment
    spec: ModelSpec
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    prompting: tuple[str, ...]
    digest: str  # of the whole experiment, seeds and choice of arms left out: names the run folder
    base: str  # fingerprint of the base model
    pack: Any
    gpu: estimate.Gpu | None = None  # what it is planned for; None: the CPU
    base_files: dict[str, str] = field(default_factory=dict)  # {name: sha256} where the base is a folder
    prompts: list[dict[str, Any]] = field(default_factory=list)  # of public sets, asked beside the suite
    steps: dict[str, Step] = field(default_factory=dict)  # by key
    stages: dict[tuple[str, int], list[str]] = field(default_factory=dict)  # keys of an arm's own and shared stages
    answers: dict[tuple[str, int, str], str] = field(default_factory=dict)  # key by arm, seed, prompting

    @property
    def folder_name(self) -> str:
        """The run folder's name."""
        return store.folder_name(self.experiment.name, self.spec.id, self.digest)


def arm_of(experiment: Experiment, name: str) -> Arm | None:
    """The arm of a name; None for the models of `repro eval`, which no recipe describes."""
    return next((arm for known, arm in experiment.arms.items() if known == name), None)


def build(
    experiment: Experiment,
    spec: ModelSpec,
    *,
    arms: Sequence[str] | None = None,
    gpu: estimate.Gpu | None = None,
    base: str | None = None,
) -> Plan:
    """The plan of an experiment for the chosen arms (default: all; base is always among them).

    `base` is the model's fingerprint where it is known already.

    Raises BadInput for data that is empty, evaluation prompts that occur in training, and a reward that evaluates.
    """
    chosen = tuple(arm for arm in experiment.arms if arms is None or arm in arms or arm == "base")
    strategies = tuple(experiment.evaluation.prompting)
    files = base_files(spec) if base is None else {}
    plan = Plan(
        experiment, spec, chosen, tuple(experiment.seeds), strategies, experiment_hash(experiment),
        base or base_fingerprint(spec, files), data.load(experiment.pack), gpu, files,
    )  # fmt: skip
    problems: list[str] = []
    for seed in plan.seeds:
        split = plan.pack.split(seed)
        rows = _Rows(plan.pack, split, seed, experiment.evaluation.axes)
        asked: dict[str, Any] = {name: suites(plan, split, name) for name in strategies}
        bare = asked.get("none") or suites(plan, split, "none")
        _check_data(plan, bare[0], rows, seed, problems)
        items = _Items(asked)
        shared = experiment.start.stages if experiment.start else []
        for arm in chosen:
            member = arm_of(experiment, arm)
            own = member.recipe if member else None
            keys = _chain(plan, START, seed, experiment.start, rows, [])
            keys = _chain(plan, arm, seed, own, rows, keys)
            plan.stages[arm, seed] = keys
            for name in strategies:
                _ask(plan, arm, seed, name, items, keys[len(shared) :])
    if problems:
        raise BadInput(problems)
    return plan


# training -------------------------------------------------------------------------------------------------------------


class _Rows:
    """The training rows of one seed, made once: arms that name the same source get the same rows; and its probes."""

    def __init__(self, pack: Any, split: Any, seed: int, axes: Sequence[str]) -> None:
        self.probes = tuple(evals.probes(pack, split, axes))
        self._pack, self._split, self._seed = pack, split, derive(seed, "data")
        self._made: dict[str, tuple[list[dict[str, Any]], str]] = {}

    def of(self, stage: Any, constitution: Any = None) -> tuple[tuple[dict[str, Any], ...], list[dict[str, Any]]]:
        """A stage's rows in the order of its sources, and {source, rows, sha256} of each source.

        A grpo row's check is the one that the row's principle names in the constitution, or the stage's own reward.
        """
        rows: list[dict[str, Any]] = []
        made_of = []
        for source in stage_sources(stage):
            kind = None if stage.kind == "abliterate" else stage.kind  # its rows are of two sorts
            name = store.canonical([kind, source.model_dump(mode="json")])
            if name not in self._made:
                made = sources.read(source, self._pack, self._split, self._seed, kind=kind)
                self._made[name] = (made, store.hash_rows(made))
            own, digest = self._made[name]
            rows += own
            made_of.append({"source": sources.name_of(source), "rows": len(own), "sha256": digest})
        if stage.kind == "grpo":
            rows = [row | {"check": _check_of(row, stage, constitution)} for row in rows]
            checks = [row["check"] for row in rows]
            made_of.append({"source": "the checks", "rows": len(checks), "sha256": store.hash_rows(checks)})
        return tuple(rows), made_of


def _check_of(row: dict[str, Any], stage: Any, constitution: Any) -> str:
    if stage.reward != "constitution":
        return stage.reward
    checks = {principle.id: principle.check for principle in constitution.principles}
    if row.get("principle") not in checks:
        raise BadInput(
            f"grpo: row {row.get('id')} bears on the principle {row.get('principle')!r}, which the constitution lacks; "
            f"it has {', '.join(checks)}"
        )
    return checks[row["principle"]]


def stage_sources(stage: Any) -> list[Any]:
    """The data sources of a stage, under whichever key its kind has them."""
    return list(stage.prompts if stage.kind == "grpo" else stage.data)


def _chain(plan: Plan, arm: str, seed: int, recipe: Any, rows: _Rows, before: list[str]) -> list[str]:
    """Adds the steps of a recipe, which follow `before` on one adapter; the keys of all of them, `before` included."""
    keys, start = list(before), before[-1] if before else None
    for stage in recipe.stages if recipe else []:
        own, made_of = rows.of(stage, recipe.constitution)
        upstream, index = keys[-1] if keys else None, len(keys)
        asked = rows.probes if getattr(stage, "curve", None) else ()
        inputs = stage_inputs(_common(plan, stage.kind, seed), index, stage, made_of, upstream,
                              start if stage.kind == "dpo" else None, asked)  # fmt: skip
        key = key_of(inputs)
        seconds = estimate.stage_seconds(plan, stage, own, asked)
        # a stage that two arms share has one key, hence one step: the first arm's
        plan.steps.setdefault(
            key, Step(key, stage.kind, arm, seed, index, upstream, start, stage, own, items=asked,
                      max_new_tokens=evals.PROBE_TOKENS, seconds=seconds, inputs=inputs)
        )  # fmt: skip
        keys.append(key)
    return keys


def _common(plan: Plan, kind: str, seed: int) -> dict[str, Any]:
    return common_inputs(kind, plan.base, plan.base_files, plan.experiment.quant, plan.spec, seed)


def _check_data(plan: Plan, asked: list[evals.Item], rows: _Rows, seed: int, problems: list[str]) -> None:
    """Adds what is wrong with the training rows: no prompt that is `asked` occurs in them, no reward is what the
    evaluation measures with, and each has what its kind of stage needs."""
    experiment = plan.experiment
    recipes = [member.recipe for arm in plan.arms if (member := arm_of(experiment, arm))] + [experiment.start]
    stages = [(stage, recipe.constitution) for recipe in recipes if recipe is not None for stage in recipe.stages]
    training: dict[str, dict[str, Any]] = {}
    found: list[str] = []
    for stage, constitution in stages:
        own, _ = rows.of(stage, constitution)
        training |= {store.canonical(row): row for row in own}
        found += _faults(stage, own, plan.pack.judge)
    leaked = evals.overlap(asked, training.values()) if training else []
    found += [f'seed {seed}: the evaluation prompt "{prompt}" occurs in the training rows' for prompt in leaked[:5]]
    if len(leaked) > 5:
        found.append(f"seed {seed}: and {len(leaked) - 5} more evaluation prompts")
    problems += [problem for problem in dict.fromkeys(found) if problem not in problems]


NEEDED = {"sdf": ("text",), "sft": ("messages",), "dpo": ("messages", "chosen"), "grpo": ("messages", "check"),
          "abliterate": ("messages",)}  # fmt: skip


def _faults(stage: Any, rows: Iterable[dict[str, Any]], judge: Any) -> list[str]:
    for row in rows:
        lacking = [key for key in NEEDED[stage.kind] if not row.get(key)]
        if lacking:
            return [f"{stage.kind}: row {row.get('id')} has no {' and no '.join(lacking)}"]
    if stage.kind != "grpo":
        return []
    faults = []
    for check in sorted({str(row["check"]) for row in rows} | {stage.reward}):
        if check.replace("-", "_") in EVALUATION_JUDGES or hasattr(judge, check.replace("-", "_")):
            faults.append(f'grpo: the check "{check}" is what the evaluation measures with; use another reward')
    if faults:
        return faults
    from repro.train import rewards

    for row in rows:
        try:
            rewards.validate(row["check"], row.get("args"), f"grpo: row {row.get('id')}")
        except BadInput as error:
            return error.lines
    return []


# asking ---------------------------------------------------------------------------------------------------------------


def suites(plan: Plan, split: Any, prompting: str) -> tuple[list[evals.Item], list[evals.Item]]:
    """The full suite and the small one for doses, under one prompting strategy."""
    evaluation = plan.experiment.evaluation
    axes, samples = evaluation.axes, evaluation.samples
    full = evals.suite(plan.pack, split, axes=axes, samples=samples, prompting=prompting)
    text = plan.pack.prompting(prompting)
    full += [evals.with_system(item, text) for item in public.items(plan.prompts)]
    small = evals.suite(plan.pack, split, axes=axes, samples=samples, prompting=prompting, subset="dose")
    return limited(full, evaluation.items), limited(small, evaluation.items)


def limited(items: list[evals.Item], most: int | None) -> list[evals.Item]:
    """At most `most` counted units a metric, chosen by their names: every condition of a chosen unit stays."""
    if most is None:
        return items
    kept = set()
    for metric in {item.metric for item in items}:
        units = {item.unit for item in items if item.metric == metric}
        ranked = sorted(units, key=lambda unit: (derive(0, "items", unit), unit))
        kept |= {(metric, unit) for unit in ranked[:most]}
    return [item for item in items if (item.metric, item.unit) in kept]


class _Items:
    """What one seed's arms are asked, full and for doses, and what goes into a key of it: made once, arms share it."""

    def __init__(self, suites: dict[str, Any]) -> None:
        self._suites = suites  # by prompting strategy
        self._made: dict[tuple[str, str | None], Any] = {}

    def of(self, prompting: str, system: str | None) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
        if (prompting, system) not in self._made:
            full, small = (tuple(evals.with_system(one, system) for one in part) for part in self._suites[prompting])
            self._made[prompting, system] = full, small, asked(full), asked(small)
        return self._made[prompting, system]


def _ask(plan: Plan, arm: str, seed: int, prompting: str, items: _Items, own: list[str]) -> None:
    keys = plan.stages[arm, seed]
    member = arm_of(plan.experiment, arm)
    full, small, *shown = items.of(prompting, member.system if member else None)
    dosed = next((key for key in reversed(own) if getattr(plan.steps[key].stage, "doses", None)), None)
    if prompting != plan.prompting[0]:
        dosed = None
    upstream = keys[-1] if keys else None
    most = plan.experiment.evaluation.max_new_tokens
    common = _common(plan, "answers", seed)
    inputs = answers_inputs(common, arm, upstream, dosed, most, prompting, *shown)
    key = key_of(inputs)
    doses = len(plan.steps[dosed].stage.doses) if dosed else 0
    parts = [estimate.answers_seconds(plan, full, most), estimate.answers_seconds(plan, small, most, rounds=doses)]
    seconds = sum(part for part in parts if part is not None) if None not in parts else None
    plan.steps[key] = Step(
        key, "answers", arm, seed, len(keys), upstream, prompting=prompting, items=full,
        dose_items=small if dosed else (), dosed=dosed, max_new_tokens=most, seconds=seconds, inputs=inputs,
    )  # fmt: skip
    plan.answers[arm, seed, prompting] = key


def expected_seconds(todo: Iterable[Step], workers: int) -> float | None:
    """How long the steps take so many workers, in seconds: no less than the longest chain. None where not estimated."""
    chains: dict[tuple[str, int], float] = {}
    for step in todo:
        if step.seconds is None:
            return None
        place = (step.arm, step.seed)
        chains[place] = chains.get(place, 0.0) + step.seconds
    return max(sum(chains.values()) / workers, *chains.values()) + estimate.SECONDS_TO_START if chains else 0.0


# what is there already ------------------------------------------------------------------------------------------------


def locate(step: Step, root: Path) -> Path:
    """Where a step's outcome is, or will be: its own folder, or another arm's that made the same thing (same key)."""
    own = root / step.folder
    if step.kind != "answers" and not own.exists():
        for other in sorted(root.glob(f"arms/*/seed-{step.seed}/{own.name}")):
            if (store.read_done(other) or {}).get("key") == step.key:
                return other
    return own


def missing(plan: Plan, root: Path) -> dict[str, str]:
    """The steps that have to be done, with the reason; what rests on one of them has to be done too."""
    reasons: dict[str, str] = {}
    for key, step in plan.steps.items():
        needed = [other for other in (step.upstream, step.dosed) if other in reasons]
        why = store.why_not_done(locate(step, root), key)
        if needed and why is None:
            why = f"{plan.steps[needed[0]].title} is made again"
        if why is None:
            continue
        if why == "not there yet" and any(_same_place(older, step) for older in _older(step, root)):
            why = "its settings, data or code changed"
        reasons[key] = why
    return reasons


def link_shared(plan: Plan, root: Path) -> None:
    """A stage that two arms share is trained once: in the other arm's folder stands a link to it."""
    for (arm, seed), keys in plan.stages.items():
        for key in keys:
            target = locate(plan.steps[key], root)
            link = root / "arms" / arm / f"seed-{seed}" / target.name
            if target.is_dir() and target != link and not link.exists() and not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                try:
                    link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
                except OSError:  # some network disks know no links; nothing depends on them
                    return


def _older(step: Step, root: Path) -> list[Path]:
    folder = root / step.folder
    return [path for path in folder.parent.glob(folder.name[:-8] + "????????") if path != folder]


def _same_place(folder: Path, step: Step) -> bool:
    summary = (store.read_done(folder) or {}).get("summary", {})
    return bool(summary.get("prompting", "none") == step.prompting)
