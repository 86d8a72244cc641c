"""Asks models that exist already (presets, folders, hub ids, adapters) what a run asks its arms: `repro eval`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from repro import data, doctor, estimate, pairs, recipes, store
from repro.errors import BadInput, CannotHere, ReproError
from repro.keys import CODE_VERSION, asked, base_fingerprint, key_of, template_of, versions
from repro.pairs import Pair, PairFile
from repro.plan import Plan, Step, locate, suites
from repro.run import Ask, Failed, Interrupted, execute, seed_list
from repro.schema import ModelSpec

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
THINKING_TOKENS = 2048  # for models that reason aloud first: what is cut off is unscored
# memory that a model of so many GiB in 16 bits takes: NF4 weights with 16-bit embeddings, and room to answer in
NF4_SHARE, ROOM_GIB = 0.37, 1.5


@dataclass(frozen=True)
class Found:
    """One model to ask: its name in the table, its base, its adapter (None: the bare base), what identifies both."""

    name: str
    spec: ModelSpec
    adapter: Path | None
    digest: str


@dataclass(frozen=True)
class Family:
    """A parent and its models, asked: results.json's content, the models' names in it, its main part's strategy."""

    content: dict[str, Any]
    names: dict[str, str]
    first: str


def evaluate(
    models: list[str], pack: str, quant: str, ask: Ask, console: Console, prompts: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Asks all of them the suite, compared with the first; the content of results.json. `prompts` are rows of public
    prompt sets (data.public.load_all), asked beside it."""
    began = time.monotonic()
    if ask.offline:
        doctor.go_offline()
    experiment = _experiment("eval", models[0], pack, quant, ask, _defaults(pack))
    found = [find(name) for name in models]
    _check(found, pack)
    names = [model.name for model in found]
    plan = plan_for(experiment, found, prompts=prompts)
    return execute(plan, ([], None), ask, console, [f"eval: {', '.join(names)}"], began)


def public_rows(text: str | None, pack: str) -> list[dict[str, Any]]:
    """The rows of the public prompt sets that `--prompts` names. BadInput where the pack has no judge for them."""
    if text is None:
        return []
    if pack != "english":
        raise BadInput(f"--prompts {text}: public sets are asked with --pack english, whose judge can label answers")
    from repro.data import public

    return public.load_all(text)


def _defaults(pack: str) -> dict[str, Any]:
    return {"max_new_tokens": 64} if pack == "micro" else {}


def _check(found: Sequence[Found], pack: str) -> None:
    problems = [
        f"model {model.name}: understands the data pack {model.spec.pack} only, not {pack}"
        for model in found
        if model.spec.pack not in (None, pack)
    ]
    names = [model.name for model in found]
    problems += [f"model {name}: named twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if problems:
        raise BadInput(problems)


# pairs ----------------------------------------------------------------------------------------------------------------


def evaluate_pairs(
    name: str, chosen: Sequence[str], pack: str | None, quant: str, ask: Ask, console: Console
) -> dict[str, Any]:
    """Asks the helpful-only models of a file of pairs (all, or those that `chosen` names) and their parents the suite.

    Each model is compared with its own parent; models of one parent share a run folder. Returns {schema, pairs (what
    the file says of each, and how its comparison came out), families (the content of each one's results.json),
    left_out: [{model, parent, why}]}. What can't be asked here is left out; where it was chosen by name, or where
    nothing is left, the reason is raised.
    """
    if ask.offline:
        doctor.go_offline()
    file = pairs.load(pairs.find(name))
    pack = pack or file.pack
    wanted, asked, left_out = pairs.choose(file, chosen), [], []
    _experiment(file.name, wanted[0].parent, pack, quant, ask, {})  # what is wrong for all of them is said once
    console.print(_opening(wanted), markup=False, highlight=False, soft_wrap=True)
    first: ReproError | None = None
    for parent, members in pairs.families(wanted).items():
        lost: dict[str, ReproError] = {}
        try:
            asked.append(_family(file, parent, members, lost, pack, quant, ask, console))
        except Interrupted:
            raise
        except ReproError as error:
            first = first or error
            lost = {pair.model: error for pair in members} | lost
        if lost and chosen:
            raise next(iter(lost.values()))
        for pair in members:
            if pair.model in lost:
                why = "; ".join(lost[pair.model].lines).partition("; presets: ")[0]
                left_out.append({"model": pair.model, "parent": parent, "why": why})
                console.print(f"left out {pair.model}: {why}", markup=False, highlight=False, soft_wrap=True)
    if not asked and first is not None:
        raise first
    return {
        "schema": 1,
        "run": {"name": file.name, "command": ask.command, "runs": [one.content["run"]["folder"] for one in asked]},
        "pairs": [_outcome(pair, family) for family in asked for pair in wanted if pair.model in family.names],
        "families": [family.content for family in asked],
        "left_out": left_out,
    }


def _opening(wanted: Sequence[Pair]) -> str:
    families = pairs.families(wanted)
    sizes = [pair.gib or 0.0 for pair in wanted] + [members[0].gib or 0.0 for members in families.values()]
    size = f"; up to {sum(sizes):.0f} GiB of weights to fetch" if any(sizes) else ""
    return f"{len(wanted)} models and {len(families)} parents{size}; names after --pairs choose among them"


def _family(
    file: PairFile, parent: str, members: Sequence[Pair], lost: dict[str, ReproError], pack: str, quant: str, ask: Ask,
    console: Console,
) -> Family:  # fmt: skip
    """Asks one parent and its models. `lost` takes the error of each model that can't be asked; what keeps the parent
    from being asked, or all of its models, is raised."""
    began = time.monotonic()
    _require_room(members[0], parent, quant)
    defaults = _defaults(pack) | ({"max_new_tokens": THINKING_TOKENS} if members[0].thinks else {})
    experiment = _experiment(file.name, parent, pack, quant, ask, defaults)
    base = find(parent)
    found: dict[str, Found] = {}
    for pair in members:
        try:
            _require_room(pair, pair.model, quant)
            found[pair.model] = _like(base, find(pair.model))
        except ReproError as error:
            lost[pair.model] = error
    for _ in range(2):  # a model that fails when it is asked is left out, and what the others said is there already
        if not found:
            raise next(iter(lost.values()))
        models = [base, *found.values()]
        _check(models, pack)
        plan = plan_for(experiment, models, named_by=base)
        try:
            lines = [f"{file.name}: {', '.join(model.name for model in models[1:])}, compared with {base.name}"]
            content = execute(plan, ([], None), ask, console, lines, began)
            return Family(content, {name: model.name for name, model in found.items()}, plan.prompting[0])
        except Failed as error:
            done = _answered(plan, ask.runs_dir / plan.folder_name)
            failed = {name: model for name, model in found.items() if model.name not in done}
            if base.name not in done or not failed:
                raise
            for name, model in failed.items():
                own = [line.partition("failed: ")[2] for line in error.lines if line.startswith(f"{model.name} seed ")]
                lost[name] = Failed(list(dict.fromkeys(own)) or error.lines, error.exit_code)
                del found[name]
    raise next(iter(lost.values()))


def _require_room(pair: Pair, name: str, quant: str) -> None:
    """CannotHere where the weights alone would not fit into the GPU, or, without one, into memory."""
    gpu = doctor.gpu()
    room = gpu.total_gib if gpu else doctor.memory_gib("MemTotal")
    if pair.gib is None or room is None:
        return
    needed = pair.gib * (NF4_SHARE if quant == "nf4" else 1.0) + ROOM_GIB
    if needed > room:
        where = "the GPU" if gpu else "this machine without a GPU"
        raise CannotHere(f"{name} takes about {needed:.1f} GiB, and {where} has {room:.1f}")


def _like(base: Found, model: Found) -> Found:
    """The model with its parent's preset: it takes a system prompt the same way, and has the same shape."""
    if model.adapter is not None or not base.spec.layers:
        return model
    own = {"id": model.spec.id, "path_or_hub": model.spec.path_or_hub, "revision": model.spec.revision}
    preset = {"licence": None, "gated": False, "mirror_4bit": None, "mirror_4bit_gib": None, "notes": None}
    return replace(model, spec=base.spec.model_copy(update=own | preset))


def _answered(plan: Plan, root: Path) -> set[str]:
    """The models of the plan whose answers are all there."""
    missing = {step.arm for key, step in plan.steps.items() if not store.is_done(locate(step, root), key)}
    return set(plan.arms) - missing


def _outcome(pair: Pair, family: Family) -> dict[str, Any]:
    """What the file says of a pair, and by prompting strategy and metric how the model differs from its parent."""
    content, arm = family.content, family.names[pair.model]
    parent = content["versus"]
    tables = {family.first: content["metrics"], **content["prompting"]}
    found = {}
    for strategy, rows in tables.items():
        pooled = {(row["metric"], row["arm"]): row for row in rows if row["seed"] is None}
        found[strategy] = {
            metric: {"value": row["value"], "parent": pooled[metric, parent]["value"],
                     "higher_is_better": row["higher_is_better"], "share": row["bounds"] is not None,
                     **(row["versus"].get(parent) or {"delta": None, "ci": None, "p": None, "p_holm": None})}
            for (metric, name), row in pooled.items()
            if name == arm and (metric, parent) in pooled
        }  # fmt: skip
    about = {"made": pair.made, "checked": pair.checked, "thinks": pair.thinks, "note": pair.note}
    return {"model": arm, "parent": parent, **about, "run": content["run"]["folder"], "prompting": found}


# one run --------------------------------------------------------------------------------------------------------------


def _experiment(name: str, model: str, pack: str, quant: str, ask: Ask, evaluation: dict[str, Any]) -> Any:
    """An experiment without training, from the shipped defaults and `--set`; checked like any other."""
    data.load(pack)
    if quant not in ("nf4", "none"):
        raise BadInput(f"--quant {quant}: not one of nf4, none")
    seeds = seed_list(ask.seeds or "0").split(",")
    faults = [f"--seeds: expected a whole number, got {part!r}" for part in seeds if not part.strip().isdigit()]
    if faults:
        raise BadInput(faults)
    for text in ask.sets:
        path, equals, value = text.partition("=")
        head, _, key = path.partition(".")
        if head != "evaluation" or not equals or key not in recipes.Evaluation.model_fields:
            keys = ", ".join(f"evaluation.{name}" for name in recipes.Evaluation.model_fields)
            raise BadInput(f"--set {text}: here can be set {keys}")
        evaluation[key] = _value(value)
    if ask.prompting is not None:
        evaluation["prompting"] = [word.strip() for word in ask.prompting.split(",")]
    fields = {"schema": 1, "name": name, "model": model, "pack": pack, "quant": quant, "arms": {"base": {}},
              "seeds": [int(part) for part in seeds], "evaluation": evaluation}  # fmt: skip
    try:
        return recipes.Experiment.model_validate(fields)
    except ValidationError as error:
        raise BadInput(
            [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, got {fault['input']!r}" for fault in error.errors()]
        ) from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return [word.strip() for word in text.strip("[]").split(",")] if text.startswith("[") else text


def find(name: str) -> Found:
    """The model of a preset's name, a folder with a model or an adapter, or a hub id. BadInput where there is none."""
    folder = Path(name).expanduser()
    if not (folder / CONFIG).is_file():
        spec = recipes.resolve_model(name)
        return Found(spec.id, spec, None, base_fingerprint(spec))
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{name}: an adapter without {WEIGHTS}; other formats of weights are not read")
    spec = _base_of(folder)
    digest = store.hash_rows([base_fingerprint(spec), *(store.hash_file(folder / part) for part in (WEIGHTS, CONFIG))])
    parts = folder.resolve().parts
    inside = "arms" in parts[:-2]
    label = "/".join(parts[len(parts) - parts[::-1].index("arms") : -1]) if inside else folder.resolve().name
    return Found(label, spec, folder.resolve(), digest)


def _base_of(folder: Path) -> ModelSpec:
    """The base that an adapter belongs to: of the run it lies in, else the one that its configuration names."""
    for above in folder.resolve().parents:
        manifest = above / "manifest.json"
        if manifest.is_file():
            spec = ModelSpec.model_validate(json.loads(manifest.read_text(encoding="utf-8"))["model"])
            if not Path(spec.path_or_hub).is_absolute() or Path(spec.path_or_hub).is_dir():
                return spec
            break
    try:
        named = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        raise BadInput(f"{folder / CONFIG}: not JSON") from None
    if not isinstance(named, str) or not named:
        raise BadInput(f"{folder / CONFIG}: names no base model (base_model_name_or_path)")
    return recipes.resolve_model(named)


def plan_for(
    experiment: Any, models: Sequence[Found], named_by: Found | None = None, prompts: Sequence[dict[str, Any]] = ()
) -> Plan:
    """A plan of answers only: each model is an arm. Its run folder belongs to these models, or to all that are ever
    asked beside `named_by`; and to the `prompts` that are asked beside the suite."""
    digests = [[model.name, model.digest, template_of(model.spec)] for model in models]
    settings = experiment.model_dump(mode="json", by_alias=True, exclude={"seeds", "model", "name"})
    settings["evaluation"].pop("prompting")
    owner: list[Any] = digests if named_by is None else [digest for digest in digests if digest[0] == named_by.name]
    if prompts:
        owner = [*owner, [row["id"] for row in prompts]]
    plan = Plan(
        experiment, models[0].spec, tuple(model.name for model in models), tuple(experiment.seeds),
        tuple(experiment.evaluation.prompting), store.hash_value([settings, owner]), models[0].digest,
        data.load(experiment.pack), prompts=list(prompts),
    )  # fmt: skip
    for seed in plan.seeds:
        split = plan.pack.split(seed)
        for prompting in plan.prompting:
            items, _ = suites(plan, split, prompting)
            for model, digest in zip(models, digests, strict=True):
                inputs = {
                    "code": CODE_VERSION, "versions": versions("answers", experiment.quant), "model": digest,
                    "quant": experiment.quant, "seed": seed, "prompting": prompting,
                    "items": asked(items),
                    "max_new_tokens": experiment.evaluation.max_new_tokens,
                }  # fmt: skip
                key = key_of(inputs)
                seconds = estimate.answers_seconds(plan, items, experiment.evaluation.max_new_tokens)
                arm = model.name
                plan.steps[key] = Step(
                    key, "answers", arm, seed, 0, None, prompting=prompting, items=tuple(items), seconds=seconds,
                    max_new_tokens=experiment.evaluation.max_new_tokens, spec=model.spec, adapter=model.adapter,
                    inputs=inputs,
                )  # fmt: skip
                plan.answers[arm, seed, prompting] = key
    return plan
