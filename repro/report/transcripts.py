"""Every answer of a run, packed small for the page: each text once, rows as numbers, gzip, base64.

What a model wrote may be hostile. Packed like this none of it can end a tag or an attribute, and page.js puts it on the
page through textContent alone.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from repro.runfolder import number

CAPS = (4000, 2000, 1000, 500, 250)  # characters of a text that are kept; the first with which the page stays small
LIMIT = 2_000_000  # bytes of the packed data of a run with up to FEW answers; more answers may take more
FEW = 4800  # 4 arms x 1,200 answers
HELD = 100_000_000  # bytes of texts in memory, after which the next ones are cut shorter; twice that in the end
SEALED = re.compile(r"sha256:[0-9a-f]{64}")

TABLES = ("arms", "seeds", "axes", "metrics", "groups", "promptings", "labels", "judges")

Row = dict[str, Any]
# made once: json.dumps with options of its own makes an encoder a call, and rows are many
_encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _Numbered(dict[Any, int]):
    """Things in order of appearance, each with its number."""

    def of(self, thing: Any) -> int:
        return self.setdefault(thing, len(self))


class _Texts(_Numbered):
    """Texts, cut, as the JSON that the page gets: one that was cut is [its beginning, its length], one of which only
    its hash was kept is [its hash, 0]. However many there are, they take about twice HELD bytes at the most."""

    cap, size = CAPS[0], 0

    def of(self, text: str) -> int:
        kept = [text, 0] if SEALED.fullmatch(text) else [text[: self.cap], len(text)] if len(text) > self.cap else text
        plain = _encoded(kept).encode("ascii")
        if plain not in self:
            self.size += len(plain)
            if self.size > HELD:
                self.cap, self.size = next((cap for cap in CAPS if cap < self.cap), self.cap), HELD // 2
        return super().of(plain)

    def cut(self, cap: int) -> Iterator[bytes]:
        """All of them, no longer than `cap` characters."""
        for plain in self:
            kept = json.loads(plain) if len(plain) > cap else None
            text, length = kept if isinstance(kept, list) else (kept or "", len(kept or ""))
            yield _encoded([text[:cap], length]).encode("ascii") if length > cap else plain


def collect(rows: Iterable[Row]) -> dict[str, Any]:
    """The rows as tables of distinct values and numbers into them; rows of earlier doses are only counted.

    `items`: [id, axis, metrics, group, prompting, messages], messages as [role, text, role, text, ...].
    `rows`: [item, arm, seed, sample, text, label, judge, flags, value, p, why], flags 1 unfinished, 2 ill-formed; what
    is missing is null (label null: unscored).
    """
    names = {key: _Numbered() for key in TABLES}
    texts, roles, items = _Texts(), _Numbered(), _Numbered()
    packed: list[list[Any]] = []
    dosed = 0
    for row in rows:
        if row.get("dose") is not None:
            dosed += 1
            continue
        said = [turn for turn in row.get("messages") or [] if isinstance(turn, dict)]
        turns = [(roles.of(_text(turn.get("role"))), texts.of(_text(turn.get("content")))) for turn in said]
        messages = tuple(place for turn in turns for place in turn)
        metrics = tuple(names["metrics"].of(_text(metric)) for metric in row.get("metrics") or [])
        axis, group = names["axes"].of(_text(row.get("axis"))), names["groups"].of(_text(row.get("group")))
        prompting = names["promptings"].of(_text(row.get("prompting") or "none"))
        place = (_text(row.get("item")), axis, metrics, group, prompting, messages)
        label, p = row.get("label"), row.get("p")
        value = number(row.get("value"))
        p = number(p.get(label) if isinstance(p, dict) else p)
        why = row.get("why")
        packed.append([
            items.of(place), names["arms"].of(_text(row.get("arm"))), names["seeds"].of(_text(row.get("seed"))),
            row.get("sample") if isinstance(row.get("sample"), int) else 0, texts.of(_text(row.get("answer"))),
            None if label is None else names["labels"].of(_text(label)), names["judges"].of(_text(row.get("judge"))),
            (row.get("finished") is False) + 2 * (row.get("well_formed") is False),
            None if value is None else round(value, 3), None if p is None else round(p, 3),
            None if why is None else texts.of(_text(why)),
        ])  # fmt: skip
    tables = {key: list(found) for key, found in names.items()}
    return {**tables, "roles": list(roles), "texts": texts, "items": list(items), "rows": packed, "dosed": dosed}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def pack(content: dict[str, Any]) -> tuple[str, int]:
    """(base64 of the gzipped JSON, characters of a text that were kept), small enough for a page."""
    limit = LIMIT * max(1.0, len(content["rows"]) / FEW)
    for cap in (cap for cap in CAPS if cap <= content["texts"].cap):
        packed = _gzip(_plain(content, cap), limit * 3 / 4 if cap > CAPS[-1] else None)
        if packed is not None:
            break
    return base64.b64encode(packed or b"").decode("ascii"), cap


def _plain(content: dict[str, Any], cap: int) -> Iterator[bytes]:
    """The content as JSON, part by part: the whole never stands in memory at once."""
    for before, (key, value) in zip("{" + "," * len(content), content.items(), strict=False):
        yield f'{before}"{key}":'.encode()
        if key not in ("texts", "rows"):
            yield _encoded(value).encode("ascii")
            continue
        parts = value.cut(cap) if key == "texts" else (_encoded(row).encode("ascii") for row in value)
        for place, part in enumerate(parts):
            yield (b"," if place else b"[") + part
        yield b"]" if value else b"[]"
    yield b"}"


def _gzip(parts: Iterable[bytes], limit: float | None) -> bytes | None:
    """The parts as a gzip file, the same at any time; None as soon as it gets larger than `limit`."""
    packer = zlib.compressobj(wbits=31)
    packed = bytearray()
    for part in parts:
        packed += packer.compress(part)
        if limit is not None and len(packed) > limit:
            return None
    packed += packer.flush()
    return None if limit is not None and len(packed) > limit else bytes(packed)
