"""One seed tree: every random choice takes its seed from the run's seed and the names of what it is for."""

from __future__ import annotations

import hashlib


def derive(root: int, *path: str | int) -> int:
    """A seed in [0, 2**31) that depends on `root` and every part of `path`, and on nothing else.

    Hashing instead of adding keeps neighbouring seeds unrelated: seed 0's data order is not seed 1's shifted by one.
    """
    text = "/".join([str(root), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
