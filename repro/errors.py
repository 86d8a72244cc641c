"""Errors for people: what is wrong, where, and what to do; each carries the exit code that the command line returns."""

from __future__ import annotations


class ReproError(Exception):
    """Something a person can act on: `lines` holds one complete message a line, `exit_code` is the command's."""

    exit_code = 1

    def __init__(self, lines: str | list[str]):
        self.lines = [lines] if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))


class RunFailed(ReproError):
    """The run itself failed (exit 1): a stage that trained on nothing, a loss that became NaN."""


class BadInput(ReproError):
    """What was handed in is wrong (exit 2); nothing has been written."""

    exit_code = 2


class CannotHere(ReproError):
    """This machine cannot do it (exit 3); the message names what is missing."""

    exit_code = 3
