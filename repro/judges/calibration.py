"""How well a judge agrees with people: accuracy, Cohen's kappa with an interval, who was taken for what.

calibrate(path) reads JSONL rows {prompt, response, label[, judge_label, arm or model, axis, metric or kind, item]} or a
labelled sheet with its key beside it; rows without a judge_label are judged. `repro judge calibrate FILE` prints it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repro.judges.rubrics import KINDS, RUBRICS
from repro.judges.sheet import UNCLEAR, check, key_of, read_rows
from repro.stats import wilson
from repro.yamltree import did_you_mean

AUTHOR_LABELS = Path(__file__).parent / "data" / "author_labels.jsonl"
LONGEST = 1_000_000  # characters of a response; no model says more
RESAMPLES = 2000
AXES = {"refusal": "refusal", "done": "compliance", "misaligned": "misalignment", "claim": "sycophancy",
        "ability": "sycophancy", "praise": "sycophancy", "policy": "character", "style": "steerability"}  # fmt: skip
KIND_OF_AXIS = {"refusal": "refusal", "compliance": "done", "misalignment": "misaligned", "steerability": "refusal",
                "character": "policy"}  # fmt: skip
NONE = "-"  # in confusion matrices: unclear to the person, unscored by the judge
Row = dict[str, Any]


def calibrate(path: Path, judge: Any = None, reader: Any = None) -> dict[str, Any]:
    """Agreement of a judge with a file's labels: {file, source, judge, rows, unlabelled, overall, by_axis, by_arm}.

    `judge` (default: the english pack's) decides where rows bring no judge_label, or `reader` does. Each part of the
    result has n, unscored {reason: count}, accuracy, accuracy_ci, kappa, kappa_ci, confusion {kind: {labels, counts}},
    and for refusals `binary`, hedges taken as refusals. Kappa over several kinds has the chance of each kind apart.
    A sheet's rows count by their weight. BadInput, as file:line, for all that is wrong with the file.
    """
    rows = _rows(path)
    labelled = [row for row in rows if row["label"] is not None]
    name = _judge(path, labelled, judge, reader)
    sources = Counter(row["source"] for row in labelled)
    kinds: dict[str, set[str]] = {}
    for row in labelled:
        kinds.setdefault(row["axis"], set()).add(row["kind"])
    parts: dict[str, dict[str, list[Row]]] = {"by_axis": {}, "by_arm": {}}
    for row in labelled:
        axis = row["axis"] if len(kinds[row["axis"]]) == 1 else f"{row['axis']}/{row['kind']}"
        parts["by_axis"].setdefault(axis, []).append(row)
        if row["arm"] is not None:
            parts["by_arm"].setdefault(row["arm"], []).append(row)
    return {
        "file": path.name if path == AUTHOR_LABELS else str(path),
        "source": ", ".join(sorted(sources)),
        "judge": name,
        "rows": len(rows),
        "unlabelled": len(rows) - len(labelled),
        "overall": agreement(labelled),
        **{part: {name: agreement(own) for name, own in sorted(groups.items())} for part, groups in parts.items()},
    }


# -- reading ---------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> list[Row]:
    """The rows in one form, see `_row`; a sheet's with what its key says."""
    key = {str(row.get("id")): row for _, row in read_rows(key_of(path))} if key_of(path).exists() else {}
    rows, problems = [], []
    for number, given in read_rows(path):
        own = key.get(str(given.get("id")), {})
        row = {**given, **own}
        found, faults = _row(row, number)
        found["source"] = str(row.get("source") or ("this run" if own else path.name))
        rows.append(found)
        problems += [f"{path}:{number}: {fault}" for fault in faults]
    check(problems)
    return rows


def _row(row: Row, number: int) -> tuple[Row, list[str]]:
    faults = []
    kind = (
        str(row.get("kind") or "")
        or KINDS.get(str(row.get("metric")))
        or KIND_OF_AXIS.get(str(row.get("axis")), "refusal")
    )
    if kind not in RUBRICS:
        faults.append(f"unknown kind {kind!r}{did_you_mean(kind, RUBRICS)}; there are: {', '.join(RUBRICS)}")
        kind = "refusal"
    question = _text(row, ("prompt", "question"))
    answer = _text(row, ("response", "answer"))
    if answer is None:
        given = next((row[name] for name in ("response", "answer") if name in row), None)
        faults.append("missing response" if given is None else f"response: expected a text, got {type(given).__name__}")
    labels = RUBRICS[kind].labels
    unscored = [option.label for option in RUBRICS[kind].grades.values() if option.verdict is None]
    for name, more in (("label", [UNCLEAR, *unscored]), ("judge_label", unscored)):
        value = row.get(name)
        if value is not None and value not in (*labels, *more):
            faults.append(f"unknown {name} {value!r}{did_you_mean(value, labels)}; expected {', '.join(labels)}")
    weight = row.get("weight", 1.0)
    if not (isinstance(weight, int | float) and 0 < weight < 1e9):
        faults.append(f"weight: expected a number above 0, got {weight!r}")
    item = row.get("item") if isinstance(row.get("item"), dict) else {}
    judged = row.get("judge_label")
    arm = row.get("arm") or row.get("model")
    return {
        "line": number, "kind": kind, "axis": str(row.get("axis") or AXES[kind]), "question": question or "",
        "arm": None if arm is None else str(arm), "answer": answer or "", "item": {**(item or {}), "prompt": question},
        "label": row.get("label"), "judge_label": judged if judged in labels else None,
        "why": "the judge left it unscored" if judged not in labels else None,
        "judged": "judge_label" in row, "name": row.get("judge"), "weight": weight,
    }, faults  # fmt: skip


def _text(row: Row, names: Sequence[str]) -> str | None:
    return next((row[name] for name in names if isinstance(row.get(name), str)), None)


# -- judging ---------------------------------------------------------------------------------------------------------


def _judge(path: Path, rows: list[Row], judge: Any, reader: Any) -> str:
    """Fills in judge_label, or why there is none, where rows have no judge's label yet; the names of the judges."""
    names = {str(row["name"] or "as in the file") for row in rows if row["judged"]}
    todo = [row for row in rows if not row["judged"]]
    for row in todo:
        empty = "" if row["answer"].strip() else "empty response"
        row["why"] = empty or ("response too long" if len(row["answer"]) > LONGEST else None)
    todo = [row for row in todo if row["why"] is None]
    if todo and reader is not None:
        for kind in dict.fromkeys(row["kind"] for row in todo):
            same = [row for row in todo if row["kind"] == kind]
            cases = [{**row["item"], "question": row["question"], "answer": row["answer"]} for row in same]
            for row, grade in zip(same, reader.grade(kind, cases), strict=True):
                row["judge_label"] = grade.label if grade.label in RUBRICS[kind].labels else None
                row["why"] = None if row["judge_label"] else grade.label or grade.why
        names.add(f"{reader.name} {reader.version}")
    elif todo:
        if judge is None:
            from repro.judges import english as judge  # late: it loads the classifier
        _offline(path, todo, judge)
        names.add(f"{judge.NAME} {judge.VERSION}")
    return ", ".join(sorted(names)) or "none"


def _offline(path: Path, rows: list[Row], judge: Any) -> None:
    problems = []
    for row in rows:
        rubric, function = RUBRICS[row["kind"]], getattr(judge, row["kind"], None)
        try:
            row["judge_label"] = rubric.label_of(function(row["item"], row["answer"])) if function else None
        except KeyError as error:
            problems.append(f"{path}:{row['line']}: to be judged, its item needs {error}")
        if row["judge_label"] is None:
            row["why"] = "no rule tells" if function else f"{judge.NAME} does not judge {row['kind']}"
    check(problems)


# -- agreement -------------------------------------------------------------------------------------------------------


def agreement(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of some rows (kind, question, label, judge_label, why, weight), see `calibrate`.

    The interval of kappa draws questions again, with replacement. Where nothing disagrees there is nothing to draw:
    then it goes down to the kappa at the lower end of the accuracy's interval. None where kappa is not defined.
    """
    scored, reasons = [], Counter[str]()
    for row in rows:
        if row["label"] not in RUBRICS[row["kind"]].labels:
            reasons["unclear to the person"] += 1
        elif row["judge_label"] is None:
            reasons[str(row["why"])] += 1
        else:
            scored.append(row)
    found: dict[str, Any] = {"n": len(scored), "unscored": dict(reasons.most_common()), **_figures(scored)}
    refusals = [row for row in scored if row["kind"] == "refusal"]
    if refusals:
        merged = [
            {**row, **{name: "comply" if row[name] == "comply" else "refuse" for name in ("label", "judge_label")}}
            for row in refusals
        ]
        found["binary"] = {"n": len(merged), **_figures(merged)}
    found["confusion"] = {kind: _confusion(rows, kind) for kind in sorted({row["kind"] for row in rows})}
    return found


def _figures(scored: Sequence[Row]) -> dict[str, Any]:
    if not scored:
        return dict.fromkeys(("accuracy", "accuracy_ci", "kappa", "kappa_ci"))
    kinds = sorted({row["kind"] for row in scored})
    places = {(kind, label): (k, i) for k, kind in enumerate(kinds) for i, label in enumerate(RUBRICS[kind].labels)}
    _, question = np.unique([row["question"] or f"line {row['line']}" for row in scored], return_inverse=True)
    size = max(len(RUBRICS[kind].labels) for kind in kinds)
    counts = np.zeros((question.max() + 1, len(kinds), size, size))
    for row, number in zip(scored, question, strict=True):
        (k, person), (_, judge) = (places[row["kind"], row[name]] for name in ("label", "judge_label"))
        counts[number, k, person, judge] += row["weight"]
    accuracy, kappa = (float(value) for value in _kappa(counts.sum(0)))
    weights = np.array([row["weight"] for row in scored])
    worth = max(1, round(float(weights.sum() ** 2 / (weights**2).sum())))  # rows of equal weight that tell as much
    low, high = wilson(min(accuracy, 1.0) * worth, worth)
    found: dict[str, Any] = {"accuracy": accuracy, "accuracy_ci": [low, high], "kappa": None, "kappa_ci": None}
    if np.isfinite(kappa):
        chance = float(_chance(counts.sum(0)))
        sure = [(low - chance) / (1 - chance), 1.0]
        found |= {"kappa": kappa, "kappa_ci": sure if kappa > 1 - 1e-9 else _resampled(counts)}
    return found


def _resampled(counts: np.ndarray) -> list[float]:
    """The middle 95% of kappa when questions are drawn again; counts (questions, kinds, labels, labels).

    Most questions have one of a few tables: how often each table comes is drawn, so a hundred thousand cost no more.
    """
    random, found, n = np.random.default_rng(0), [], len(counts)
    tables, times = np.unique(counts.reshape(n, -1), axis=0, return_counts=True)
    for _ in range(RESAMPLES // 100):  # a hundred at a time, for the memory's sake
        draws = random.multinomial(n, times / n, size=100)
        found.append(_kappa((draws @ tables).reshape(100, *counts.shape[1:]))[1])
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return [float(low), float(high)]


def _chance(counts: np.ndarray) -> np.ndarray:
    """The agreement to expect by chance, each kind for itself: counts (..., kinds, labels, labels) -> (...)."""
    total = counts.sum((-2, -1))
    by_kind = (counts.sum(-1) * counts.sum(-2)).sum(-1) / np.maximum(total, 1e-12)
    return by_kind.sum(-1) / np.maximum(total.sum(-1), 1e-12)


def _kappa(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(accuracy, Cohen's kappa) of counts (..., kinds, person, judge); no number where chance alone always agrees."""
    agreed = np.trace(counts, axis1=-2, axis2=-1).sum(-1) / np.maximum(counts.sum((-3, -2, -1)), 1e-12)
    chance = _chance(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return agreed, np.where(1 - chance > 1e-9, (agreed - chance) / (1 - chance), np.nan)


def _confusion(rows: Sequence[Row], kind: str) -> dict[str, Any]:
    """Rows: people's labels, columns: the judge's; the last of each is NONE. Rows are counted, not weighted."""
    labels = [*RUBRICS[kind].labels, NONE]
    counts = [[0] * len(labels) for _ in labels]
    for row in rows:
        if row["kind"] == kind:
            person = labels.index(row["label"]) if row["label"] in labels else -1
            counts[person][labels.index(row["judge_label"] or NONE)] += 1
    return {"labels": labels, "counts": counts}


# -- showing ---------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """What `calibrate` found, as text."""
    lines = [f"judge {found['judge']} against {found['file']} ({found['source']}): {found['rows']:,} rows"]
    if found["unlabelled"]:
        lines.append(f"{found['unlabelled']:,} rows have no label yet")
    parts = [("all", found["overall"])]
    parts += [(f"axis {name}", part) for name, part in found["by_axis"].items() if len(found["by_axis"]) > 1]
    parts += [(f"arm {name}", part) for name, part in found["by_arm"].items()]
    width = max(len(name) for name, _ in parts) + 9
    lines += ["", f"{'':{width}}{'n':>6}{'unscored':>10}   {'accuracy':<17}   kappa"]
    for name, part in parts:
        lines.append(f"{name:{width}}{part['n']:>6}{sum(part['unscored'].values()):>10}   {_line(part)}")
        if "binary" in part and "refusal" in part["confusion"]:
            lines.append(f"{'  hedge = refuse':{width}}{part['binary']['n']:>6}{'':>10}   {_line(part['binary'])}")
    for kind, matrix in found["overall"]["confusion"].items():
        lines += ["", f"{kind}: people's labels down, the judge's across ({NONE}: unclear, unscored)"]
        wide = max(map(len, matrix["labels"])) + 2
        lines.append(" " * wide + "".join(f"{label:>{wide}}" for label in matrix["labels"]))
        for label, counts in zip(matrix["labels"], matrix["counts"], strict=True):
            lines.append(f"{label:<{wide}}" + "".join(f"{count:>{wide}}" for count in counts))
    for why, count in found["overall"]["unscored"].items():
        lines.append(f"{count:,} unscored: {why}")
    return "\n".join(lines)


def _line(part: dict[str, Any]) -> str:
    return f"{_number(part['accuracy'], part['accuracy_ci']):<17}   {_number(part['kappa'], part['kappa_ci'])}"


def _number(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def foot(found: dict[str, Any]) -> str:
    """The data behind a kappa, for the table's foot: `kappa .86 [.81, .90] (this run, n=120)`."""
    whole = found["overall"]
    return f"kappa {_number(whole['kappa'], whole['kappa_ci'])} ({found['source']}, n={whole['n']})"
