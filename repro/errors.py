"""Errors for people: what is wrong, where, and what to do; each carries the exit code that the command line returns."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_SECRET = re.compile(r"(key|token|secret|password|credentials?)$", re.IGNORECASE)  # names of variables that hold one
_SHAPES = (
    (re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic)?\s*)[^\s\"',;]+"), r"\1[secret]"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{16,}"), r"\1[secret]"),
    (re.compile(r"(://)[^/\s@\"']+@"), r"\1[secret]@"),
    (re.compile(r"\b(?:hf_|sk-)[A-Za-z0-9_-]{16,}"), "[secret]"),
)


def safe(text: str) -> str:
    """The text without secrets: values of environment variables that are named like one (HF_TOKEN, OPENAI_API_KEY),
    Authorization headers, passwords in addresses, tokens of the usual shapes. For whatever is printed or kept."""
    values = {value.strip() for name, value in os.environ.items() if _SECRET.search(name)}
    for value in sorted((value for value in values if len(value) >= 8), key=len, reverse=True):
        text = text.replace(value, "[secret]")
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def strike(log: Path) -> None:
    """Rewrites a log without its secrets, where a library has printed any. (Whoever appends to it may go on.)"""
    with contextlib.suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="surrogateescape")
        clean = safe(text)
        if clean != text:
            log.write_text(clean, encoding="utf-8", errors="surrogateescape")


class ReproError(Exception):
    """Something a person can act on: `lines` holds one complete message a line, `exit_code` is the command's."""

    exit_code = 1

    def __init__(self, lines: str | list[str]):
        self.lines = [safe(line) for line in ([lines] if isinstance(lines, str) else lines)]
        super().__init__("\n".join(self.lines))


class RunFailed(ReproError):
    """The run itself failed (exit 1): a stage that trained on nothing, a loss that became NaN."""


class BadInput(ReproError):
    """What was handed in is wrong (exit 2); nothing has been written."""

    exit_code = 2


class CannotHere(ReproError):
    """This machine cannot do it (exit 3); the message names what is missing."""

    exit_code = 3
