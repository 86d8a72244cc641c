"""Ctrl-C, kill, a closed terminal: the first is an interrupt, the second the end; what was ignored stays ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """\
import sys, time
from repro import interrupts
interrupts.LONGEST = float(sys.argv[2])
try:
    with interrupts.as_keyboard_interrupts():
        print("ready", flush=True)
        time.sleep(30)
except KeyboardInterrupt:
    print("saving", flush=True)
    time.sleep(float(sys.argv[1]))
    sys.exit(130)
"""
DEFAULT = {signal.SIGINT: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


class Program:
    """The program above, which takes `saving` seconds to end; `ignored` signals are ignored when it begins."""

    def __init__(self, saving: float = 0.0, longest: float = 20.0, ignored: tuple[int, ...] = ()) -> None:
        def before() -> None:
            for number, handler in DEFAULT.items():
                signal.signal(number, signal.SIG_IGN if number in ignored else handler)

        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        words = [sys.executable, "-c", PROGRAM, str(saving), str(longest)]
        self.process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, preexec_fn=before)  # fmt: skip
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, float, str]:
        """(exit code, seconds until it ended, what it said on stderr)."""
        began = time.monotonic()
        _, said = self.process.communicate(timeout=25)
        return self.process.returncode, time.monotonic() - began, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_lets_the_command_save_and_end_with_130(number: int) -> None:
    program = Program()
    program.process.send_signal(number)
    assert program.line() == "saving"
    code, _, said = program.end()
    assert code == 130
    assert "Traceback" not in said
    assert ("what can be saved soon is saved" in said) == (number != signal.SIGHUP)


def test_the_second_signal_ends_it_at_once() -> None:
    program = Program(saving=20.0)
    program.process.send_signal(signal.SIGINT)
    assert program.line() == "saving"
    program.process.send_signal(signal.SIGTERM)
    code, seconds, _ = program.end()
    assert code == 130
    assert seconds < 10


def test_whatever_hangs_it_ends_in_time() -> None:
    program = Program(saving=20.0, longest=0.5)
    program.process.send_signal(signal.SIGTERM)
    code, seconds, _ = program.end()
    assert code == 130
    assert seconds < 10


def test_under_nohup_and_in_the_background_it_goes_on() -> None:
    program = Program(ignored=(signal.SIGHUP, signal.SIGINT))
    program.process.send_signal(signal.SIGHUP)
    program.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert program.process.poll() is None
    program.process.send_signal(signal.SIGTERM)
    assert program.line() == "saving"
    assert program.end()[0] == 130


def test_a_terminal_that_is_closed_is_no_error() -> None:
    """The same on a terminal of its own, whose other end goes away."""
    main_end, terminal = os.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = PROGRAM.replace('print("saving", flush=True)', 'print("saving", file=sys.stderr, flush=True)')
    process = subprocess.Popen([sys.executable, "-c", program, "0", "20"], env=environment, stdin=terminal,
                               stdout=terminal, stderr=terminal, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))  # fmt: skip
    os.close(terminal)
    said = b""
    while not said.endswith(b"\n"):  # to the end of the line, else it may still be writing when the terminal goes
        said += os.read(main_end, 100)
    assert said.strip() == b"ready"
    os.close(main_end)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 130
