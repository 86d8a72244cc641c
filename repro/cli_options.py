"""What all commands share: options, and errors as lines with their exit code."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from repro import environment
from repro.errors import ReproError, safe

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

Experiment = Annotated[str, typer.Argument(help="An experiment's name (reproduce-small) or the path of its file.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Another model: preset, folder or hub id.")]
Arms = Annotated[str | None, typer.Option("--arms", help="Only these arms (and base): naive,character.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Other seeds: 0,1,2 or 0-4.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Changes a value: arms.naive.stages.sft.learning_rate=1e-4.")
]
Prompting = Annotated[
    str | None, typer.Option("--prompting", help="Prompting strategies: none,helpful-only,careful,constitution.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="The folder that holds run folders.")]
Mirror = Annotated[
    Path | None, typer.Option("--mirror", help="Keep a copy on another disk (a mounted drive), and take it up there.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this disk.")]
Json = Annotated[bool, typer.Option("--json", help="Print results.json's content and nothing else on stdout.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes side by side; by default, what fits.")]
Backend = Annotated[str, typer.Option("--backend", help="auto (unsloth on CUDA, else hf), unsloth or hf.")]
Judge = Annotated[
    str, typer.Option("--judge", help="offline, local[:MODEL], openai:NAME@URL; auto is local on a GPU, else offline.")
]
JudgeAll = Annotated[bool, typer.Option("--judge-all", help="The judge also reads refusals and done tasks.")]
JudgeSelf = Annotated[bool, typer.Option("--judge-self", help="A model may judge itself; the table says so.")]
JudgeTokens = Annotated[int | None, typer.Option("--judge-budget-tokens", help="Most tokens for judging.")]
JudgeCost = Annotated[float | None, typer.Option("--judge-budget-cost", help="Most to spend on judging.")]
JudgePrice = Annotated[float | None, typer.Option("--judge-cost-per-million", help="Price of a million tokens.")]
GpuGib = Annotated[float | None, typer.Option("--gpu-gib", min=0.5, help="Plan as if the GPU had so many GiB.")]


def guarded(command: F) -> F:
    """Errors as lines on stderr with their exit code; the traceback of an unexpected one goes to a file."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            if command.__name__ != "doctor":  # which names the same faults among its findings
                environment.check()
            return command(*args, **kwargs)
        except ReproError as error:
            with contextlib.suppress(OSError):  # the terminal may be gone
                for line in error.lines:
                    print(line, file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None
        except typer.Exit:
            raise
        except Exception as error:
            what = f"unexpected {type(error).__name__}: {safe(str(error))}"
            print(f"{what}; the traceback is in {_crash_log()}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


def _crash_log() -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="repro-crash-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(safe(traceback.format_exc()))
    return file.name


def command_line() -> str:
    """The command as it was typed: `repro ...`, or a script of one's own that calls `main` (docs/extending.md)."""
    script = sys.argv[0].endswith(".py") and Path(sys.argv[0]).name != "__main__.py"
    return safe(shlex.join([*(["python", sys.argv[0]] if script else ["repro"]), *sys.argv[1:]]))


def talk() -> Console:
    from rich.console import Console

    return Console(stderr=True)
