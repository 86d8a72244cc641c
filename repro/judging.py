"""Which judge reads a run's answers, and what people's labels say of it: between a run's answers and its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import doctor, estimate, outcome, recipes, store
from repro.errors import BadInput, CannotHere, ReproError
from repro.judges import OWN, JudgeAsk, own
from repro.judges.reader import Budget, Choice, Reader, parse, same_model
from repro.judges.second import READ, READ_ALL, two_passes
from repro.keys import base_fingerprint

if TYPE_CHECKING:
    from repro.plan import Plan

SHEET = "sheet.jsonl"  # in the run folder: people's labels of some of its answers
Row = dict[str, Any]


class Late:
    """A model that is loaded when it is first asked: where every verdict is cached, it never is."""

    def __init__(self, spec: Any, quant: str) -> None:
        self._spec, self._quant = spec, quant
        self._model: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._model is None:
            self._model = self._load()
        return getattr(self._model, name)

    def _load(self) -> Any:
        """The model; CannotHere for whatever keeps a judge from loading, since the run's answers stand without it."""
        from repro import models

        try:
            return models.load(self._spec, quant=self._quant)
        except ReproError:
            raise
        except Exception as error:  # libraries and drivers fail in many ways
            raise CannotHere(f"the judge {self._spec.id} can't be loaded: {type(error).__name__}: {error}") from error


def choose(ask: JudgeAsk, plan: Plan) -> Choice:
    """The judge that is meant. BadInput for one that cannot be."""
    if ask.name == "auto":
        on_gpu = plan.experiment.pack == "english" and doctor.cuda_problem() is None
        return parse("local" if on_gpu else "offline")
    return parse("offline" if ask.name in OWN else ask.name)


def open_reader(choice: Choice, ask: JudgeAsk, plan: Plan, cache: Path | None) -> Reader | None:
    """The reader of the choice, its verdicts kept in `cache`; None offline. BadInput for a model that judges itself."""
    if choice.kind == "offline":
        return None
    spec = recipes.resolve_model(str(choice.model))
    subjects = [step.spec or plan.spec for step in plan.steps.values()]
    if not ask.itself and any(same_model(spec, subject) for subject in subjects):
        raise BadInput(f"--judge {ask.name}: a model would judge itself; name another, or allow it with --judge-self")
    spec = estimate.on_gpu(spec, choice.quant, doctor.gpu(), [])
    budget = Budget(ask.tokens, ask.cost, ask.cost_per_million)
    name = f"{spec.id} {base_fingerprint(spec)[-12:]}"
    return Reader(Late(spec, choice.quant), name, cache=cache, budget=budget)


def read(plan: Plan, root: Path, ask: JudgeAsk) -> tuple[list[Row], Row, list[str]]:
    """(labelled answers, what results.json says of the judge, warnings).

    Where "auto" finds no reader that works here, the pack's own judge labels alone, and a warning says why.
    """
    choice = choose(ask, plan)
    first = own(ask.name, plan.pack.judge) if ask.name in OWN else plan.pack.judge
    about = {"name": f"{first.NAME} {first.VERSION}", **getattr(first, "AGREEMENT", {"kappa": None, "n": None})}
    try:
        reader = open_reader(choice, ask, plan, root / "verdicts.jsonl")
        if reader is None:
            return outcome.label_answers(plan, root, first), about, []
        reads = READ_ALL if ask.all else READ
        rows, judge = two_passes(lambda one: outcome.label_answers(plan, root, one), first, reader, reads)
    except ReproError as error:
        if ask.name != "auto":
            raise
        why = f"judge: no reader here ({error.lines[0]}); {first.NAME} alone."
        return outcome.label_answers(plan, root), about, [why]
    warnings = judge.lines()
    if ask.itself:
        warnings.append("judge: a model may have judged itself (--judge-self).")
    return rows, {**about, "name": f"{judge.NAME} {judge.VERSION}"}, warnings


def with_labels(root: Path, rows: list[Row], content: Row) -> Row:
    """The results with what people's labels add, where the run folder holds a labelled sheet.

    That is the judge's agreement with them, and corrected rates of the arms and metrics with enough labels.
    """
    path = root / SHEET
    if not path.exists():
        return content
    from repro import correction
    from repro.judges import calibration, sheet
    from repro.judges.rubrics import VALUES

    labelled = sheet.joined(path)
    if not labelled:
        return content
    overall = calibration.calibrate(path)["overall"]
    first = [row for row in rows if row["prompting"] == rows[0]["prompting"]]
    corrected = correction.corrected_rates(first, labelled, VALUES, table=content["metrics"])
    judge = {**content["judge"], "kappa": overall["kappa"], "n": overall["n"], "data": "this run"}
    return {**content, "judge": judge, "corrected": corrected}


def rows_of(run: Path) -> list[Row]:
    """The answers of a run, for a sheet. BadInput where it has none yet."""
    path = run / "answers.jsonl"
    if not path.is_file():
        raise BadInput(f"{run} has no answers yet: the command that began it resumes it")
    return store.read_jsonl(path)
