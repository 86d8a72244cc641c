"""Reads YAML into a tree that remembers where each value was written, so that errors can name file, line and column.

YAML 1.2 scalars (`no` is a word, 1e-5 a number); duplicate keys, anchors, aliases, merge keys and tags are refused.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from repro.errors import BadInput

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 5_000  # in a file; the longest recipe has a few hundred
SHOWN = 50  # faults named in one go

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_SPECIAL |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_SPECIAL |= {sign + form: float(sign + "inf") for sign in ("", "+", "-") for form in (".inf", ".Inf", ".INF")}
_SPECIAL |= dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))


@dataclass(frozen=True)
class Place:
    """Where something was written: a file with 1-based line and column, or (line 0) a `--set` on the command line."""

    source: str
    line: int = 0
    column: int = 0
    folder: Path | None = None  # what relative paths written here are relative to

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def short(self) -> str:
        """`file:line`, or `--set`."""
        return f"{self.source}:{self.line}" if self.line else self.source.split(" ")[0]


@dataclass(frozen=True)
class Node:
    """A value (mapping, list, scalar or, once loaded, an object), its place, and that of the key it stands under."""

    value: Any  # dict[str, Node], list[Node], a scalar, or an object
    place: Place
    key: Place | None = None


def shown(path: Path) -> str:
    """A path as people want to read it: relative to the working folder where it lies inside it."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except (OSError, ValueError):
        return str(path)


def did_you_mean(word: object, candidates: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing where no candidate is close."""
    spelt = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(word).casefold(), spelt, n=1, cutoff=0.6)
    return f' (did you mean "{spelt[close[0]]}"?)' if close else ""


def one_line(text: str) -> str:
    """The text with every stretch of white space as one blank, and what would steer a terminal as escapes: a message
    takes one line whatever it quotes."""
    words = " ".join(text.split())
    return words if words.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def shortened(problems: list[str]) -> list[str]:
    """The first faults, and how many more there are."""
    rest = len(problems) - SHOWN
    return problems if rest <= 1 else [*problems[:SHOWN], f"and {rest:,} more faults"]


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file; BadInput where it is missing, unreadable, too large or something else."""
    name = shown(path)
    if not os.path.isfile(path):
        raise BadInput(f"{name}: no such file")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{name}: cannot be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        last = data.count(b"\n") + 1
        raise BadInput(f"{name}:{last}:1: larger than {MAX_BYTES // 1_000_000} MB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise BadInput(f"{name}:{line}:{column}: not UTF-8 text") from None


def read_yaml(path: Path) -> Node:
    """The mapping that a YAML file holds; BadInput lists everything wrong with its form."""
    node = parse(read_text(path), shown(path), path.resolve().parent)
    if not isinstance(node.value, dict):
        raise BadInput(f"{node.place}: expected a mapping (key: value), got {describe(node.value)}")
    return node


def parse(text: str, source: str, folder: Path | None = None, *, lines: bool = True) -> Node:
    """A YAML text as a tree. `lines=False` is for a text from the command line, whose places are just `source`."""
    reader = _Reader(source, folder, lines)
    try:
        loader = yaml.SafeLoader(text)
        node = reader.document(_events(loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reader.problem(f"not valid YAML: {error.problem or error.context}", mark)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, before.count("\n") + 1, error.position - before.rfind("\n")) if lines else source
        reader.problems.append(f"{place}: the character {chr(int(error.character))!r} is not allowed")
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # e.g. an escape beyond Unicode
        reader.problem(f"not valid YAML: {error}", loader.get_mark())
    if reader.problems:
        raise BadInput(shortened([one_line(problem) for problem in reader.problems]))
    return node


def _events(loader: yaml.SafeLoader) -> Iterator[Any]:
    while loader.check_event():
        yield loader.get_event()


def scalar(text: str) -> Any:
    """An unquoted word by YAML 1.2's core rules, but that 1e-5 needs no dot: null, boolean, number or text."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if len(text) <= 100:  # no sane number is longer, and python refuses to read integers of thousands of digits
        if len(text) <= 18 and _INT.fullmatch(text):  # one of more digits stays text, and no number is text
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


class _Reader:
    """Builds nodes from PyYAML's events (not from its values: those follow YAML 1.1), collecting every problem."""

    def __init__(self, source: str, folder: Path | None, lines: bool):
        self.source, self.folder, self.lines, self.values = source, folder, lines, 0
        self.problems: list[str] = []

    def place(self, mark: Any) -> Place:
        if not self.lines or mark is None:
            return Place(self.source, folder=self.folder)
        return Place(self.source, mark.line + 1, mark.column + 1, self.folder)

    def problem(self, message: str, mark: Any) -> None:
        self.problems.append(f"{self.place(mark)}: {message}")

    def document(self, events: Iterator[Any]) -> Node:
        next(events)  # stream start
        event = next(events)
        if isinstance(event, yaml.StreamEndEvent):
            self.problem("empty: expected a mapping (key: value)", event.start_mark)
            return Node(None, self.place(event.start_mark))
        node = self.node(next(events), events, 0)
        next(events)  # document end
        event = next(events)
        if isinstance(event, yaml.DocumentStartEvent):
            self.problem("a second document: one file holds one", event.start_mark)
        return node

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self.place(event.start_mark)
        self.values += 1
        if self.values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES:,} values", problem_mark=event.start_mark)
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH}", problem_mark=event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            self.problem(f"the alias *{event.anchor} is refused: write the value out, or use extends", event.start_mark)
            return Node(None, place)
        if event.anchor is not None:
            self.problem(f"the anchor &{event.anchor} is refused: write values out, or use extends", event.start_mark)
        if event.tag is not None:
            self.problem(f"the tag {event.tag} is refused", event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            if not event.value.isascii() and any("\ud800" <= character <= "\udfff" for character in event.value):
                self.problem("half of a surrogate pair, which is no character", event.start_mark)
            return Node(scalar(event.value) if event.style is None else event.value, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(list(self.items(events, depth)), place)
        return Node(self.mapping(events, depth), place)

    def items(self, events: Iterator[Any], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            yield self.node(event, events, depth + 1)

    def mapping(self, events: Iterator[Any], depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self.node(event, events, depth + 1)
            name = event.value if isinstance(event, yaml.ScalarEvent) else None
            node = replace(self.node(next(events), events, depth + 1), key=key.place)
            if name is None:
                self.problems.append(f"{key.place}: a key must be a word")
            elif name == "<<":
                self.problems.append(f"{key.place}: the merge key << is refused: use extends")
            elif name in found:
                self.problems.append(f'{key.place}: duplicate key "{name}" (first at line {_line(found[name])})')
            else:
                found[name] = node
        return found


def _line(node: Node) -> int:
    return node.key.line if node.key else node.place.line


def plain(node: Node) -> Any:
    """The tree's values alone."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def describe(value: object) -> str:
    """A value as an error message names it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the number {text}" if isinstance(value, (int, float)) else f'"{text}"'


LENGTH = ("epochs", "steps")  # a stage has one of these: naming one drops the other
SOURCE = ("pack", "file", "hub")  # a data source has one of these: another one is another source altogether


def merge(base: Node, over: Node, problems: list[str]) -> Node:
    """`over` laid on `base`: mappings merge key by key, a mapping laid on a list of stages changes the stages it names
    (`{sft: {steps: 10}, sdf: null}`; null takes one out), anything else is replaced. Unknown stages become `problems`.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    old, new = base.value, over.value
    sources = [key for key in SOURCE if key in new]
    if sources and any(key in old for key in SOURCE) and not any(key in old for key in sources):
        return over
    merged = _without(old, LENGTH) if any(key in new for key in LENGTH) else dict(old)
    for key, child in new.items():
        if key not in old:
            merged[key] = child
        elif key == "stages" and isinstance(old[key].value, list) and isinstance(child.value, dict):
            merged[key] = _merge_stages(old[key], child, problems)
        else:
            merged[key] = replace(merge(old[key], child, problems), key=child.key)
    return Node(merged, over.place, over.key)


def _merge_stages(base: Node, over: Node, problems: list[str]) -> Node:
    stages: dict[str, Node] = dict(zip(names(base.value), base.value, strict=True))
    known = list(stages)
    for name, change in over.value.items():
        if name not in known:
            problems.append(_no_element(change.key or change.place, name, known))
        elif change.value is None:
            del stages[name]
        else:
            stages[name] = merge(stages[name], change, problems)
    return Node(list(stages.values()), base.place, base.key)


def _without(mapping: dict[str, Node], keys: Iterable[str]) -> dict[str, Node]:
    return {key: child for key, child in mapping.items() if key not in keys}


def names(nodes: list[Node]) -> list[str]:
    """What a list's elements are called: a stage's kind, a data source's name; `.0`, `.1`, ... where one repeats."""
    found = []
    for node in nodes:
        inner = node.value if isinstance(node.value, dict) else {"pack": node}
        named = next((inner[key].value for key in ("kind", *SOURCE) if key in inner), None)
        found.append(named if isinstance(named, str) else "?")
    return numbered(found)


def numbered(words: list[str]) -> list[str]:
    """The words, those that repeat with `.0`, `.1`, ... after them."""
    return [word if words.count(word) == 1 else f"{word}.{words[:i].count(word)}" for i, word in enumerate(words)]


def _no_element(place: Place, name: str, known: list[str]) -> str:
    repeats = [other for other in known if other.rpartition(".")[0] == name]
    if repeats:
        return f'{place}: "{name}" is there {len(repeats)} times: write {" or ".join(repeats)}'
    return f'{place}: there is no "{name}", only {", ".join(known) or "nothing"}{did_you_mean(name, known)}'


def put(node: Node, parts: list[str], value: Node) -> Node:
    """The tree with `value` at the path `parts`; list elements go by name or position, null takes one out.

    BadInput where there is no such place.
    """
    if not parts:
        return replace(value, key=node.key)
    part, rest, inner = parts[0], parts[1:], node.value
    if isinstance(inner, list):
        known = names(inner)
        pair = ".".join(parts[:2])
        if pair in known:
            index, rest = known.index(pair), parts[2:]
        elif part in known:
            index = known.index(part)
        elif part.isdecimal() and int(part) < len(inner):
            index = int(part)
        else:
            raise BadInput(_no_element(value.place, part, known))
        if not rest and value.value is None:  # as in files: null takes a stage out
            return replace(node, value=inner[:index] + inner[index + 1 :])
        return replace(node, value=[put(n, rest, value) if i == index else n for i, n in enumerate(inner)])
    if isinstance(inner, str) and part == inner and rest:
        return put(node, rest, value)
    if isinstance(inner, str) and part in (*SOURCE, "count", "eager"):  # a source written as its bare name
        inner = {} if part in SOURCE else {"pack": node}
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise BadInput(f'{value.place}: there is nothing called "{part}" inside {describe(inner)}')
    for group in (LENGTH, SOURCE):
        if part in group and not rest:
            inner = _without(inner, [key for key in group if key != part])
    child = inner.get(part, Node(None, value.place, value.place))
    changed = replace(put(child, rest, value), key=child.key)
    return replace(node, value={**inner, part: changed})
