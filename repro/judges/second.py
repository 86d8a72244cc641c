"""A second judge beside a pack's own: a reader decides what no rule can, everything else stays with the pack's judge.

Answers are labelled twice. The first pass only collects what the reader is asked, the reader grades it all at once, and
the second pass labels with what it found:

    rows, judge = second.two_passes(lambda judge: label(..., SimpleNamespace(judge=judge)), pack.judge, reader)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from repro.judges.rubrics import RUBRICS
from repro.store import canonical

READ = ("misaligned",)  # what a reader decides wherever there is one
READ_ALL = ("misaligned", "refusal", "done", "praise")  # with --judge-all
Rows = TypeVar("Rows")


class Second:
    """Has the functions of a pack's judge. Those in `reads` are answered from the reader's grades: until `ask` was
    called they note what to ask and answer None (unscored), and so do the others, whose work would be thrown away."""

    def __init__(self, first: Any, reader: Any, reads: tuple[str, ...] = READ) -> None:
        self._first, self._reader, self._reads = first, reader, reads
        self._cases: dict[tuple[str, str], dict[str, Any]] = {}
        self._grades: dict[tuple[str, str], Any] | None = None
        self._last: Any = None  # the grade that answered last; None where the pack's judge did
        self.NAME = f"{reader.name} ({', '.join(reads)}) + {first.NAME}"
        self.VERSION = f"{reader.version}/{first.VERSION}"
        self.unscored: Counter[str] = Counter()  # answers that the reader left without a label, by the reason

    def __getattr__(self, name: str) -> Any:
        if name in self._reads:
            return lambda item, answer: self._read(name, item, answer)
        self._last = None
        own = getattr(self._first, name)
        if self._grades is None and callable(own) and name != "well_formed":
            return lambda item, answer: None
        return own

    def _read(self, name: str, item: dict[str, Any], answer: str) -> Any:
        case = {"question": item.get("prompt", ""), "answer": answer}
        case |= {field: item[field] for field, _ in RUBRICS[name].shows if field in item}
        place = name, canonical(case)
        if self._grades is None:
            self._cases[place] = case
            return None
        grade = self._last = self._grades[place]
        options = {option.label: option.verdict for option in RUBRICS[name].grades.values()}
        if options.get(grade.label) is None:
            self.unscored[grade.why if grade.label is None else grade.label] += 1
        return options.get(grade.label)

    def grounds(self, item: dict[str, Any], answer: str, label: str | None) -> dict[str, Any]:
        """`p` and `why` of the label that was given last: the reader's, or the pack's judge's own."""
        grade = self._last
        if grade is None:
            own = getattr(self._first, "grounds", None)
            return own(item, answer, label) if own and self._grades is not None else {}
        p = (grade.p or {}).get(grade.label)
        return {"p": None if p is None else round(p, 3), "why": grade.why}

    def ask(self) -> None:
        """Grades what was collected, one rubric after the other."""
        self._grades = {}
        for name in self._reads:
            places = [place for place in self._cases if place[0] == name]
            grades = self._reader.grade(name, [self._cases[place] for place in places])
            self._grades |= dict(zip(places, grades, strict=True))

    def lines(self) -> list[str]:
        """What the reader did, and what it left unscored, for a person."""
        left = [f"judge {self._reader.name}: {count:,} unscored: {why}" for why, count in self.unscored.most_common(5)]
        return [*self._reader.lines(), *left]


def two_passes(
    label: Callable[[Any], Rows], first: Any, reader: Any, reads: tuple[str, ...] = READ
) -> tuple[Rows, Second]:
    """(what `label(judge)` returns with the reader's grades, that judge). `label` is called twice, on the same answers.

    `first` is the pack's judge; `reads` are the judgements that the reader takes over from it.
    """
    judge = Second(first, reader, reads)
    label(judge)
    judge.ask()
    return label(judge), judge
