"""Reads what a stage trains on: rows of the data pack, of a JSONL file, or of a dataset on the Hugging Face hub.

Every fault of a file is found at once and named by file:line; docs/data.md shows how to bring data of your own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from repro import environment, faults, jsonl, store
from repro.data.public import caution, hazardous_file
from repro.errors import BadInput, CannotHere
from repro.stages import Columns, FileSource, HubSource, PackSource
from repro.yamltree import describe, did_you_mean

Row = dict[str, Any]
DEFAULT_EAGER = 0.5
LONGEST = 200_000  # characters in a row
SHOWN = 20  # faults of a file
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
# what else a stage may read of a row, where its columns are renamed or it comes from the hub
KEPT = ("id", "topic", "principle", "args")


def name_of(source: PackSource | FileSource | HubSource) -> str:
    """How a source is named to people: its kind of rows, its file, or its id on the hub."""
    if isinstance(source, PackSource):
        return source.pack
    return source.file if isinstance(source, FileSource) else source.hub


def read(
    source: PackSource | FileSource | HubSource, pack: Any, split: Any, seed: int, kind: str | None = None
) -> list[Row]:
    """The rows of one source: {"messages": [...]} or {"text": ...}, each with an id. BadInput where there are none.

    With the `kind` of the stage that wants them (sdf, sft, dpo, grpo) each row is checked for what that stage needs.
    """
    name = name_of(source)
    if isinstance(source, PackSource):
        eager = DEFAULT_EAGER if source.eager is None else source.eager
        rows = pack.rows(source.pack, split, count=source.count, eager=eager, seed=seed)
    elif isinstance(source, FileSource):
        path = Path(source.file)
        if hazard := hazardous_file(str(path.resolve())):  # a link may lead there
            raise BadInput(f"{name} holds hazardous prompts ({hazard}): for labelling answers only, never for training")
        rows = read_jsonl(path, source.columns, kind)
    else:
        rows = _hub(source, kind)
    rows = rows if source.count is None else rows[: source.count]
    if not rows:
        raise BadInput(f"{name}: no rows to train on")
    return rows


def read_jsonl(path: Path, columns: Columns | None = None, kind: str | None = None) -> list[Row]:
    """The rows of a JSONL file; BadInput lists every faulty line as file:line (20 of them, then how many more)."""
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in jsonl.lines(path):
        try:
            rows.append({"id": f"{path.name}:{number}", **row_of(jsonl.parse(line), columns, kind)})
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    _raise(problems, "lines")
    return rows


def _raise(problems: list[str], what: str) -> None:
    if problems:
        rest = len(problems) - SHOWN
        raise BadInput(problems[:SHOWN] + ([f"and {rest} more {what}"] if rest > 0 else []))


# one row --------------------------------------------------------------------------------------------------------------


def row_of(raw: Any, columns: Columns | None = None, kind: str | None = None) -> Row:
    """A row as stages read it, its columns renamed and its turns as {role, content}. ValueError says what is wrong."""
    if not isinstance(raw, dict):
        raise ValueError(f"expected an object with messages or text, got {describe(raw)}")
    row = dict(raw) if columns is None else _renamed(raw, columns)
    if "id" in row and not isinstance(row["id"], str):
        row["id"] = str(row["id"])
    wanted = "text" if kind == "sdf" or (kind is None and "text" in row) else "messages"
    if wanted not in row:
        raise ValueError(_missing(wanted, raw))
    if wanted == "text":
        row["text"] = _words(row["text"], "text")
        size = len(row["text"])
    else:
        row["messages"] = _turns(row["messages"], kind)
        size = sum(len(turn["content"]) for turn in row["messages"])
    if kind == "dpo":
        if "chosen" not in row:
            raise ValueError(_missing("chosen", raw))
        size += len(_words(row["chosen"], "chosen"))
    if size > LONGEST:
        raise ValueError(f"a row of {size:,} characters; the most is {LONGEST:,}")
    return row


def _renamed(raw: Row, columns: Columns) -> Row:
    row = {key: raw[key] for key in KEPT if key in raw}
    if columns.text:
        row["text"] = _column(raw, columns.text, "text")
    elif columns.messages:
        row["messages"] = _column(raw, columns.messages, "messages")
    else:
        names = columns.prompt or []
        several = len(names) > 1
        parts = [_words(_column(raw, name, "prompt"), f"column {name}", may_lack=several) for name in names]
        prompt = "\n\n".join(part for part in parts if part.strip())
        turns = [{"role": "user", "content": _words(prompt, f"columns {', '.join(names)}: prompt")}]
        if columns.system:
            system = _column(raw, columns.system, "system")
            turns.insert(0, {"role": "system", "content": _words(system, f"column {columns.system}", may_lack=True)})
        if columns.response:
            response = _column(raw, columns.response, "response")
            turns.append({"role": "assistant", "content": _words(response, f"column {columns.response}: response")})
        row["messages"] = turns
    if columns.chosen:
        row["chosen"] = _column(raw, columns.chosen, "chosen")
    return row


def _column(raw: Row, name: str, key: str) -> Any:
    if name not in raw:
        raise ValueError(f'no column "{name}" (columns.{key}); there are: {", ".join(raw)}{did_you_mean(name, raw)}')
    return raw[name]


def _words(value: Any, name: str, may_lack: bool = False) -> str:
    """The value where it is text with words in it; with `may_lack` also "" for nothing."""
    if may_lack and (value is None or value == ""):
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {describe(value)}")
    if not value.strip() and not may_lack:
        raise ValueError(f"{name}: empty, expected words")
    return value


def _turns(messages: Any, kind: str | None) -> list[dict[str, str]]:
    """The turns as {role, content}; empty system prompts are left out. ShareGPT's from, value, human, gpt are known."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages: expected a list of turns, got {describe(messages or None)}")
    turns = []
    for number, turn in enumerate(messages, 1):
        if not isinstance(turn, dict):
            raise ValueError(f"messages: turn {number}: expected role and content, got {describe(turn)}")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise ValueError(f"messages: turn {number}: unknown role {role!r}, not one of {', '.join(ROLES)}")
        content = _words(content, f"messages: turn {number} ({role})", may_lack=ROLES[role] == "system")
        if content.strip():
            turns.append({"role": ROLES[role], "content": content})
    roles = [turn["role"] for turn in turns]
    if not turns:
        raise ValueError("messages: nobody says anything")
    if kind == "sft" and "assistant" not in roles:
        raise ValueError("messages: no assistant turn, so nothing to train on")
    if kind in ("dpo", "grpo") and roles[-1:] != ["user"]:
        raise ValueError(f"messages: a prompt for {kind} ends with the user's turn")
    return turns


def _missing(wanted: str, raw: Row) -> str:
    """What to write where the wanted key is not there, from the names that such data usually has."""
    usual = {
        "text": ["{text: content}", "{text: body}", "{text: document}"],
        "messages": [
            "{messages: conversations}", "{messages: conversation}", "{prompt: instruction, response: output}",
            "{prompt: question, response: answer}", "{prompt: prompt, response: response}",
            "{prompt: prompt, response: completion}",
        ],
        "chosen": [],
    }[wanted]  # fmt: skip
    fits = [text for text in usual if all(part.split(": ")[1] in raw for part in text.strip("{}").split(", "))]
    hint = f"; say columns: {fits[0]}" if fits else ""
    keys = ", ".join(map(str, raw)) or "nothing"
    return f'no key "{wanted}"; there are: {keys}{did_you_mean(wanted, raw)}{hint}'


# the hub --------------------------------------------------------------------------------------------------------------


def _hub(source: HubSource, kind: str | None) -> list[Row]:
    revision = hub_revision(source.hub, source.revision, kind="dataset")
    found = load_dataset(source.hub, source.hub, name=source.config, split=source.split, revision=revision)
    wanted: Iterable[Row] = found if source.count is None else found.select(range(min(source.count, len(found))))
    rows: list[Row] = []
    problems: list[str] = []
    for index, raw in enumerate(wanted):
        try:
            made = row_of(raw, source.columns, kind)
            kept = {key: made[key] for key in (*KEPT, "text", "messages", "chosen") if made.get(key) is not None}
            rows.append({"id": f"{source.hub}:{index}", **kept})
        except ValueError as error:
            problems.append(f"{source.hub}: row {index}: {error}")
    _raise(problems, "rows")
    return rows


def load_dataset(shown: str, *words: str, **options: Any) -> Any:
    """`datasets.load_dataset`, its errors as ours: BadInput for a configuration or split that is not there, CannotHere
    where the data can't be had. `shown` is how the errors name it."""
    import datasets

    try:
        return datasets.load_dataset(*words, **options)
    except Exception as error:  # the network, the hub and the readers of a dozen formats fail in many ways
        why = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, ValueError) and ("BuilderConfig" in why or "Unknown split" in why):
            raise BadInput(f"{shown}: {why}") from None
        if "gated" in why.lower():
            where = f"accept its conditions at https://huggingface.co/datasets/{shown}, then: hf auth login"
            raise CannotHere(f"{shown}: access has to be asked for; {where}") from None
        raise CannotHere(f"{shown}: the dataset can't be fetched: {why}") from None


def origin(source: PackSource | FileSource | HubSource) -> Row:
    """Where a source's rows come from, for the manifest: what identifies them, and their licence where it is known."""
    if isinstance(source, PackSource):
        return {"pack": source.pack}
    if isinstance(source, FileSource):
        about = {"file": source.file, "sha256": store.hash_file(Path(source.file)), "licence": source.licence}
        named = caution(source.file)
    else:
        revision = hub_revision(source.hub, source.revision, kind="dataset")
        about = {"hub": source.hub, "config": source.config, "split": source.split, "revision": revision}
        about["licence"], named = hub_licence(source.hub, revision), caution(source.hub)
    return about | ({"caution": named} if named else {})


@lru_cache
def hub_licence(name: str, revision: str) -> str | None:
    """The licence that a dataset's card states; None where it states none or can't be had."""
    from huggingface_hub import DatasetCard, hf_hub_download

    try:
        card = hf_hub_download(name, "README.md", repo_type="dataset", revision=revision)
        licence = DatasetCard.load(card).data.license
    except Exception:  # no card, no network, a card that is no card: the rows are what matters
        return None
    return ", ".join(map(str, licence)) if isinstance(licence, list) else licence


@lru_cache
def hub_revision(name: str, revision: str | None, kind: str = "model") -> str:
    """The commit of a hub id: the one given, else the newest (asked of the hub), else the one in the local cache."""
    if revision is not None:
        return revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    unknown = False
    offline = environment.offline()
    if not offline:
        try:
            return str(HfApi().repo_info(name, repo_type=kind, timeout=10).sha)
        except Exception as error:  # the network fails in many ways, and the cache may do
            reason = faults.network(error)
            unknown = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
    else:
        reason = "offline"
    cached = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "refs" / "main"
    if cached.is_file():
        return cached.read_text(encoding="utf-8").strip()
    if offline and kind == "model":
        from repro.locate import known

        raise BadInput(
            f"model {name}: not in the local cache, and --offline (or HF_HUB_OFFLINE) forbids to fetch it; "
            f"presets: {', '.join(known('models'))} (micro needs no download)"
        )
    if unknown:
        raise BadInput(f"{name}: the hub has no {kind} of this name (or it is private: hf auth login)")
    raise CannotHere(f"{name} is not in the local cache, and the hub can't be asked for it ({reason})")
