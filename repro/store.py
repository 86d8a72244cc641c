"""The run folder on disk: whatever is in it is whole, checked by hash, and written by one process at a time."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro import faults
from repro.errors import BadInput, CannotHere, RunFailed

DONE = "DONE.json"
SCHEMA = 1  # of manifest.json and results.json; a later one is refused, with the advice to update
DAMAGED = (f"{DONE} is missing or unreadable", "files are missing or were added")  # see why_not_done
CHANGED = " was changed after it was finished"
_TEMPORARY = ".tmp-"
_UNFINISHED = ".work-"  # a temporary folder that a killed step goes on from
_PIECE = 1 << 20
# json.dumps would make an encoder a row
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_ROW = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
ORPHANS_SECONDS = 15.0  # how long a run that was killed may leave workers behind, one in a long computation


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, no NaN. Raises ValueError on NaN, TypeError
    on anything that JSON has no name for (a set, a path), so that nothing enters a key by its memory address."""
    return _CANONICAL.encode(value)


def hash_value(value: Any) -> str:
    """sha256 (64 hex digits) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def hash_rows(rows: Iterable[Any]) -> str:
    """sha256 over the canonical JSON of rows, one a line; the order counts, since training sees it."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical(row).encode() + b"\n")
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """sha256 (64 hex digits) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def now(timespec: str = "seconds") -> str:
    """The time in UTC, to the second unless another `timespec` is asked for, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec)


def sync(path: Path) -> None:
    """Asks the disk to hold a file or folder before going on; some network disks can't sync a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Writes a text file so that a reader, or a crash, sees the old content or the new one and nothing between."""
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON; keys stay in the order they were put in."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """`write_atomic` of one JSON row a line."""
    write_atomic(path, "".join(_ROW.encode(row) + "\n" for row in rows))


def append(path: Path, line: str) -> None:
    """Adds a line to a file and syncs it; a line that a kill or a power cut tore stays alone, to be skipped."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        torn = end and os.pread(handle, 1, end - 1) != b"\n"
        with os.fdopen(handle, "ab", closefd=False) as file:  # it writes on where the disk takes only a part at once
            file.write((("\n" if torn else "") + line + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_jsonl(path: Path) -> list[Any]:
    """The rows of a JSONL file that this module wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


# finished folders -----------------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def building(
    folder: Path, key: str, summary: dict[str, Any] | None = None, *, resumable: bool = False
) -> Iterator[Path]:
    """Gives a temporary folder to fill; when the block ends well, it becomes `folder` by one rename.

    `DONE.json` (key, sha256 of each file, `summary` as it is when the block ends) is written last. A folder that was
    there before is replaced. If the block raises, nothing appears and the temporary folder is removed. `resumable`
    gives the same temporary folder again, with whatever was in it, after a kill and after what only this machine is at
    fault for (a full disk, spent memory, a server that is away).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if resumable:
        temporary = folder.parent / f"{_UNFINISHED}{folder.name}-{key[:32]}"
        temporary.mkdir(exist_ok=True)
        (temporary / DONE).unlink(missing_ok=True)
        for left in temporary.rglob(_TEMPORARY + "*"):  # what a kill left of a file that was being written
            if left.is_file():
                left.unlink(missing_ok=True)
    else:
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY + folder.name + "-", dir=folder.parent))
    try:
        yield temporary
        _finish(temporary, folder, key, {} if summary is None else summary)
    except Exception as error:
        if not (resumable and faults.explain(error, folder.parent)):
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _finish(temporary: Path, folder: Path, key: str, summary: dict[str, Any]) -> None:
    files = _files(temporary)
    for name in files:
        sync(temporary / name)
    for inner in temporary.rglob("*"):
        if inner.is_dir():
            sync(inner)
    hashes = {name: hash_file(temporary / name) for name in files}
    write_json(temporary / DONE, {"key": key, "finished": now(), "files": hashes, "summary": summary})
    temporary.chmod(0o755)
    if folder.exists() or folder.is_symlink():
        # a folder can't be renamed over a full one: the old one steps aside first, and a kill here leaves "absent"
        aside = Path(tempfile.mkdtemp(prefix=_TEMPORARY + "old-", dir=folder.parent))
        os.rename(folder, aside / "old")
        os.rename(temporary, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(temporary, folder)
    sync(folder.parent)


def read_done(folder: Path) -> dict[str, Any] | None:
    """What `DONE.json` says, unchecked; None when it is missing or unreadable."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return done if isinstance(done, dict) and isinstance(done.get("files"), dict) else None


def why_not_done(folder: Path, key: str) -> str | None:
    """None if `folder` holds exactly the finished files of `key`; else the reason, in words for a person."""
    if not folder.is_dir():
        return "not there yet"
    done = read_done(folder)
    if done is None:
        return DAMAGED[0]
    if done.get("key") != key:
        return "made from other inputs"
    present = [name for name in _files(folder) if name != DONE]
    if present != sorted(done["files"]):
        return DAMAGED[1]
    for name, digest in done["files"].items():
        if hash_file(folder / name) != digest:
            return name + CHANGED
    return None


def is_done(folder: Path, key: str) -> bool:
    """Whether `folder` is finished for `key`, every file verified by its hash."""
    return why_not_done(folder, key) is None


def adopt(source: Path, folder: Path, key: str) -> bool:
    """Makes `folder` another name of what `source` holds finished for `key`, as hard links, else as copies; False where
    it holds no such thing. Nobody writes into a finished folder, so either may be deleted and the other stays whole."""
    if not is_done(source, key):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=_TEMPORARY + folder.name + "-", dir=folder.parent))
    try:
        shutil.copytree(source, aside / "new", copy_function=_link_or_copy)
        if folder.exists() or folder.is_symlink():
            os.rename(folder, aside / "old")
        os.rename(aside / "new", folder)
    except OSError as error:
        raise CannotHere(f"can't write to {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync(folder.parent)
    return True


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


# the run folder -------------------------------------------------------------------------------------------------------


def folder_name(experiment: str, model: str, digest: str) -> str:
    """`<experiment>-<model>-<hash8>`, fit for every file system (a hub id's slash becomes a dash)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{experiment}-{model}") + f"-{digest[:8]}"


@dataclass
class RunFolder:
    """An open run folder: this process holds its lock until `close` (or until it dies)."""

    path: Path
    lock: int  # a handle of .lock, for the workers to share
    heard: Callable[[str, dict[str, Any]], None] | None = None  # who else hears of what goes into the journal

    def journal(self, event: str, **details: Any) -> None:
        """Appends one line to `journal.jsonl` and syncs it: what is in the journal has happened."""
        line = {"time": now("milliseconds"), "event": event, **details}
        append(self.path / "journal.jsonl", json.dumps(line, ensure_ascii=False))
        if self.heard:
            self.heard(event, details)

    def close(self) -> None:
        """Lets the next process in."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def sweep(folder: Path, *, unfinished: bool = False) -> None:
    """Removes what a killed run left half-built (with `unfinished`, also what could be resumed); safe for the holder
    of the lock, since nobody else builds there."""
    prefixes = (_TEMPORARY, _UNFINISHED) if unfinished else (_TEMPORARY,)
    patterns = [pattern for prefix in prefixes for pattern in (prefix + "*", f"arms/*/*/{prefix}*")]
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def changed(folder: Path) -> list[str]:
    """The files of a finished run's comparison that are not as the journal says they were written; none where a later
    start of the run has not come to its end."""
    events = [event for event in read_journal(folder) if isinstance(event, dict)]
    last = events[-1] if events else {}
    files = last.get("files") if last.get("event") == "run finished" else None
    return [name for name, digest in (files.items() if isinstance(files, dict) else ())
            if (folder / name).is_file() and hash_file(folder / name) != digest]  # fmt: skip


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The journal's events; a line torn by a power cut is skipped."""
    events = []
    path = folder / "journal.jsonl"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, RecursionError):
            events.append(json.loads(line))
    return events


def newer(schema: int) -> str:
    """What to say of a file of a later format."""
    return f"schema {schema} is of a newer repro, and this one reads schema {SCHEMA}: update repro"


def check(folder: Path, digest: str) -> None:
    """Raises BadInput if `folder` exists and belongs to something else than the experiment with this hash. Writes
    nothing."""
    if (folder.parent / "manifest.json").exists():
        raise BadInput(f"{folder.parent} is itself a run folder: --runs-dir takes the folder that holds run folders")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file, and the run folder would go there: move it away")
    manifest = folder / "manifest.json"
    if not manifest.exists():
        if any(p.name != ".lock" and not p.name.startswith(_TEMPORARY) for p in folder.iterdir()):
            raise BadInput(f"{folder} holds something else than a run (it has no manifest.json): move it away")
        return
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        other, schema = content.get("experiment_hash"), content.get("schema", SCHEMA)
    except (OSError, ValueError, AttributeError, RecursionError):
        raise BadInput(f"{manifest} can't be read: move the folder away, or restore the file") from None
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadInput(f"{manifest}: {newer(schema)}")
    if other != digest:
        raise BadInput(f"{folder} is the run folder of another experiment: move it away, or give another --runs-dir")


def open_run(folder: Path, digest: str, manifest: dict[str, Any]) -> RunFolder:
    """Opens or creates the run folder of the experiment with hash `digest`, locks it and writes `manifest.json`.

    Raises CannotHere where it can't be written, BadInput if it belongs to another experiment, RunFailed if another
    process is at work in it.
    """
    check(folder, digest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CannotHere(f"can't write to {folder}: {error.strerror}; give a writable folder with --runs-dir") from None
    try:
        _take(lock, folder)
        check(folder, digest)
        run = RunFolder(folder, lock)
        sweep(folder)
        existing = folder / "manifest.json"
        created = json.loads(existing.read_text(encoding="utf-8")).get("created") if existing.exists() else now()
        write_json(existing, {"schema": SCHEMA, "created": created, "experiment_hash": digest, **manifest})
        return run
    except OSError as error:
        os.close(lock)
        raise CannotHere(f"can't write to {folder}: {error.strerror}; give a writable folder with --runs-dir") from None
    except BaseException:
        os.close(lock)
        raise


def _take(lock: int, folder: Path) -> None:
    """Takes the lock. Workers hold it too: those of a run that was killed let go within a second or so, and are waited
    for; a run that lives is not."""
    patience = time.monotonic() + ORPHANS_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            if _lives(holder) or time.monotonic() > patience:
                why = f"{folder} is in use by another repro (process {holder}): wait for it, or stop it"
                raise RunFailed(why) from None
            time.sleep(0.1)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _lives(process: str) -> bool:
    """Whether there may be a process of that number; True for what is no number."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, OSError):
        pass
    return True


def check_new_folder(folder: Path) -> None:
    """Raises BadInput where `folder` holds something already, CannotHere where it could not be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already and not empty: name a new folder")
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise CannotHere(f"can't write to {folder}: {above} is not a writable folder")
