"""Whether a run's comparison is still the one that its answers, its judge, its claims and this code would give."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import recipes, store

if TYPE_CHECKING:
    from repro.plan import Plan

STAMP = "comparison.json"  # in the run folder: what the comparison was made of, and the sha256 of each file it wrote
WRITTEN = ("answers.jsonl", "results.json", "table.md", "table.csv", "report.html")
READ = ("sheet.jsonl", "probes.json")  # what people and `repro probe` add to a run


@cache
def _code() -> str:
    """sha256 over the kit's own files, recipes included: no label and no picture outlives the code that made it."""
    kinds = (".py", ".html", ".css", ".js", ".json", ".safetensors", ".md", ".yaml")
    roots = (Path(__file__).parent, recipes.recipes_root())
    files = [(path.relative_to(root).as_posix(), path) for root in roots for path in sorted(root.rglob("*"))]
    chosen = [(name, path) for name, path in files if path.suffix in kinds and "weights" not in path.parts]
    return store.hash_rows([name, store.hash_file(path)] for name, path in chosen)


def stamp(plan: Plan, root: Path, **more: Any) -> str:
    """Hash of all that the comparison is made of, `more` included; the plan's steps must all be there."""
    from repro.plan import locate

    made = [[*place, (store.read_done(locate(plan.steps[key], root)) or {}).get("files")]
            for place, key in plan.answers.items()]  # fmt: skip
    added = {name: store.hash_file(root / name) for name in READ if (root / name).is_file()}
    return store.hash_value({"code": _code(), "steps": list(plan.steps), "answers": made, "added": added, **more})


def results(root: Path, of: str) -> dict[str, Any] | None:
    """The content of results.json, if the comparison was made of just this and all its files are as they were."""
    try:
        said = json.loads((root / STAMP).read_text(encoding="utf-8"))
        same = said["of"] == of and all(store.hash_file(root / name) == said["files"][name] for name in WRITTEN)
        return json.loads((root / "results.json").read_text(encoding="utf-8")) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note(root: Path, of: str) -> None:
    """Writes down what the comparison, just written, was made of; not where one of its files is missing."""
    if all((root / name).is_file() for name in WRITTEN):
        store.write_json(root / STAMP, {"of": of, "files": {name: store.hash_file(root / name) for name in WRITTEN}})
