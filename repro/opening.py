"""An open run folder: however the work in it ends, its journal says so and a person reads a line."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro import faults, store
from repro.errors import ReproError, RunFailed, safe
from repro.mirror import Mirror


class Interrupted(ReproError):
    """Ctrl-C: what is finished is kept, the same command resumes (exit 130)."""

    exit_code = 130


@contextmanager
def opened(
    root: Path, digest: str, about: dict[str, Any], mirror: Mirror | None = None
) -> Iterator[store.RunFolder]:
    """The folder, locked, with `about` as its manifest; however the block ends, its journal says so, and its `mirror`
    is brought up to date."""
    folder = store.open_run(root, digest, about)
    folder.heard = None if mirror is None else mirror.heard
    hurry = False
    try:
        yield folder
    except KeyboardInterrupt:
        hurry = True
        _last_note(folder, "interrupted")
        raise Interrupted(f"interrupted: what is finished is kept in {root}; the same command resumes") from None
    except ReproError as error:
        _last_note(folder, "run failed", why=error.lines)
        raise
    except Exception as error:
        if known := faults.explain(error, root):
            _last_note(folder, "run failed", why=known.lines)
            raise known from error
        where, trace = root / "crash.log", safe(traceback.format_exc())
        with contextlib.suppress(OSError):
            store.write_atomic(where, trace)
        _last_note(folder, "crashed", why=safe(repr(error)))
        raise RunFailed(f"unexpected {type(error).__name__}: {error}; the traceback is in {where}") from error
    finally:
        if mirror:
            mirror.finish(hurry=hurry)
        folder.close()


def _last_note(folder: store.RunFolder, event: str, **details: Any) -> None:
    """A last line in the journal, where the disk still takes one."""
    with contextlib.suppress(OSError):
        folder.journal(event, **details)
