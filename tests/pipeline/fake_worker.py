"""A worker without torch: does what a step's system of names says, so that the pool can be tested alone."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from repro import store
from repro.worker import Job


def main(connection: Connection, threads: int, lock: object = None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        step = job.step
        for key, folder in job.folders.items():
            assert store.is_done(folder, key), f"{step.title} began before {folder} was done"
        if step.arm == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if step.arm == "fails":
            connection.send(("failed", ["nothing to train on"], "some.log", 1))
            continue
        connection.send(("moved", 1, 2))
        if step.arm == "slow":
            time.sleep(60)
        with store.building(job.root / step.folder, step.key) as folder:
            (folder / "threads").write_text(str(threads))
        connection.send(("done", {"answers": 3, "wall_seconds": 0.1}))
