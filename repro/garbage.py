"""Python's garbage collector, out of the way where a great many objects are made that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_alone() -> Iterator[None]:
    """What is made inside is never looked through for garbage: imports, and rows by the hundred thousand.

    Each look goes over all there is, so that importing takes a tenth longer and labelling grows faster than its rows.
    Cycles of objects made inside are not freed; all else is, as ever, when nothing refers to it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
