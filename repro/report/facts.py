"""What a run was, in words for the report: model, machine, recipes, commands, and what each stage cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.progress import duration
from repro.runfolder import Folder, Stage, number

Manifest = Mapping[str, Any]


def facts(run: Folder) -> list[tuple[str, str]]:
    """(name, text) of everything that a figure depends on; what is not known is left out."""
    manifest, results = run.manifest, run.results or {}
    experiment, model = manifest.get("experiment") or {}, manifest.get("model") or {}
    about = results.get("run") if isinstance(results.get("run"), dict) else {}
    found = [
        ("Model", model_text(model)),
        ("Weights held in", _weights(run)),
        ("Data pack", _text(experiment.get("pack"))),
        ("Data from elsewhere", _elsewhere(manifest.get("data"))),
        ("All arms start from", _text((experiment.get("start") or {}).get("name"))),
        ("Seeds", ", ".join(map(str, manifest.get("seeds") or []))),
        ("Prompting", ", ".join(map(str, manifest.get("prompting") or []))),
        ("Judge", _judge(results.get("judge"))),
        ("Hardware", hardware(manifest)),
        ("Software", _software(manifest)),
        ("Source", _source(manifest.get("git"))),
        ("Begun", _moment(manifest.get("created"))),
        ("Compared", _moment((about or {}).get("finished"))),
        ("Run folder", run.path.resolve().name),
    ]
    return [(name, text) for name, text in found if text]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _moment(value: Any) -> str:
    return _text(value).replace("T", " ").replace("+00:00", " UTC")


def model_text(model: Manifest) -> str:
    """The model's name and, where it is on a hub, its id and revision there; never a path on this disk."""
    name, where = _text(model.get("id")), _text(model.get("path_or_hub"))
    parts = [name]
    if where and where != name and not Path(where).is_absolute() and not where.startswith((".", "~")):
        parts.append(where)
    if model.get("revision"):
        parts.append(f"revision {model['revision']}")
    if isinstance(count := model.get("parameters"), int):
        size = f"{count / 1e9:.3g} billion" if count >= 1e9 else f"{count / 1e6:.3g} million"
        parts.append(f"{size} parameters")
    return ", ".join(part for part in parts if part)


def _elsewhere(sources: Any) -> str:
    """Training data that is not the pack's: file or hub id, revision, licence."""
    found = []
    for source in sources if isinstance(sources, list) else []:
        name = source.get("hub") or source.get("set") or Path(str(source.get("file") or "")).name
        if name:
            revision, licence = _text(source.get("revision"))[:12], _text(source.get("licence")) or "not stated"
            found.append(f"{name}{f' at {revision}' if revision else ''} (licence: {licence})")
    return "; ".join(found)


def _weights(run: Folder) -> str:
    quant = _text((run.manifest.get("experiment") or {}).get("quant"))
    precisions = sorted({_text(stage.summary.get("precision")) for stage in run.stages} - {""})
    held = {"nf4": "NF4 (4 bits), LoRA on top", "none": "unquantised, LoRA on top"}.get(quant, quant)
    return "; computed in ".join(part for part in (held, " / ".join(precisions)) if part)


def _judge(judge: Any) -> str:
    if not isinstance(judge, Mapping):
        return _text(judge)
    kappa = judge.get("kappa")
    measured = "" if kappa is None else f", kappa {kappa:.2f} on {judge.get('n')} human labels"
    return _text(judge.get("name")) + measured


def hardware(manifest: Manifest) -> str:
    """GPU with its memory and driver, or the CPU; cores and memory of the machine."""
    machine = manifest.get("hardware") or {}
    gpu = machine.get("gpu")
    parts = [" and ".join(map(str, gpu)) if isinstance(gpu, list) and gpu else "no GPU"]
    if machine.get("cores"):
        parts.append(f"{machine['cores']} CPU cores ({_text(machine.get('machine'))})")
    if machine.get("memory_gib"):
        parts.append(f"{machine['memory_gib']} GiB memory")
    return "; ".join(parts) if machine else ""


def _software(manifest: Manifest) -> str:
    versions = manifest.get("versions") or {}
    main = [f"{name} {versions[name]}" for name in ("torch", "transformers", "trl", "unsloth") if versions.get(name)]
    own = [f"repro {manifest['repro']}"] if manifest.get("repro") else []
    python = [f"Python {manifest['python']}"] if manifest.get("python") else []
    return ", ".join([*own, *python, *main])


def _source(git: Any) -> str:
    if not isinstance(git, Mapping) or not git.get("commit"):
        return ""
    return f"commit {git['commit'][:12]}{', with files that differ from it' if git.get('changed') else ''}"


# -- arms ------------------------------------------------------------------------------------------------------------


def recipes(run: Folder) -> list[dict[str, Any]]:
    """{arm, name, description, stages} of each arm, its stages one line each."""
    experiment = run.manifest.get("experiment") or {}
    known = experiment.get("arms") or {}
    start = experiment.get("start")
    found = [_recipe("start, shared by all", start)] if isinstance(start, Mapping) else []
    for name in run.manifest.get("arms") or []:
        arm = known.get(name) or {}
        made = _recipe(name, arm.get("recipe") or {})
        if arm.get("system"):
            made["name"] = f"a system prompt{': the constitution' * (arm['system'] == 'constitution')}"
        found.append(made)
    return found


def _recipe(arm: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    name = _text(recipe.get("name")) or "the model as it is"
    stages = [_stage_text(stage) for stage in recipe.get("stages") or []]
    return {"arm": arm, "name": name, "description": _text(recipe.get("description")), "stages": stages}


def _stage_text(stage: Mapping[str, Any]) -> str:
    sources = stage.get("data") or stage.get("prompts") or []
    named = [_source_text(source) for source in (sources if isinstance(sources, list) else [sources])]
    length = f"{stage['steps']} steps" if stage.get("steps") else f"{stage.get('epochs', 1):g} epochs"
    lora = stage.get("lora") or {}
    parts = [" and ".join(named), length, f"batch {stage.get('batch', '?')}", f"lr {stage.get('learning_rate', 0):g}"]
    if lora:
        parts.append(f"LoRA r {lora.get('r')}, alpha {lora.get('alpha', 0):g}")
    return f"{stage.get('kind')}: " + ", ".join(part for part in parts if part)


def _source_text(source: Any) -> str:
    if not isinstance(source, Mapping):
        return _text(source)
    name = next((str(value) for key, value in source.items() if isinstance(value, str)), "?")
    return f"{Path(name).name if name.startswith(('/', '.', '~')) else name}" + (
        f" ({source['count']})" if source.get("count") else ""
    )


# -- repeating it ----------------------------------------------------------------------------------------------------


def repeat(run: Folder) -> list[tuple[str, str]]:
    """(what it is for, command) to run the same again."""
    found = []
    git = run.manifest.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        changed = " (files differed from it: see the kit's own changes then)" if git.get("changed") else ""
        found.append((f"The same source, in a clone of the kit{changed}:", f"git checkout {git['commit']}"))
    about = (run.results or {}).get("run")
    said = about.get("command") if isinstance(about, Mapping) else None
    name = (run.manifest.get("experiment") or {}).get("name")
    command = run.manifest.get("command") or said or (f"repro run {name}" if name else "")
    if command:
        found.append(("The run, which goes on where it stopped; what is done is not done again:", str(command)))
    folder = run.path.resolve().name
    table = f"repro compare {folder}\n" if run.results else ""
    found.append(("This page, and the table where there is one:", f"{table}repro report {folder}"))
    return found


# -- what it cost ----------------------------------------------------------------------------------------------------


def stage_rows(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """One row for each arm's stage, over its seeds: lowest to highest."""
    groups: dict[tuple[Any, ...], list[Stage]] = {}
    for stage in stages:
        groups.setdefault((stage.arm, stage.index, stage.kind, stage.prompting), []).append(stage)
    return [_stage_row(members) for members in groups.values()]


def _stage_row(members: Sequence[Stage]) -> dict[str, Any]:
    first = members[0]
    kind = first.kind if first.prompting == "none" else f"{first.kind}, prompting {first.prompting}"
    shared = " (made once, by another arm)" if first.shared else ""
    whole: Callable[[float], str] = lambda value: f"{round(value):,}"  # noqa: E731
    speeds = [t / s for m in members if (t := _of(m, "tokens")) and (s := _of(m, "seconds"))]
    return {
        "arm": first.arm, "kind": kind + shared, "seeds": len({member.seed for member in members}),
        "steps": _range([_of(m, "steps") for m in members], whole),
        "tokens": _range([_of(m, "tokens") for m in members], whole),
        "seconds": _range([_of(m, "seconds") for m in members], lambda value: f"{value:,.1f}"),
        "speed": _range(speeds, whole), "peak": _range([_of(m, "peak_gib") for m in members], lambda v: f"{v:.2f}"),
        "micro": _range([_of(m, "micro_batch") for m in members], whole),
        "precision": " / ".join(sorted({_text(m.summary.get("precision")).partition(":")[0] for m in members} - {""})),
    }  # fmt: skip


def _of(stage: Stage, key: str) -> float | None:
    return number(stage.summary.get(key))


def _range(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = text(min(known)), text(max(known))
    return low if low == high else f"{low} to {high}"


def total(stages: Sequence[Stage]) -> str:
    """The time of all steps that this run did itself, in words."""
    own = [stage for stage in stages if not stage.shared]
    training = sum(_of(stage, "seconds") or 0 for stage in own if stage.kind != "answers")
    asking = sum(_of(stage, "seconds") or 0 for stage in own if stage.kind == "answers")
    return f"In all {duration(training)} of training and {duration(asking)} of answering, added up over workers."
