"""Labelling sheets: some of a run's answers, the arms hidden, for a person to label with one key each.

A sheet is JSONL and holds the labels too; SHEET.key.jsonl beside it says which arm gave each answer and what the judge
said. Labels balance what is labelled, so `weight` in the key says how many of the run's answers a row stands for.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from repro import jsonl, store
from repro.errors import BadInput
from repro.judges.rubrics import KINDS, RUBRICS
from repro.yamltree import did_you_mean

UNCLEAR = "unclear"  # a person's label where none of the others fits: counted, never scored
LEFT_OUT = ("style",)  # a rule decides these, and their questions would show the arm's system prompt
Row = dict[str, Any]


def sample(
    rows: Iterable[Row], n: int, seed: int = 0, axes: Sequence[str] | None = None
) -> tuple[list[Row], list[Row]]:
    """(sheet, key) of at most `n` answers of a run's answers.jsonl, in turn from each arm, axis and judge's label.

    Only answers that are finished or labelled, of the first prompting strategy and of the last step of training, on
    what people can judge. BadInput where none is left, for an unknown axis, and for an `n` below 1.
    """
    if n < 1:
        raise BadInput(f"-n {n}: expected 1 or more")
    able = [row for row in rows if _can_be_judged(row)]
    able = [row for row in able if row["prompting"] == able[0]["prompting"]]
    known = sorted({row["axis"] for row in able})
    unknown = [f"axis {axis!r}: no answer of it can be labelled{did_you_mean(axis, known)}" for axis in axes or ()
               if axis not in known]  # fmt: skip
    if unknown:
        raise BadInput([*unknown, f"axes with such answers: {', '.join(known) or 'none'}"])
    able = [row for row in able if axes is None or row["axis"] in axes]
    if not able:
        raise BadInput("there is no answer to label: none is finished, or all have exact answers")
    random.Random(f"sheet/{seed}").shuffle(able)
    chosen = list(_in_turn(able, ("arm", "axis", "label")))[:n]
    everywhere, here = Counter(map(_stratum, able)), Counter(map(_stratum, chosen))
    random.Random(f"sheet/order/{seed}").shuffle(chosen)
    sheet, key = [], []
    for row in chosen:
        place = [seed, row["prompting"], row["arm"], row["seed"], row["item"], row["sample"]]
        name = hashlib.sha256(store.canonical(place).encode()).hexdigest()[:12]
        rubric = RUBRICS[KINDS[row["metrics"][0]]]
        sheet.append(
            {"id": name, "axis": row["axis"], "kind": rubric.name, "question": _shown(row["messages"]),
             "answer": row["answer"], "labels": rubric.labels, "label": None}
        )  # fmt: skip
        weight = everywhere[_stratum(row)] / here[_stratum(row)]
        key.append(
            {"id": name, **{field: row[field] for field in ("arm", "seed", "item", "sample", "prompting", "judge")},
             "metric": row["metrics"][0], "judge_label": row["label"], "weight": round(weight, 6)}
        )  # fmt: skip
    return sheet, key


def _can_be_judged(row: Row) -> bool:
    kind, readable = KINDS.get(row["metrics"][0]), row["finished"] or row["label"] is not None
    return bool(row["dose"] is None and readable and row["answer"].strip() and kind and kind not in LEFT_OUT)


def _stratum(row: Row) -> tuple[Any, ...]:
    return row["arm"], row["axis"], row["label"]


def _in_turn(rows: list[Row], keys: Sequence[str]) -> Iterator[Row]:
    """The rows in an order in which the first key's values take turns, within each the next key's, and so on."""
    if not keys:
        yield from rows
        return
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[keys[0]], []).append(row)
    turns = [_in_turn(groups[value], keys[1:]) for value in sorted(groups, key=str)]
    while turns:
        going_on = []
        for turn in turns:
            if (following := next(turn, None)) is not None:
                yield following
                going_on.append(turn)
        turns = going_on


def _shown(messages: list[dict[str, str]]) -> str:
    """The question; turns before it with their roles. A system prompt would show the arm, and no label rests on it."""
    turns = [message for message in messages if message["role"] != "system"]
    before = [f"{'User' if turn['role'] == 'user' else 'Model'}: {turn['content']}" for turn in turns[:-1]]
    return "\n".join([*before, f"User: {turns[-1]['content']}"]) if before else turns[-1]["content"]


def key_of(path: Path) -> Path:
    """The key's file beside a sheet's."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.key.jsonl")


def write(path: Path, sheet: list[Row], key: list[Row]) -> None:
    """Writes the sheet and its key. BadInput where either is there: it may hold labels."""
    for place in (path, key_of(path)):
        if place.exists():
            raise BadInput(f"{place} is there already, perhaps with labels: give another file")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"{path}: expected a file in a folder that exists")
    store.write_jsonl(key_of(path), key)
    store.write_jsonl(path, sheet)


# -- reading ---------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """(line number, row) of a JSONL file; BadInput with each line that is no JSON object, as file:line."""
    rows, problems = [], []
    for number, line in jsonl.lines(path):
        try:
            row = jsonl.parse(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
        else:
            if isinstance(row, dict):
                rows.append((number, row))
            else:
                problems.append(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
    check(problems)
    if not rows:
        raise BadInput(f"{path}: no rows")
    return rows


def check(problems: list[str]) -> None:
    """Raises BadInput with the first 20 of the problems, and how many more there are."""
    if problems:
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise BadInput(problems[:20] + more)


def _read_sheet(path: Path) -> list[Row]:
    problems, rows = [], []
    for number, row in read_rows(path):
        labels = row.get("labels")
        if not (isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels)):
            problems.append(f"{path}:{number}: a sheet's row has a list of labels")
        elif not all(isinstance(row.get(name), str) for name in ("id", "question", "answer")):
            problems.append(f"{path}:{number}: a sheet's row has the texts id, question and answer")
        elif row.get("label") not in (None, UNCLEAR, *labels):
            allowed = f"{', '.join(labels)} or {UNCLEAR}"
            problems.append(f"{path}:{number}: unknown label {row['label']!r}; expected {allowed}")
        rows.append(row)
    check(problems)
    return rows


def joined(path: Path) -> list[Row]:
    """The labelled rows of a sheet with what its key says (arm, metric, judge_label, weight): for correction.py.

    BadInput where the key is missing or belongs to another sheet.
    """
    key = {row.get("id"): row for _, row in read_rows(key_of(path))}
    rows = [row for row in _read_sheet(path) if row["label"] is not None]
    check([f"{key_of(path)}: no entry for the row {row['id']}" for row in rows if row["id"] not in key])
    return [{**row, **key[row["id"]]} for row in rows]


# -- labelling -------------------------------------------------------------------------------------------------------


def annotate(path: Path, key: Callable[[], str] | None = None, say: Callable[[str], None] = print) -> tuple[int, int]:
    """Asks for the labels that a sheet lacks, one key each; (labelled rows, rows in all).

    Each answer is on the disk before the next question. u takes the last one back, q (or the end of input) stops; the
    same command goes on. The same answer to the same question is asked once.
    """
    key = key or keypress
    rows = _read_sheet(path)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*row["labels"], row["question"], row["answer"]), []).append(row)
    asked = list(groups.values())
    for same in asked:
        _label(same, next((row["label"] for row in same if row["label"] is not None), None))
    changed = False
    while True:
        place = next((i for i, same in enumerate(asked) if same[0]["label"] is None), len(asked))
        if place == len(asked) and not changed:
            break
        pressed, label = _ask(asked, place, key, say)
        if pressed == "u" and place == 0:
            say("  nothing to take back")
        elif pressed == "u" or label is not None:
            _label(asked[place - (pressed == "u")], label)
            store.write_jsonl(path, rows)
            changed = True
            say(f"  {label or 'taken back'}")
        else:
            break
    done = sum(row["label"] is not None for row in rows)
    left = "" if done == len(rows) else "; the same command goes on"
    say(f"{path}: {done} of {len(rows)} rows are labelled{left}")
    return done, len(rows)


def _label(same: list[Row], label: str | None) -> None:
    for row in same:
        row["label"] = label


def _ask(
    asked: list[list[Row]], place: int, key: Callable[[], str], say: Callable[[str], None]
) -> tuple[str, str | None]:
    """(the key pressed, the label it stands for): a label, u, or something that ends the work."""
    if place == len(asked):
        say("all are labelled; u takes the last one back, any other key ends")
        return key().lower(), None
    choices = _choices(asked[place][0]["labels"])
    say(_question(asked[place][0], choices, place, len(asked)))
    while (pressed := key().lower()) not in choices and pressed not in ("u", "q", "", "\x04"):
        say(f"  {pressed!r} is none of the keys: {_keys(choices)}")
    return pressed, choices.get(pressed)


def _choices(labels: list[str]) -> dict[str, str]:
    """What each key stands for: a label's number, its first letter where no other has it; 0 for none of them."""
    choices = {str(number): label for number, label in enumerate(labels, 1)}
    firsts = Counter(label[0].lower() for label in labels)
    choices |= {label[0].lower(): label for label in labels if firsts[label[0].lower()] == 1 and label[0] not in "uq"}
    return {**choices, "0": UNCLEAR}


def _keys(choices: dict[str, str]) -> str:
    by_label: dict[str, list[str]] = {}
    for pressed, label in choices.items():
        by_label.setdefault(label, []).append(pressed)
    shown = [f"{'/'.join(sorted(keys, reverse=True))} {label}" for label, keys in by_label.items()]
    return ", ".join([*shown, "u undo", "q quit"])


def _question(row: Row, choices: dict[str, str], place: int, total: int) -> str:
    rubric = RUBRICS.get(str(row.get("kind")))
    meanings = [f"  {option.label}: {option.meaning}" for option in rubric.grades.values()] if rubric else []
    asks = [rubric.asks if rubric else f"axis {row.get('axis')}", *meanings[: len(row["labels"])]]
    rule = "-" * 40
    texts = [f"\n{rule} {place + 1} of {total}", _plain(row["question"]), rule, _plain(row["answer"]), rule]
    return "\n".join([*texts, *asks, _keys(choices)])


def _plain(text: str) -> str:
    """The text without what would steer a terminal."""
    return "".join(character for character in text if character in "\n\t" or character.isprintable())


def keypress() -> str:
    """One key, without Enter where the input is a terminal; else the first letter of a line. Empty at the end."""
    try:
        import termios
        import tty
    except ImportError:  # no Unix
        termios = None  # type: ignore[assignment]
    if termios is None or not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip()[:1] or " " if line else ""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        return os.read(handle, 32).decode("utf-8", "replace")  # an arrow key is several letters, and none of ours
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
