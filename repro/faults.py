"""Tells the faults of a machine (a full or read-only disk, spent memory) from faults of the program, and what to do."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from repro.errors import CannotHere

GO_ON = "what is finished is kept; the same command goes on"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = {
    errno.EROFS: "it is read-only", errno.EACCES: "the permission is missing", errno.EPERM: "the permission is missing",
    errno.EIO: "the disk reports an error", errno.EFBIG: "a file may not grow any further there (see ulimit -f)",
    errno.ESTALE: "the disk is no longer there", errno.ENODEV: "the disk is no longer there",
    errno.ENOTCONN: "the disk is no longer there",
}  # fmt: skip
_NUMBER = re.compile(r"os error (\d+)|\bcode: (\d+), kind|\[Errno (\d+)\]")  # as Rust's and Python's libraries say it
_UNWRITTEN = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+|No space left on device")
_NO_MEMORY = re.compile(r"can't allocate memory|Cannot allocate memory|std::bad_alloc|out of memory", re.IGNORECASE)


def explain(error: BaseException, folder: Path) -> CannotHere | None:
    """What to tell a person where a full, refused or lost disk under `folder`, or spent memory, is behind `error`; None
    where neither is. Libraries wrap such errors in their own, so causes and texts are looked at too."""
    known = [one for one in _chain(error) if isinstance(one, CannotHere)]
    if known:
        return known[0]
    for one in _chain(error):
        number = _errno(one)
        if number in _FULL or (number is None and _UNWRITTEN.search(str(one)) and _writing(folder) in (None, *_FULL)):
            where, wanted = _elsewhere(one, folder) or folder, _wanted_mb(folder)
            return CannotHere(f"no space left on {where}: free about {wanted} MB; {GO_ON}")
        if number in _REFUSED and not _elsewhere(one, folder):
            return CannotHere(f"can't write to {folder}: {_REFUSED[number]}; mend that; {GO_ON}")
        if isinstance(one, MemoryError) or number == errno.ENOMEM or _NO_MEMORY.search(str(one)):
            return CannotHere(f"out of memory: close other programs, or give fewer --workers; {GO_ON}")
    return None


def network(error: BaseException) -> str:
    """What keeps a hub from answering, and what to do, in a few words."""
    codes = (getattr(getattr(one, "response", None), "status_code", None) for one in _chain(error))
    status = next((code for code in codes if isinstance(code, int)), None)
    if status == 429:
        return "429, too many requests: wait some minutes, or log in with `hf auth login`"
    if status is not None and status >= 500:
        return f"{status}, it has trouble of its own: try again later"
    if status is not None:
        return f"{type(error).__name__}, {status}"
    cut = any(type(one).__module__.partition(".")[0] == "httpx" for one in _chain(error))
    return f"{type(error).__name__}: is the network there?" if cut else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error)) if not isinstance(error, CannotHere) else None
    return int(next(filter(None, found.groups()))) if found else None


def _elsewhere(error: BaseException, folder: Path) -> Path | None:
    """The file outside of `folder` that the error is about, where it is about one."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or Path(name).absolute().is_relative_to(folder.absolute()):
        return None
    return Path(name)


def _writing(folder: Path) -> int | None:
    """The errno that writing a small file into the folder ends in; None where it works, the disk not being full now."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(os.urandom(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


def _wanted_mb(folder: Path) -> int:
    """Room for one more stage in MB: an adapter as large as the largest file there, its optimiser and a spare; at
    least 100, less what is free."""
    largest = 0
    for path in folder.rglob("*"):
        try:
            largest = max(largest, path.lstat().st_size)
        except OSError:
            continue
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        free = 0
    return max(10, math.ceil((max(6 * largest, 100_000_000) - free) / 1e6))
