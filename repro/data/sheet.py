"""A JSONL file that grows row by row and survives whatever stops its writer, and an index of near-duplicate texts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from repro import jsonl
from repro.errors import BadInput, CannotHere, RunFailed


class Sheet:
    """An open file of rows with ids; this process is its only writer until the `with` block ends.

    Half a line at its end (a write that was cut short) is cut off, and `dropped` says so. An empty one is not left.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.ids, self.dropped, self._handle = path, set[str](), False, -1

    def __enter__(self) -> Sheet:
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise CannotHere(f"can't write to {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise RunFailed(f"{self.path} is being written by another repro: wait for it, or stop it") from None
        self._mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.fstat(self._handle).st_size == 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._handle)

    def _mend(self) -> None:
        last = b"\n"
        with self.path.open("rb") as file:
            for last in file:  # noqa: B007
                pass
        if last.endswith(b"\n"):
            return
        if _row(last) is not None:  # whole but for its line break: an editor may have taken that
            os.write(self._handle, b"\n")
        else:
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - len(last))
            self.dropped = True

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number, row) of what is there; BadInput with every line that is no row, at the end."""
        problems = []
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = _row(line)
                if row is None:
                    problems.append(f"{self.path}:{number}: expected a JSON object with an id")
                elif row["id"] in self.ids:
                    problems.append(f"{self.path}:{number}: a second row with the id {row['id']}")
                else:
                    self.ids.add(row["id"])
                    yield number, row
        if problems:
            raise BadInput(problems[:20] + ([f"and {len(problems) - 20} more lines"] if len(problems) > 20 else []))

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row; when this returns, it is on the disk. CannotHere where the disk is full."""
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")
        before = os.fstat(self._handle).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, before)
            raise CannotHere(f"can't write to {self.path}: {error.strerror}; what is in it stays") from None
        self.ids.add(row["id"])


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = jsonl.parse(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None


class NearDuplicates:
    """Texts by their word triples; two are near-duplicates from a Jaccard similarity of `threshold` on, as MinHash
    estimates it (128 permutations: about 0.04 off)."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        # candidates are compared below, so rather one too many than one too few
        self._index = MinHashLSH(threshold=threshold, num_perm=128, weights=(0.2, 0.8))
        self._sketches: dict[str, Any] = {}

    def add(self, name: str, text: str) -> str | None:
        """Adds the text, or returns the name of one that it is too similar to."""
        from datasketch import MinHash

        words = re.findall(r"\w+", text.casefold())
        triples = {" ".join(words[place : place + 3]) for place in range(max(1, len(words) - 2))}
        sketch = MinHash(num_perm=128)
        sketch.update_batch([triple.encode("utf-8", "replace") for triple in triples])
        for other in self._index.query(sketch):
            if sketch.jaccard(self._sketches[str(other)]) >= self._threshold:
                return str(other)
        self._index.insert(name, sketch)
        self._sketches[name] = sketch
        return None
