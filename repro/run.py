"""Walks a plan: trains what is missing, asks every arm, judges, compares. The same command resumes where it stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import repro
from repro import doctor, estimate, evals, recipes, store, uptodate
from repro.errors import BadInput, CannotHere, ReproError
from repro.judges import JudgeAsk
from repro.keys import base_fingerprint, local_folder
from repro.manifest import manifest
from repro.mirror import Mirror
from repro.opening import Interrupted as Interrupted
from repro.opening import opened
from repro.plan import Plan, Step, build, expected_seconds, link_shared, locate, missing
from repro.progress import Display, duration
from repro.yamltree import did_you_mean

if TYPE_CHECKING:
    from repro.pool import Failure

SWEEPS = "sweeps"  # the folder in the runs folder that holds them
FILES = ("answers.jsonl", "results.json", "table.md", "table.csv")  # of the comparison; the journal has their hashes


class Failed(ReproError):
    """Steps failed; `exit_code` is theirs where they agree (a gated model: 3), else 1."""

    def __init__(self, lines: str | list[str], exit_code: int = 1):  # a copy from another process is made of its text
        super().__init__(lines)
        self.exit_code = exit_code


@dataclass
class Ask:
    """What the command line asks for; `sets` are "path=value" texts."""

    experiment: str
    model: str | None = None
    arms: str | None = None
    seeds: str | None = None
    sets: list[str] = field(default_factory=list)
    prompting: str | None = None
    runs_dir: Path = Path("runs")
    offline: bool = False
    workers: int | None = None
    command: str | None = None
    backend: str = "auto"
    gpu_gib: float | None = None  # plan as if there were a GPU of so much memory
    judge: JudgeAsk = field(default_factory=JudgeAsk)
    borrow: tuple[Path, ...] = ()  # other run folders, whose finished steps of the same key are not done again
    ray: str | None = None  # "local", or a cluster's address: who does the steps
    mirror: Path | None = None  # where a copy of the run folder is kept
    planning: bool = False  # nothing is to run: a hub that can't be asked is no obstacle


def seed_list(text: str) -> str:
    """`0-4` as `0,1,2,3,4`; anything else as it is, for the loader to judge."""

    def spread(match: re.Match[str]) -> str:
        first, last = int(match[1]), int(match[2])
        if last < first or last - first > 999:
            raise BadInput(f"--seeds {text}: a range goes upwards and has at most 1000 seeds, e.g. 0-4")
        return ",".join(map(str, range(first, last + 1)))

    return re.sub(r"(?<![\w.-])(\d{1,9})-(\d{1,9})(?![\w.-])", spread, text)


def prepare(ask: Ask) -> tuple[Plan, list[str]]:
    """The plan of what is asked, and lines that say which experiment runs and why. Writes nothing.

    Raises BadInput for all that is wrong with the recipes, CannotHere where the machine lacks what nothing can replace.
    """
    if ask.offline:
        doctor.go_offline()
    experiment, lines = _choose(ask, ask.experiment, ())
    if experiment.model.startswith("openai:") and any(arm.recipe for arm in experiment.arms.values()):
        raise BadInput(f"model {experiment.model}: a server's model can't be trained; repro eval asks it")
    gpu = doctor.gpu() if ask.gpu_gib is None else estimate.Gpu(None, ask.gpu_gib, ask.gpu_gib)
    name = experiment.model
    if name == "auto":
        name, why = estimate.auto_model(gpu)
        lines.append(why)
    spec = recipes.resolve_model(name)
    if spec.pack not in (None, experiment.pack):
        raise BadInput(f"model {spec.id}: understands the data pack {spec.pack} only, not {experiment.pack}")
    spec = estimate.on_gpu(spec, experiment.quant, gpu, lines)
    if local_folder(spec) is None and Path(spec.path_or_hub).is_absolute():
        how = "repro micro build --out FOLDER makes them, --model FOLDER uses them"
        raise CannotHere(f"the weights of {spec.id} are not there ({spec.path_or_hub}): {how}")
    base = None
    if ask.planning and local_folder(spec) is None:
        try:
            base = base_fingerprint(spec)
        except (CannotHere, BadInput) as error:
            base = f"{spec.path_or_hub}@unknown"
            lines.append(f"planned without it: {error.lines[0]}")
    return build(experiment, spec, arms=chosen_arms(experiment, ask.arms), gpu=gpu, base=base), lines


def _load(ask: Ask, name: str) -> Any:
    sets = list(ask.sets)
    if ask.prompting is not None:
        sets.append(f"evaluation.prompting=[{ask.prompting}]")
    seeds = None if ask.seeds is None else seed_list(ask.seeds)
    return recipes.load_experiment(name, sets=sets, model=ask.model, seeds=seeds)


def _choose(ask: Ask, name: str, before: tuple[str, ...]) -> tuple[Any, list[str]]:
    """The experiment, or the one it falls back on where this machine or this version lacks something."""
    experiment = _load(ask, name)
    reasons = []
    problem = doctor.cuda_problem() if experiment.needs == "cuda" and ask.gpu_gib is None else None
    if problem:
        reasons.append(f"needs CUDA, and here {problem}")
    if importlib.util.find_spec(f"repro.data.{experiment.pack}") is None:
        reasons.append(f'needs the data pack "{experiment.pack}", which this version does not have')
    if not reasons:
        return experiment, [f"{experiment.name}: {experiment.description or 'runs here'}"]
    why = f"{experiment.name} {' and it '.join(reasons)}"
    if experiment.fallback is None or experiment.fallback in before:
        raise CannotHere(why)
    other, lines = _choose(ask, experiment.fallback, (*before, name))
    return other, [f"{why}: {other.name} runs instead", *lines]


def chosen_arms(experiment: Any, text: str | None) -> list[str] | None:
    """The arms that `--arms` names. BadInput for one that the experiment does not have."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = list(experiment.arms)
    problems = [
        f'--arms: there is no arm "{word}" here, only {", ".join(known)}{did_you_mean(word, known)}'
        for word in words
        if word not in known
    ]
    if not words:
        problems.append(f"--arms: name at least one of {', '.join(known)}")
    if problems:
        raise BadInput(problems)
    return words


def run(ask: Ask, console: Console) -> dict[str, Any]:
    """Does everything that is asked and returns the content of results.json; talks to `console` (stderr)."""
    began = time.monotonic()
    plan, lines = prepare(ask)
    claims = load_claims(plan)
    return execute(plan, claims, ask, console, lines, began)


def load_claims(plan: Plan) -> tuple[list[Any], str | None]:
    """The experiment's claims and the hash of their file."""
    if plan.experiment.claims is None:
        return [], None
    from repro.claims_file import load_claims as load

    claims, digest = load(Path(plan.experiment.claims), evals.METRICS)
    return [claim for claim in claims if claim.get("pack") in (None, plan.experiment.pack)], digest


def execute(
    plan: Plan, claims: tuple[list[Any], str | None], ask: Ask, console: Console, lines: list[str], began: float
) -> dict[str, Any]:
    """Opens the run folder, does the missing steps, writes the results. See `run`."""
    from repro import judging

    judging.choose(ask.judge, plan)  # a judge that there is not is told before anything is trained
    root = ask.runs_dir / plan.folder_name
    warn = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    mirror = None if ask.mirror is None else Mirror(ask.mirror, root, warn)
    if mirror:
        mirror.give_back_manifest(plan.digest)
    registered = registered_claims(root, claims[1])
    with opened(root, plan.digest, manifest(plan, ask) | {"claims_hash": registered}, mirror) as folder:
        lines = [*lines, *borrow(plan, root, [*ask.borrow, *beside(ask.runs_dir, root)])]
        if mirror:
            count = mirror.give_back((key, plan.steps[key].folder) for key in missing(plan, root))
            lines = [*lines, *([f"{count} finished steps come from the mirror {mirror.copy}"] if count else [])]
            mirror.start()
        made_of = {"claims": [claims[1], registered], "command": ask.command, "folder": str(root),
                   "experiment": plan.experiment.model_dump(mode="json", by_alias=True)}  # fmt: skip
        # a reader's verdicts and budget are its own affair: only the offline judge always says the same
        lasting = ask.judge.name == "offline" or (ask.judge.name == "auto" and plan.experiment.pack == "micro")
        if lasting and not missing(plan, root):
            kept = uptodate.results(root, uptodate.stamp(plan, root, **made_of))
            if kept is not None:
                said = f"all {len(plan.steps)} steps are there already, and the comparison is as it was: {root}"
                console.print(said, markup=False, highlight=False)
                return kept
        threading.Thread(target=_prepare_to_compare, daemon=True).start()  # this process only waits meanwhile
        failures = work(plan, root, folder, ask, console, lines)
        if failures:
            raise failed(failures)
        content = _compare(plan, folder, claims, registered, ask, began)
        uptodate.note(root, uptodate.stamp(plan, root, **made_of))
        store.sweep(root, unfinished=True)
        files = {name: store.hash_file(root / name) for name in FILES}
        folder.journal("run finished", seconds=round(time.monotonic() - began, 1), files=files)
        console.print(f"finished in {duration(time.monotonic() - began)}: {root}", markup=False, highlight=False)
        return content


def work(
    plan: Plan, root: Path, folder: store.RunFolder, ask: Ask, console: Console, lines: list[str]
) -> list[Failure]:
    """Does the plan's missing steps in its open folder, and says what it does; what failed."""
    reasons = missing(plan, root)
    todo = [plan.steps[key] for key in reasons]
    ray = None
    if todo and ask.ray is not None:
        from repro import rays

        ray = rays.connect(ask.ray, ask.workers)
        workers, threads, device = rays.crew(ray, small_model(plan), ask.workers, ask.gpu_gib is not None)
    else:
        workers, threads, device = crew(plan, todo, ask.workers)
    if device == "cuda":
        require_fit(plan)
    expected = expected_seconds(todo, workers)
    folder.journal("run started", arms=plan.arms, seeds=plan.seeds, prompting=plan.prompting, todo=len(todo),
                   workers=workers, threads=threads, device=device, versions=doctor.versions())  # fmt: skip
    with Display(console, {step.key: step.seconds or 1.0 for step in todo}, expected) as display:
        time_needed = "" if expected is None else f", about {duration(expected)}"
        how = f"{workers} worker{'s' * (workers > 1)} of {threads} thread{'s' * (threads > 1)}, device {device}"
        damaged = [f"{plan.steps[key].title}: {why}: it is made again" for key, why in reasons.items()
                   if why in store.DAMAGED or why.endswith(store.CHANGED)]  # fmt: skip
        for line in [*lines, *_opening(plan, root, len(todo), how + time_needed), *damaged]:
            display.say(line)
        link_shared(plan, root)
        failures = []
        if todo:
            from repro import pool

            do = partial(pool.work, lock=folder.lock) if ray is None else partial(rays.work, ray)
            try:
                failures = do(plan, todo, root, workers=workers, threads=threads, device=device,
                              backend=ask.backend, display=display, note=folder.journal)  # fmt: skip
            finally:
                if ray is not None:
                    ray.shutdown()
        link_shared(plan, root)
    return failures


def beside(runs_dir: Path, root: Path) -> list[Path]:
    """The run folders and sweeps that lie beside this one."""
    found = [path.parent for pattern in ("*", f"{SWEEPS}/*") for path in runs_dir.glob(f"{pattern}/manifest.json")]
    return [path for path in sorted(found) if path != root]


def elsewhere(plan: Plan, keys: Iterable[str], others: Sequence[Path]) -> dict[str, Path]:
    """For each of the keys that some other run folder has finished: the first such folder."""
    found = {}
    for key in keys:
        step = plan.steps[key]
        for other in others:
            if store.is_done(locate(step, other), key):
                found[key] = other
                break
    return found


def borrow(plan: Plan, root: Path, others: Sequence[Path]) -> list[str]:
    """Takes the plan's steps that are missing in `root` from other run folders that have finished the same: by key.
    Says so in a line or none."""
    taken = 0
    for key, other in elsewhere(plan, missing(plan, root), others).items() if others else ():
        step = plan.steps[key]
        taken += store.adopt(locate(step, other), root / step.folder, key)
    return [f"taken from other runs here, which finished the same: {taken} of {len(plan.steps)} steps"] if taken else []


def require_fit(plan: Plan) -> None:
    """Raises CannotHere where some stage does not fit into the GPU, whatever its micro-batch."""
    lacking = [fit for fit in estimate.fits(plan) if not fit.fits]
    if lacking and plan.gpu is not None:
        worst = max(lacking, key=lambda fit: fit.peak_gib)
        raise CannotHere(
            f"{plan.spec.id}: {worst.what} needs about {worst.peak_gib:.1f} GiB even with one row at a time, "
            f"and the GPU has {plan.gpu.total_gib:.1f}; {estimate.advice(plan, recipes.presets())}"
        )


def _opening(plan: Plan, root: Path, todo: int, how: str) -> list[str]:
    steps = len(plan.steps)
    opening = [
        f"model {plan.spec.id}, arms {', '.join(plan.arms)}, seeds {', '.join(map(str, plan.seeds))}; "
        f"pack {plan.experiment.pack}, quant {plan.experiment.quant}",
        f"run folder {root}",
    ]
    if todo:
        kept = f"{steps - todo} of {steps} steps are there already, " if todo < steps else ""
        opening.append(f"{kept}{todo} to do with {how}")
    else:
        opening.append(f"all {steps} steps are there already: only the comparison is made again")
    return opening


def failed(failures: list[Failure]) -> Failed:
    lines = []
    for failure in failures:
        lines += [f"{failure.step.title} failed: {line}" for line in failure.lines]
        lines.append(f"  log: {failure.log}")
    codes = {failure.exit_code for failure in failures}
    lines.append("what is finished is kept; the same command tries the rest again")
    return Failed(lines, codes.pop() if len(codes) == 1 else 1)


def crew(plan: Plan, todo: list[Step], asked: int | None) -> tuple[int, int, str]:
    """(workers, threads of each, device): as many workers as cores, chains and memory allow; one where a GPU works.

    A model of a few megabytes stays on the CPU, with one thread a worker: more only wait for each other.
    """
    small = small_model(plan)
    if plan.spec.path_or_hub.startswith("openai:"):
        return 1, 1, "cpu"
    chains = len({(step.arm, step.seed) for step in todo})
    if todo and not small and doctor.cuda_problem() is None:
        return asked or 1, max(1, doctor.cores() // (asked or 1)), "cuda"
    if asked is None:
        free = doctor.memory_gib()
        room = int(free / doctor.MEMORY_A_WORKER_GIB) if free else doctor.cores()
        asked = max(1, min(doctor.cores(), chains, room)) if small else 1
    threads = 1 if small else max(1, doctor.cores() // asked)
    return asked, min(threads, int(os.environ.get("OMP_NUM_THREADS") or threads)), "cpu"


def small_model(plan: Plan) -> bool:
    """Whether the base is of a few megabytes."""
    folder = local_folder(plan.spec)
    bytes_of = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder else None
    return bytes_of is not None and bytes_of < doctor.SMALL_MODEL_MB * 1_000_000


def registered_claims(root: Path, digest: str | None) -> str | None:
    """The hash of the claims as they were when the run began: those are the pre-registered ones."""
    try:
        return json.loads((root / "manifest.json").read_text(encoding="utf-8")).get("claims_hash") or digest
    except (OSError, ValueError, AttributeError):
        return digest


def _prepare_to_compare() -> None:
    import repro.claims
    import repro.report.page  # noqa: F401  (scipy and matplotlib take a second)


def _compare(
    plan: Plan, folder: store.RunFolder, claims: tuple[list[Any], str | None], registered: str | None, ask: Ask,
    began: float,
) -> dict[str, Any]:  # fmt: skip
    from repro import changes, judging, outcome

    root, judged = folder.path, time.monotonic()
    rows, judge, said = judging.read(plan, root, ask.judge)
    folder.journal("answers judged", answers=len(rows), seconds=round(time.monotonic() - judged, 2))
    about = {
        "name": plan.experiment.name, "folder": str(root), "command": ask.command, "version": repro.__version__,
        "finished": store.now(), "seconds": round(time.monotonic() - began, 1), "adapters": adapters(plan, root),
    }  # fmt: skip
    changed = claims[1] != registered
    warnings = ["claims: their file changed after this run began, so its verdicts are exploratory."] if changed else []
    content = outcome.results(plan, root, rows, about, claims, judge, [*warnings, *changes.mixed(plan, root), *said])
    content = judging.with_labels(root, rows, {**content, "claims_changed": changed})
    outcome.write(root, rows, content)
    return content


def adapters(plan: Plan, root: Path) -> dict[str, dict[str, str]]:
    """{arm: {seed: folder of its last adapter, relative to the run}} of the arms that are trained."""
    found: dict[str, dict[str, str]] = {}
    for (arm, seed), keys in plan.stages.items():
        if keys:
            found.setdefault(arm, {})[str(seed)] = locate(plan.steps[keys[-1]], root).relative_to(root).as_posix()
    return found
