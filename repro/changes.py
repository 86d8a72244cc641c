"""Says which input of a step is another than when it was last made: the words of `repro plan EXPERIMENT --explain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro import store
from repro.keys import series
from repro.plan import Plan, Step, locate

ASKED = {"items": "what is asked", "doses": "what the doses are asked", "probes": "what the curve's probes are"}
WORDS = {"code": "the kit's own code, version", "index": "place among the stages",
         "max_new_tokens": "evaluation.max_new_tokens"}  # fmt: skip
EARLIER = {"upstream": "the stage before it", "start": "the stage that the arm starts from",
           "dosed": "the stage whose doses are asked"}  # fmt: skip


def explain(plan: Plan, step: Step, root: Path, reasons: dict[str, str]) -> list[str]:
    """What changed since the step was last made, in this run folder or in another of this experiment and model."""
    if step.key not in reasons:
        done = store.read_done(locate(step, root)) or {}
        other = patches(_inputs(done), step.inputs)
        return [f"made with {', '.join(other)}: kept, since the release series is the same"] if other else []
    found = last_made(step, root)
    if found is None:
        return [] if reasons[step.key] != "not there yet" else ["never made before, here or in a run beside this one"]
    folder, done = found
    where = "" if folder.is_relative_to(root) else f" (in {folder.relative_to(root.parent).parts[0]})"
    old = _inputs(done)
    if done.get("key") == step.key:
        if where:
            return [f"no input of it changed{where}: another part of the experiment did, and with it the run folder"]
        return []
    try:
        lines = differences(old, step.inputs, plan) if old else []
    except (AttributeError, KeyError, TypeError, ValueError):  # somebody edited it
        lines = []
    return [f"{line}{where}" for line in lines] or [f"what it was made from is not recorded{where}"]


def last_made(step: Step, root: Path) -> tuple[Path, dict[str, Any]] | None:
    """The folder and DONE.json of the step's place that was finished last: here, else in a run of the same experiment
    and model under other settings."""
    here = [root / step.folder, *root.glob(step.folder[:-8] + "????????")]
    beside = root.parent.glob(f"{root.name[:-8]}????????/{step.folder[:-8]}????????")
    for folders in (here, (path for path in beside if not path.is_relative_to(root))):
        made = [(folder, done) for folder in folders if (done := store.read_done(folder)) and _same_place(done, step)]
        if made:
            return max(made, key=lambda one: str(one[1].get("finished")))
    return None


def _same_place(done: dict[str, Any], step: Step) -> bool:
    summary = done.get("summary")
    return isinstance(summary, dict) and summary.get("prompting", "none") == step.prompting


def _inputs(done: dict[str, Any]) -> dict[str, Any]:
    summary = done.get("summary")
    inputs = summary.get("inputs") if isinstance(summary, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def patches(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The libraries whose version differs, but not its series."""
    before, now = old.get("versions", {}), new.get("versions", {})
    return [f"{name} {before[name]} (here {now[name]})" for name in before if name in now and before[name] != now[name]]


def mixed(plan: Plan, root: Path) -> list[str]:
    """A warning where a run's steps were made with several builds of a library (of one series, else none is kept)."""
    found: dict[str, set[str]] = {}
    for step in plan.steps.values():
        versions = _inputs(store.read_done(locate(step, root)) or {}).get("versions")
        for name, version in (versions if isinstance(versions, dict) else {}).items():
            found.setdefault(name, set()).add(str(version))
    several = [f"{name} {' and '.join(sorted(builds))}" for name, builds in found.items() if len(builds) > 1]
    return [f"versions: some steps were made with {', '.join(several)}."] if several else []


def differences(old: dict[str, Any], new: dict[str, Any], plan: Plan | None = None) -> list[str]:
    """Each input that differs, in words: `stage.learning_rate 0.001 -> 0.0003`."""
    lines: list[str] = []
    for name in dict.fromkeys([*new, *old]):
        before, now = old.get(name), new.get(name)
        if before == now or name == "base_files":
            continue
        if name == "base":
            lines += list(_base(old, new))
        elif name == "data":
            lines += list(_data(before or [], now or []))
        elif name in ASKED:
            what = ASKED[name]
            counts = [part["count"] if part else 0 for part in (before, now)]
            same = counts[0] == counts[1]
            lines.append(f"{what}: {counts[1]}, other words" if same else f"{what}: {counts[0]} -> {counts[1]}")
        elif name in EARLIER:
            step = plan.steps.get(now) if plan is not None and now is not None else None
            lines.append(EARLIER[name] + (f" ({step.title})" if step else ""))
        elif name == "versions":
            for library in dict.fromkeys([*(now or {}), *(before or {})]):
                a, b = ((versions or {}).get(library, "none") for versions in (before, now))
                lines += [f"{library} {a} -> {b}"] if series(a) != series(b) else []
        else:
            lines += list(_values(WORDS.get(name, name), before, now))
    return lines


def _values(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            yield from _values(f"{name}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield f"{name} {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _base(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Which of the base's files differ; the names themselves where it is not a folder both times."""
    before, now = old.get("base_files") or {}, new.get("base_files") or {}
    if not (before and now):
        yield f"base {old.get('base')} -> {new.get('base')}"
    for name in sorted({*before, *now}):
        if before and now and before.get(name) != now.get(name):
            how = "is new" if name not in before else "is gone" if name not in now else "has other bytes"
            yield f"{_part(name)}: {name} {how}"


def _part(name: str) -> str:
    if name.endswith(".safetensors"):
        return "base weights"
    if name.endswith(".jinja") or "chat_template" in name:
        return "chat template"
    return "base configuration" if name in ("config.json", "generation_config.json") else "tokenizer or other base file"


def _data(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[str]:
    before, now = [[source["source"] for source in sources] for sources in (old, new)]
    if before != now:
        yield f"data {', '.join(before) or 'none'} -> {', '.join(now) or 'none'}"
        return
    for a, b in zip(old, new, strict=True):
        if a["sha256"] != b["sha256"]:
            count = f"{b['rows']}, other bytes" if a["rows"] == b["rows"] else f"{a['rows']} -> {b['rows']}"
            yield f"rows of {b['source']}: {count}"
