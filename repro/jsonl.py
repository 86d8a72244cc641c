"""Lines of JSON from outside, one at a time: what people hand in may be torn, huge, or made to do harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.errors import BadInput

LONGEST = 16_000_000  # bytes of a line


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each line with something on it, never more than one in memory; of a line beyond LONGEST only
    its beginning, which `parse` refuses. BadInput where the file can't be read."""
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(LONGEST + 1):
                number, rest = number + 1, line
                while len(rest) > LONGEST and not rest.endswith(b"\n"):
                    rest = file.readline(LONGEST + 1)
                if number == 1:
                    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise BadInput(f"{path}:1: not UTF-8, but UTF-16: save it as UTF-8")
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield number, line
    except (OSError, ValueError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise BadInput(f"{path}: can't be read: {why}") from None


def parse(line: bytes, *, halves: bool = False) -> Any:
    """The value of a line. ValueError says in words what is wrong: a key twice, NaN, nesting that is too deep, bytes
    that are no text, and (but for `halves`) half of a surrogate pair, which no file could hold."""
    if len(line) > LONGEST:
        raise ValueError(f"a line of more than {LONGEST // 1_000_000} MB")
    try:
        text = line.rstrip(b"\r\n").decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
        if not halves and b"\\ud" in line.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        where = f"byte 0x{line[error.start]:02x} at place {error.start + 1} of the line"
        raise ValueError(f"not UTF-8 ({where})") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (character {error.colno})") from None
    except RecursionError:
        raise ValueError("not JSON: too deeply nested") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'duplicate key "{next(key for key in keys if keys.count(key) > 1)}"')
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is no number that a computer holds")
    return value
