"""Labels a file of answers: rows {prompt, response} as JSONL in, the same rows with `label` and `p` out.

Rows keep their order, ids and other keys. An answer that can't be scored gets null for both and says `why`. A label
that a row already has is kept as `given_label`. The file is read line by line; if one is at fault, nothing is written.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from repro import jsonl
from repro.errors import BadInput
from repro.judges.refusal import LABELS, classify

CHUNK, CHUNK_BYTES = 500, 20_000_000  # rows, or bytes of them, in memory at once
SHOWN = 20  # faulty lines named in the message


class Counts(NamedTuple):
    """How many rows there were, by label, and unscored by reason."""

    rows: int
    labels: dict[str, int]
    unscored: int
    why: dict[str, int]


def label_file(path: Path, out: Path, on_rows: Callable[[int], None] | None = None) -> Counts:
    """Writes `out` from `path` (both JSONL; they may be the same file) and counts; `on_rows` hears of rows done.

    BadInput names every faulty line as file:line: not UTF-8, not JSON, no object, a prompt or response that is missing
    or not text. `out` then stays as it was.
    """
    if out.exists() and not out.is_file():
        raise BadInput(f"{out}: not a file that can be written")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
            counts = _label(path, file, on_rows)
        os.replace(unfinished, out)
    except OSError as error:
        raise BadInput(f"{out}: can't be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return counts


def _label(path: Path, file: TextIO, on_rows: Callable[[int], None] | None) -> Counts:
    labels: Counter[str] = Counter()
    why: Counter[str] = Counter()
    problems: list[str] = []
    chunk: list[dict[str, Any]] = []
    faults = rows = held = 0
    for number, row, size in _rows(path):
        if isinstance(row, str):
            faults += 1
            problems += [f"{path}:{number}: {row}"][: SHOWN - len(problems)]
            chunk = []
        elif not faults:
            chunk.append(row)
            held += size
        if len(chunk) >= CHUNK or held >= CHUNK_BYTES:
            rows += _write(file, chunk, labels, why)
            chunk, held = [], 0
            if on_rows:
                on_rows(rows)
    if faults:
        raise BadInput(problems + ([f"and {faults - SHOWN} more lines"] if faults > SHOWN else []))
    rows += _write(file, chunk, labels, why)
    if not rows:
        raise BadInput(f"{path}: no rows to label")
    return Counts(rows, {label: labels[label] for label in LABELS}, sum(why.values()), dict(why))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str, int]]:
    """(line number, the row or what is wrong with it, its bytes); empty lines are skipped."""
    for number, line in jsonl.lines(path):
        yield number, _row(line), len(line)


def _row(line: bytes) -> dict[str, Any] | str:
    try:
        row = jsonl.parse(line, halves=True)
    except ValueError as error:
        return str(error)
    if not isinstance(row, dict):
        return "not an object: {prompt, response} is needed"
    for key in ("prompt", "response"):
        if key not in row:
            return f'no "{key}"'
        if not isinstance(row[key], str):
            return f'"{key}" is not text'
    return row


def _write(file: TextIO, rows: list[dict[str, Any]], labels: Counter[str], why: Counter[str]) -> int:
    verdicts = classify([row["prompt"] for row in rows], [row["response"] for row in rows])
    for row, verdict in zip(rows, verdicts, strict=True):
        given = {"given_label": row["label"]} if "label" in row and "given_label" not in row else {}
        added: dict[str, Any] = {"label": verdict.label, "p": None}
        if verdict.p is None:
            why[str(verdict.why)] += 1
            added["why"] = verdict.why
        else:
            labels[str(verdict.label)] += 1
            added["p"] = {label: round(p, 6) for label, p in verdict.p.items()}
        # escapes, where text holds half a character that UTF-8 can't
        text = json.dumps({**row, **given, **added}, ensure_ascii=False)
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            text = json.dumps({**row, **given, **added})
        file.write(text + "\n")
    return len(rows)
