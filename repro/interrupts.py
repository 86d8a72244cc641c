"""Ctrl-C, `kill` and a closed terminal all mean: save what can be saved soon and end with 130; a second one: at once.

A signal that was ignored when the command began stays ignored: SIGHUP under nohup, SIGINT in a background shell.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

LONGEST = 9.0  # seconds from the first signal to the end, whatever hangs
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_CODE = 130


@contextlib.contextmanager
def as_keyboard_interrupts() -> Iterator[None]:
    """While inside, the first of the signals raises KeyboardInterrupt here; another one ends the process and its
    children at once, as does LONGEST passing by."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [handle for handle in (1, 2) if _is_terminal(handle)]
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    fired = threading.Event()

    def first(number: int, _: Any) -> None:
        fired.set()
        for other in heeded:
            signal.signal(other, lambda *_: _end_at_once())
        if number == signal.SIGHUP:  # the terminal is gone: to write there would be an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for handle in terminals:
                os.dup2(nowhere, handle)
        else:
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping: what can be saved soon is saved (once more: stop at once)\n")
        timer = threading.Timer(LONGEST, _end_at_once)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, first) for number in heeded}
    try:
        yield
    finally:
        if not fired.is_set():  # else this is on the way to the end, and another signal still means: at once
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_terminal(handle: int) -> bool:
    try:
        return os.isatty(handle)
    except OSError:
        return False


def _end_at_once() -> None:
    """No word more, and no child left behind."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()
    os._exit(EXIT_CODE)
