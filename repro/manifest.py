"""What a run folder says of where it comes from: recipe, origins, versions, data, hardware, git."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import repro
from repro import doctor, recipes, store
from repro.data import sources
from repro.keys import CODE_VERSION
from repro.plan import Plan, stage_sources

if TYPE_CHECKING:
    from repro.run import Ask


def manifest(plan: Plan, ask: Ask) -> dict[str, Any]:
    """What a person needs to know to repeat the run; no environment, no names of users or machines."""
    return {
        "experiment": plan.experiment.model_dump(mode="json", by_alias=True),
        "origins": recipes.origins(plan.experiment),
        "model": plan.spec.model_dump(mode="json", by_alias=True),
        "base": plan.base,
        "arms": list(plan.arms),
        "seeds": list(plan.seeds),
        "prompting": list(plan.prompting),
        "command": ask.command,
        "code_version": CODE_VERSION,
        "repro": repro.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()}",
        "versions": doctor.versions(),
        "hardware": doctor.hardware(),
        "data": _origins(plan),
        "git": _git(),
    }


def _origins(plan: Plan) -> list[dict[str, Any]]:
    """Where each source of training rows comes from, with revision and licence where they are known."""
    stages = [step.stage for step in plan.steps.values() if step.stage is not None]
    named = [source for stage in stages for source in stage_sources(stage)]
    every = {store.canonical(source.model_dump(mode="json")): source for source in named}
    return [sources.origin(source) for source in every.values()]


def _git() -> dict[str, Any] | None:
    """The commit of the source tree that this runs from, and whether files differ from it; None outside of one."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(source), *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changed)} if commit else None
