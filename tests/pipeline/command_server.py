"""Runs `repro` and `python FILE` commands in forks of one process that has the libraries loaded: seconds become tenths.

One JSON object a line on stdin, {"words", "folder", "input"}; one a line on stdout, {"code", "out", "err"}. The pool's
workers are forks too; that they also work when each starts on its own is what test_pipeline.py shows.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import repro.models  # isort: skip  # first: it keeps the libraries quiet
import accelerate  # noqa: F401
import bitsandbytes  # noqa: F401
import matplotlib.backends.backend_svg  # noqa: F401
import peft  # noqa: F401
import scipy.stats  # noqa: F401
import torch  # noqa: F401
import trl.trainer.dpo_trainer
import trl.trainer.grpo_trainer
import trl.trainer.sft_trainer  # noqa: F401

import repro.cli


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one command in a fork; its exit code (128 + n where signal n killed it) and what it printed."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained, tempfile.TemporaryFile() as typed:
        typed.write(request["input"].encode())
        typed.seek(0)
        child = os.fork()
        if child == 0:
            for there, here in ((typed, 0), (said, 1), (complained, 2)):
                os.dup2(there.fileno(), here)
            os._exit(_run(request["words"], request["folder"]))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (said, complained):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime  # of all commands so far
    return {"code": status if status >= 0 else 128 - status, "out": texts[0], "err": texts[1], "cpu": cpu}


def _run(words: list[str], folder: str) -> int:
    os.chdir(folder)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment,misc]
    code: Any = 0
    try:
        if words[0] == "python":
            sys.argv = words[1:]
            sys.path.insert(0, str(Path(words[1]).parent))
            runpy.run_path(words[1], run_name="__main__")
        else:
            sys.argv = words
            repro.cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def main() -> None:
    """Answers until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints when it is imported is no reply
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
