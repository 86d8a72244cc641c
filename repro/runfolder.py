"""What a run folder holds, for people to look at: whole or half finished; a fault in a file is named, not fatal."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro import store
from repro.errors import BadInput, CannotHere

SCHEMA = 1
NEEDED = ("run", "model", "judge", "metrics", "claims")  # of results.json
ENDED_BADLY = ("run failed", "crashed", "interrupted")


@dataclass(frozen=True)
class Stage:
    """One finished step of one arm and seed: a training stage, or the arm's answers. `shared`: made by another arm."""

    arm: str
    seed: int
    index: int  # place in the arm's chain; answers come last
    kind: str
    prompting: str
    finished: str
    summary: dict[str, Any]
    log: list[dict[str, Any]]
    shared: bool


@dataclass
class Folder:
    """A run folder's content but for its answers. `results` is None where the run never got to the comparison."""

    path: Path
    manifest: dict[str, Any]
    results: dict[str, Any] | None
    stages: list[Stage]
    unfinished: list[str]  # why it counts as incomplete, one sentence each; none where it is whole
    faults: list[str] = field(default_factory=list)  # what could not be read, one sentence each


def read(path: Path) -> Folder:
    """Everything but the answers. BadInput where there is no run, or it is one that this version can't read."""
    manifest = document(path / "manifest.json", "the run's resolved recipe")
    if manifest is None:
        raise BadInput(f"{path}: no run there (it has no manifest.json)")
    results = document(path / "results.json", "the run's figures")
    absent = [key for key in NEEDED if results is not None and key not in results]
    if absent:
        raise BadInput(f"{path / 'results.json'}: lacks {', '.join(absent)}; repro run writes it again")
    stages = _stages(path, manifest)
    faults = [f"{name} was changed after the run had finished; the same repro run writes it again." for name in
              store.changed(path)]  # fmt: skip
    return Folder(path, manifest, results, stages, _unfinished(path, manifest, results, stages), faults)


def document(path: Path, what: str) -> dict[str, Any] | None:
    """A JSON object with the schema that this version reads, or None where there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: can't be read as {what}: {error}") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadInput(f"{path}: {store.newer(schema)}")
    if schema != SCHEMA:
        raise BadInput(f"{path}: schema {schema}, not {SCHEMA}")
    return content


# -- stages ----------------------------------------------------------------------------------------------------------


def _stages(path: Path, manifest: dict[str, Any]) -> list[Stage]:
    """The latest of each arm's, seed's and place's finished steps, in the order of arms, seeds and chain."""
    latest: dict[tuple[Any, ...], Stage] = {}
    for folder in sorted(path.glob("arms/*/seed-*/*")):
        done = store.read_done(folder)
        stage = _stage(folder, done) if done else None
        if stage is None:
            continue
        place = (stage.arm, stage.seed, stage.index, stage.kind, stage.prompting)
        if place not in latest or latest[place].finished < stage.finished:
            latest[place] = stage
    # as the arms' folders are named
    arms = [re.sub(r"[^A-Za-z0-9._-]+", "-", str(arm)) for arm in manifest.get("arms") or []]
    order = {arm: rank for rank, arm in enumerate(arms)}
    key = lambda one: (order.get(one.arm, -1), one.arm, one.index, one.kind, one.prompting, one.seed)  # noqa: E731
    return sorted(latest.values(), key=key)


def _stage(folder: Path, done: dict[str, Any]) -> Stage | None:
    words = folder.name.split("-")
    seed = folder.parent.name.removeprefix("seed-")
    if not seed.isdigit():
        return None
    summary = done["summary"] if isinstance(done.get("summary"), dict) else {}
    index = int(words[0]) if words[0].isdigit() and len(words) > 1 else 10**6
    kind = "answers" if index == 10**6 else words[1]
    log = [row for row in lines(folder / "log.jsonl", []) if isinstance(row.get("step"), int)]
    prompting, finished = str(summary.get("prompting", "none")), str(done.get("finished", ""))
    return Stage(folder.parents[1].name, int(seed), index, kind, prompting, finished, summary, log, folder.is_symlink())


def number(value: Any) -> float | None:
    """A finite number, or None for anything else: what is read from a file may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


# -- whether it is whole ---------------------------------------------------------------------------------------------


def _unfinished(path: Path, manifest: dict[str, Any], results: dict[str, Any] | None, stages: list[Stage]) -> list[str]:
    """Why the run is incomplete: no results yet, or a later start of the same run that did not end well."""
    journal = [event for event in store.read_journal(path) if isinstance(event, dict)]
    names = [event.get("event") for event in journal]
    last = max((place for place, name in enumerate(names) if name == "run started"), default=None)
    said = []
    if results is None:
        wanted = _steps(manifest)
        done = sum(not stage.shared for stage in stages)
        of = f" of about {wanted}" if wanted else ""
        said.append(f"This run has not finished: {done}{of} steps are done, and nothing is compared yet.")
    elif last is not None and "run finished" not in names[last:] and str(
        _of(results["run"], "finished") or "9"
    ) < str(journal[last].get("time", "")):  # by the order of events first: a clock may be set back
        said.append("The run was started again after these figures were made, and that start has not finished.")
    if last is not None and said:
        for event in journal[last:]:
            if event.get("event") in ENDED_BADLY:
                why = event.get("why") or ""
                reason = "; ".join(map(str, why)) if isinstance(why, list) else str(why)
                said.append(f"{event.get('time', '')}: {event['event']}{': ' if reason else ''}{reason}")
    if said:
        said.append("The command that began it resumes it.")
    return said


def _steps(manifest: dict[str, Any]) -> int:
    """How many steps the run has, by its manifest: stages, and rounds of answers; shared ones count for each arm."""
    arms = _of(manifest.get("experiment"), "arms") or {}
    rounds = len(manifest.get("prompting") or ["none"])
    chosen = [_of(arms, arm) or {} for arm in manifest.get("arms") or []]
    start = _of(_of(manifest.get("experiment"), "start"), "stages") or []
    count = sum(len(_of(_of(arm, "recipe"), "stages") or []) + rounds for arm in chosen) + len(start)
    return count * len(manifest.get("seeds") or [])


def _of(place: Any, key: str) -> Any:
    return place.get(key) if isinstance(place, dict) else None


def put(path: Path, text: str) -> Path:
    """Writes a file of the report at once. CannotHere where the folder can't be written to."""
    try:
        # lone halves of characters, which a model can write, have no UTF-8
        store.write_atomic(path, text.encode("utf-8", "replace").decode("utf-8"))
    except OSError as error:
        raise CannotHere(f"can't write {path}: {error.strerror}") from None
    return path


# -- lines -----------------------------------------------------------------------------------------------------------


def lines(path: Path, faults: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file that can be read; each line that can't is named in `faults`. No file is no rows."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        faults.append(f"{path.name}: can't be read: {error.strerror}.")
        return
    with file:
        for place, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield row
            elif not line.endswith(b"\n"):
                faults.append(f"{path.name}: line {place} is cut off in the middle and is left out.")
            else:
                faults.append(f"{path.name}: line {place} is no JSON row and is left out.")
