"""Keeps a copy of a run folder on another disk while the run goes on, and gives back what is finished there.

    repro run reproduce-small --mirror /content/drive/MyDrive/repro

The other disk may be slow, full or gone: that costs warnings and never the run.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from repro import store
from repro.errors import BadInput

BEFORE, AFTER = ("manifest.json",), ("results.json",)  # what is copied first, and what last
GIVEN_BACK = ("journal.jsonl", "verdicts.jsonl", "sheet.jsonl")  # beside the steps, where they are not there
PATIENCE = 600.0  # seconds that a finished run waits for a slow disk
_END = object()


class Mirror:
    """The copy of `root` in `folder`, written by a thread of its own. `warn(line)` hears what goes wrong, each once."""

    def __init__(self, folder: Path, root: Path, warn: Callable[[str], None]) -> None:
        self.root, self.copy, self._warn = root, folder / root.name, warn
        inside = folder.absolute().resolve()
        if inside == root.parent.resolve() or inside.is_relative_to(root.resolve()):
            raise BadInput(f"--mirror {folder}: that is where the run itself is; name a folder on another disk")
        self._warned: set[str] = set()
        self._todo: queue.Queue[object] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    # what is there already

    def give_back_manifest(self, digest: str) -> None:
        """Where the run folder has none yet: with it comes the date of the start, and which claims were registered."""
        source = self.copy / "manifest.json"
        if not source.exists() or (self.root / "manifest.json").exists():
            return
        try:
            store.check(self.copy, digest)
            self.root.mkdir(parents=True, exist_ok=True)
            _copy_file(source, self.root / "manifest.json")
        except (OSError, BadInput) as error:
            self._failed("read", error)

    def give_back(self, missing: Iterable[tuple[str, str]]) -> int:
        """Copies what is finished in the mirror, of the missing steps (key, folder), into the run folder; how many."""
        count = 0
        try:
            for name in GIVEN_BACK:
                if (self.copy / name).exists() and not (self.root / name).exists():
                    _copy_file(self.copy / name, self.root / name)
            for key, folder in missing:
                if store.is_done(self.copy / folder, key):
                    _copy_finished(self.copy / folder, self.root / folder)
                    count += 1
        except OSError as error:
            self._failed("read", error)
        return count

    # what is new

    def start(self) -> None:
        """From here on what is heard is copied."""
        self._thread.start()
        self._todo.put(None)

    def heard(self, event: str, details: dict[str, object]) -> None:
        """What the journal hears of: a step that is done is copied soon."""
        if event == "step done":
            self._todo.put(details["step"])

    def finish(self, *, hurry: bool = False) -> None:
        """Copies everything that is not there yet, and waits for it; in a `hurry` no more than what was begun."""
        if not hurry:
            for path in sorted(self.root.glob("arms/*/*/*")):
                if not path.is_symlink() and store.read_done(path):
                    self._todo.put(path.relative_to(self.root).as_posix())
        self._todo.put(_END)
        if self._thread.is_alive():
            self._thread.join(1 if hurry else PATIENCE)
            if self._thread.is_alive() and not hurry:
                self._warn(f"mirror: {self.copy} takes too long: what is not there yet comes with the next start")

    def _work(self) -> None:
        seen: set[object] = set()
        while True:
            folder = self._todo.get()
            try:
                self.copy.mkdir(parents=True, exist_ok=True)
                if not seen:
                    store.sweep(self.copy)
                if isinstance(folder, str) and folder not in seen:
                    _copy_finished(self.root / folder, self.copy / folder)
                seen.add(folder)
                names = [path.name for path in self.root.iterdir() if path.is_file() and not path.name.startswith(".")]
                for name in sorted(names, key=lambda name: (name not in BEFORE, name in AFTER, name)):
                    _copy_file(self.root / name, self.copy / name)
            except (OSError, shutil.Error) as error:
                self._failed("write to", error)
            if folder is _END:
                return

    def _failed(self, what: str, error: Exception) -> None:
        why = getattr(error, "strerror", None) or str(error)
        line = f"mirror: can't {what} {self.copy}: {why}; the run goes on, and tries again at each step"
        if line not in self._warned:
            self._warned.add(line)
            self._warn(line)


def _copy_file(source: Path, target: Path) -> None:
    """Whole or not at all, and not where the same is there already."""
    if target.exists() and store.hash_file(target) == store.hash_file(source):
        return
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as aside:
        part = Path(aside) / target.name
        shutil.copyfile(source, part)
        store.sync(part)
        part.replace(target)
    store.sync(target.parent)


def _copy_finished(source: Path, target: Path) -> None:
    """Copies a finished folder, whole or not at all, each file as its hash wants it. OSError where one is not."""
    done = store.read_done(source)
    if done is None or store.is_done(target, done["key"]):
        return
    with store.building(target, done["key"], done.get("summary")) as folder:
        for name, digest in done["files"].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)
            if store.hash_file(folder / name) != digest:
                raise OSError(f"{source / name} did not arrive as it was finished")
