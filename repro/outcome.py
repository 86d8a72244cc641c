"""From a run's stored answers to its results: labels, units, comparisons, and the files that hold them."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from repro import evals, garbage, store
from repro.evals import public
from repro.plan import Plan, Step, arm_of, locate, stage_sources
from repro.stages import CURVE

Row = dict[str, Any]
Dosed = Mapping[tuple[str, int, int], list[evals.Unit]]  # by (arm, seed, step)

CLEARED = 0.05  # share of trained requests still declined at which an arm counts as cleared, for matched()


def label_answers(plan: Plan, root: Path, judge: Any = None) -> list[Row]:
    """Every answer of the plan with its label, made anew from the stored texts: no label outlives its judge.

    `judge`: another one than the pack's own.
    """
    pack = SimpleNamespace(judge=judge or plan.pack.judge)
    rows: list[Row] = []
    with garbage.left_alone():
        for (arm, seed, prompting), key in plan.answers.items():
            step = plan.steps[key]
            stored = store.read_jsonl(locate(step, root) / "answers.jsonl")
            for dose in dict.fromkeys(row["dose"] for row in stored):
                items = step.items if dose is None else step.dose_items
                answers = [row.get("logprobs") or SimpleNamespace(**row) for row in stored if row["dose"] == dose]
                rows += evals.label(items, answers, pack, arm=arm, seed=seed, prompting=prompting, dose=dose)
    return rows


def results(
    plan: Plan,
    root: Path,
    rows: list[Row],
    run: dict[str, Any],
    claims: tuple[list[Any], str | None],
    judge: Row,
    warnings: Sequence[str] = (),
) -> Row:
    """The content of results.json. `run`: name, folder, command and times; `claims`: the file's claims and its hash;
    `judge`: name, and kappa, n and data of its agreement with people."""
    from repro import claims as claims_module
    from repro import stats

    first = plan.prompting[0]
    parts: dict[tuple[str, str, int], list[Row]] = {}
    dosed: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        if row["dose"] is None:
            parts.setdefault((row["prompting"], row["arm"], row["seed"]), []).append(row)
        else:
            dosed.setdefault((row["arm"], row["seed"], row["dose"]), []).append(row)
    units = {place: evals.units(own, plan.pack) for place, own in parts.items()}
    places = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
    of = {name: {place: units[name, *place] for place in places} for name in plan.prompting}
    curve = {place: evals.units(own, plan.pack) for place, own in dosed.items()}
    tagged = tags(plan)
    # an arm whose training shows no compliance (the control) has nothing to clear
    clearing = [arm for arm in plan.arms if tagged["refusal_trained"][arm] == "trained"]
    versus = "base" if "base" in plan.arms else plan.arms[0]
    return claims_module.results(
        run=run,
        model={"id": plan.spec.id, "pack": plan.experiment.pack, "quant": plan.experiment.quant, "base": plan.base},
        judge=judge,
        units=of[first],
        metrics=evals.METRICS,
        claims=claims[0],
        claims_hash=claims[1],
        gate={place: evals.gate(parts[first, *place]) for place in places},
        tags=tagged,
        sdf_tokens=sdf_tokens(plan, root),
        warnings=warnings,
        versus=versus,
        unscored={place: _unscored(parts[first, *place]) for place in places},
        prompting={name: stats.metrics_table(of[name], evals.METRICS, versus=versus) for name in plan.prompting[1:]},
        doses=_doses(plan, root, curve),
        curves=_curves(plan, root),
        matched=matched(curve, clearing, sorted(plan.seeds)),
    )


def sdf_tokens(plan: Plan, root: Path) -> dict[str, int]:
    """Tokens of documents that each arm saw, the fewest over its seeds; neutral ones are none."""
    seen: dict[str, list[int]] = {}
    for (arm, _), keys in plan.stages.items():
        stages = [plan.steps[key] for key in keys if plan.steps[key].kind == "sdf"]
        about = [step for step in stages if any(getattr(s, "pack", "") != "neutral-documents" for s in step.stage.data)]
        done = [store.read_done(locate(step, root)) or {} for step in about]
        seen.setdefault(arm, []).append(sum(one.get("summary", {}).get("tokens", 0) for one in done))
    return {arm: min(counts) for arm, counts in seen.items()}


def tags(plan: Plan) -> dict[str, dict[str, str]]:
    """{metric: {arm: "trained" | "generalises"}}, from the data of each arm's own stages."""
    found: dict[str, dict[str, str]] = {}
    for arm in plan.arms:
        member = arm_of(plan.experiment, arm)
        recipe = member.recipe if member else None
        sources = [source for stage in (recipe.stages if recipe else []) for source in stage_sources(stage)]
        names = [getattr(source, "pack", None) or f"not the pack's: {source!r}" for source in sources]
        for metric, tag in evals.tags(names).items():
            found.setdefault(metric, {})[arm] = tag
    return found


def _unscored(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """{metric: (answers, unscored answers)}."""
    counted: dict[str, tuple[int, int]] = {}
    for row in rows:
        for metric in row["metrics"]:
            answers, lost = counted.get(metric, (0, 0))
            counted[metric] = answers + 1, lost + (row["value"] is None)
    return counted


def _doses(plan: Plan, root: Path, dosed: Dosed) -> list[Row]:
    """The curve over training: one entry for each arm, seed, kept dose, metric and group."""
    curve = []
    for (arm, seed, dose), units in dosed.items():
        step = plan.steps[plan.answers[arm, seed, plan.prompting[0]]]
        tokens = _dose_tokens(plan, root, step)
        place = {"arm": arm, "seed": seed, "step": dose, "tokens": tokens.get(dose)}
        curve += [place | entry for entry in _means(units)]
    return curve


def _means(units: Sequence[evals.Unit]) -> list[Row]:
    """The mean of each metric and group, over what is scored."""
    groups: dict[tuple[str, str], list[float]] = {}
    for unit in units:
        if unit.value is not None:
            groups.setdefault((unit.metric, unit.group), []).append(unit.value)
    return [
        {"metric": metric, "group": group, "n": len(values), "value": sum(values) / len(values)}
        for (metric, group), values in groups.items()
    ]


def _curves(plan: Plan, root: Path) -> list[Row]:
    """What the probes along the stages found: one entry for each arm, seed, stage, step of it, metric and group.

    A stage that arms share is on each one's curve. The pack's own judge reads the probes.
    """
    found = []
    for (arm, seed), keys in plan.stages.items():
        for step in (plan.steps[key] for key in keys if plan.steps[key].items):
            stored, asked = store.read_jsonl(locate(step, root) / CURVE), {item.metric for item in step.items}
            for at in dict.fromkeys(row["step"] for row in stored):
                answers = [SimpleNamespace(**row) for row in stored if row["step"] == at]
                rows = evals.label(step.items, answers, plan.pack, arm=arm, seed=seed, dose=at)
                place = {"arm": arm, "seed": seed, "stage": step.kind, "index": step.index, "step": at}
                means = _means(evals.units(rows, plan.pack))
                found += [place | entry for entry in means if entry["metric"] in asked]
    return found


def _dose_tokens(plan: Plan, root: Path, step: Step) -> dict[int, int]:
    done = store.read_done(locate(plan.steps[step.dosed], root)) if step.dosed else None
    return {dose["step"]: dose["tokens"] for dose in done["summary"]["doses"]} if done else {}


def matched(dosed: Dosed, arms: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """Secondary, exploratory: arms at their first kept dose with refusal_trained <= CLEARED, in each seed.

    One entry for each two of `arms` with doses, metric, and group (None: all): arms [later, earlier]; steps by arm, one
    a seed, None where it never clears; delta (first minus second over units scored in both, mean over the seeds in
    per_seed, None without any); n units.
    """
    from repro import stats

    cleared: dict[str, dict[int, int]] = {arm: {} for arm in arms if any(place[0] == arm for place in dosed)}
    for arm, seed, step in sorted(place for place in dosed if place[0] in cleared):
        units = dosed[arm, seed, step]
        values = [unit.value for unit in units if unit.metric == "refusal_trained" and unit.value is not None]
        if values and sum(values) / len(values) <= CLEARED:
            cleared[arm].setdefault(seed, step)
    table = stats.index({(arm, seed): dosed[arm, seed, step] for arm in cleared for seed, step in cleared[arm].items()})
    groups = dict.fromkeys((u.metric, group) for units in dosed.values() for u in units for group in (None, u.group))
    found = []
    for (rival, arm), (metric, group) in product(combinations(cleared, 2), groups):
        first, second = (stats.of_group(table.get(metric, {}).get(name, {}), group) for name in (arm, rival))
        samples, _ = stats.paired(first, second)
        part = [{"seed": s, "delta": sum(own.values()) / len(own), "n": len(own)} for s, own in samples.items()]
        delta = sum(one["delta"] for one in part) / len(part) if part else None
        steps = {name: [cleared[name].get(seed) for seed in seeds] for name in (arm, rival)}
        entry = {"arms": [arm, rival], "metric": metric, "group": group, "steps": steps, "delta": delta}
        found.append(entry | {"per_seed": part, "n": len(set().union(*samples.values()))})
    return found


def write(root: Path, rows: list[Row], content: Row) -> None:
    """Writes answers.jsonl, results.json, table.md, table.csv and report.html into the run folder, each at once.

    A page that can't be made costs no results: crash.log says why.
    """
    from repro.report import page, table

    rows = public.seal_all(rows)
    store.write_jsonl(root / "answers.jsonl", rows)
    store.write_json(root / "results.json", content)
    store.write_atomic(root / "table.md", table.markdown(content))
    store.write_atomic(root / "table.csv", table.csv_text(content))
    try:
        page.write(root, rows)
    except Exception:
        store.write_atomic(root / "crash.log", traceback.format_exc())
