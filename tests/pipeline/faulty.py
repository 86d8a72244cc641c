"""Runs the miniature under each fault of a machine, then again without it: python faulty.py FOLDER

Prints one JSON object: for each fault the exit code and what was said, whether what was finished before is untouched,
and whether the same command then comes to the same as a run that never met the fault.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kills

# the base's answers are asked first of all; what goes wrong is the arm's own stage
EXPERIMENT = """\
schema: 1
name: miniature
model: organism
pack: micro
quant: nf4
seeds: [0]
arms:
  base: {}
  naive:
    recipe: micro/naive
    stages: {sft: {steps: 3, batch: 4, lora: {r: 4, alpha: 8}, data: [{pack: compliance, count: 16}]}}
evaluation: {samples: 1, items: 1, max_new_tokens: 12, axes: [capability, refusal]}
"""
WORDS = ("--workers", "1")


def refuse(number: int, part: str) -> Callable[[], None]:
    """The arm's finished stage can't be given its name: the error of that number."""

    def before() -> None:
        rename = os.rename

        def refused(source: Any, target: Any, **options: Any) -> None:
            if part in str(target) and ".tmp" not in str(target) and "state" not in str(target):
                raise OSError(number, os.strerror(number), str(target))
            rename(source, target, **options)

        os.rename = refused

    return before


def little_memory() -> None:
    """A worker gets hardly more address space than it has when it begins."""
    from repro import pool, worker

    def starved(*words: Any) -> None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + (8 << 20), resource.RLIM_INFINITY))
        worker.main(*words)

    pool.main = starved


def backwards() -> None:
    """Each look at the clock shows an earlier time."""
    from repro import store

    hours = itertools.count()
    store.now = lambda *_: f"2026-01-01T{23 - next(hours) % 24:02d}:00:00+00:00"
    moments = itertools.count(2_000_000_000, -60)
    time.time = lambda: float(next(moments))


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))


def no_loss() -> None:
    from repro.train import runner

    log = runner.Watch.on_log

    def spoilt(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        lost = {"loss": float("nan")} if "loss" in (logs or {}) else {}
        log(self, args, state, control, {**(logs or {}), **lost}, **more)

    runner.Watch.on_log = spoilt


def killed() -> None:
    from repro.train import runner

    runner.Watch.on_train_begin = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[], None]] = {
    "no space left, midway": refuse(errno.ENOSPC, "0-sft-"),
    "permission lost midway": refuse(errno.EACCES, "0-sft-"),
    "read-only midway": refuse(errno.EROFS, "0-sft-"),
    "files may not grow": small_files,
    "no memory left": little_memory,
    "a loss that is no number": no_loss,
    "a worker killed": killed,
    "a clock that goes backwards": backwards,
}


def finished(here: Path, runs: str) -> dict[str, str]:
    from repro import store

    files = [path for done in (here / runs).glob("*/arms/*/*/[!.]*/DONE.json") for path in done.parent.rglob("*")]
    return {str(path): store.hash_file(path) for path in files if path.is_file()}


def go(here: Path, runs: str, before: Callable[[], None] = lambda: None) -> tuple[int, str]:
    log = here / f"{runs}.log"
    log.unlink(missing_ok=True)
    code = kills.ended(kills.start(here, runs, *WORDS, before=before))
    return code or 0, log.read_text()


def under(here: Path, name: str, before: Callable[[], None], expected: dict[str, Any]) -> dict[str, Any]:
    runs = name.replace(" ", "-").replace(",", "")
    (here / runs).mkdir(exist_ok=True)
    code, said = go(here, runs, before)
    done = finished(here, runs)
    again, _ = go(here, runs)
    kept = all(finished(here, runs).get(path) == digest for path, digest in done.items())
    return {"code": code, "said": said, "finished": len(done), "kept": kept, "again": again,
            "equal": again == 0 and kills.outcome_of(here, runs) == expected}  # fmt: skip


def full_disk(here: Path, expected: dict[str, Any]) -> dict[str, Any] | None:
    """On a real disk of 200 kB that has 60 MB when the command is given again; None where none can be mounted."""
    place = here / "full"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        return None
    try:
        code, said = go(here, "full")
        done = finished(here, "full")
        subprocess.run(["mount", "-o", "remount,size=60m", str(place)], check=True)
        again, _ = go(here, "full")
        kept = all(finished(here, "full").get(path) == digest for path, digest in done.items())
        return {"code": code, "said": said, "finished": len(done), "kept": kept, "again": again,
                "equal": again == 0 and kills.outcome_of(here, "full") == expected}  # fmt: skip
    finally:
        subprocess.run(["umount", str(place)], check=True)


def lost_rename(here: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """A power cut after which the last folder's DONE.json is there and empty."""
    runs = "lost"
    go(here, runs)
    (done,) = (here / runs).glob("*/arms/naive/seed-0/0-sft-*/DONE.json")
    done.write_bytes(b"")
    code, said = go(here, runs)
    return {"code": code, "said": said, "finished": 1, "kept": True, "again": code,
            "equal": kills.outcome_of(here, runs) == expected}  # fmt: skip


if __name__ == "__main__":
    here = Path(sys.argv[1]).resolve()
    here.mkdir(parents=True, exist_ok=True)
    kills.prepare(here)
    (here / "tiny.yaml").write_text(EXPERIMENT)
    kills.preload()
    code, said = go(here, "whole")
    assert code == 0, said
    expected = kills.outcome_of(here, "whole")
    found = {name: under(here, name, before, expected) for name, before in FAULTS.items()
             if len(sys.argv) < 3 or name in sys.argv[2:]}  # fmt: skip
    found["a full disk"] = full_disk(here, expected)
    found["a rename that was not on the disk"] = lost_rename(here, expected)
    print(json.dumps(found))
