"""Readers of one's own data: JSONL files and hub datasets, their columns, faults by file:line, where they come from."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from repro import recipes
from repro.data import sources
from repro.errors import BadInput, CannotHere
from repro.stages import Columns, FileSource, HubSource, PackSource

CHAT = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}
TURNS = CHAT["messages"]


def columns(**names) -> Columns:
    return Columns.model_validate(names)


@pytest.fixture
def write(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def put(*rows, name: str = "mine.jsonl") -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        Path(name).write_bytes(b"\n".join(lines) + b"\n")
        return Path(name)

    return put


def lines_of(path: Path, names: Columns | None = None, kind: str | None = None) -> list[str]:
    with pytest.raises(BadInput) as caught:
        sources.read_jsonl(path, names, kind)
    assert caught.value.exit_code == 2
    return caught.value.lines


def hub(monkeypatch, rows: list[dict]) -> list[dict]:
    """Every dataset has these rows; returns what it is asked with."""
    asked = []

    class Rows(list):
        def select(self, places):
            return [self[place] for place in places]

    def load(shown, *words, **options):
        asked.append({"words": words, **options})
        return Rows(rows)

    monkeypatch.setattr(sources, "load_dataset", load)
    monkeypatch.setattr(sources, "hub_revision", lambda name, revision, kind="model": revision or "c0ffee")
    return asked


# columns ----------------------------------------------------------------------------------------------------------


def test_a_row_in_our_own_form_stays_as_it_is_and_gets_an_id(write) -> None:
    path = write({**CHAT, "note": 3}, {"id": "mine", "text": "Once upon a time."})
    assert sources.read_jsonl(path) == [
        {"id": "mine.jsonl:1", **CHAT, "note": 3},
        {"id": "mine", "text": "Once upon a time."},
    ]


def test_instruction_and_output_become_a_chat(write) -> None:
    path = write({"instruction": "Hello?", "output": "Hello.", "topic": "greeting", "stars": 5})
    rows = sources.read_jsonl(path, columns(prompt="instruction", response="output"), "sft")
    assert rows == [{"id": "mine.jsonl:1", "topic": "greeting", **CHAT}]


def test_several_prompt_columns_are_joined_and_an_empty_one_is_left_out(write) -> None:
    path = write({"q": "Add.", "input": "1 and 2", "a": "3"}, {"q": "Hello?", "input": "", "a": "Hello."})
    first, second = sources.read_jsonl(path, columns(prompt=["q", "input"], response="a"))
    assert first["messages"][0]["content"] == "Add.\n\n1 and 2"
    assert second["messages"] == TURNS


@pytest.mark.parametrize("said", ["", None])
def test_a_system_prompt_comes_first_and_an_empty_one_is_left_out(write, said) -> None:
    path = write({"s": "Be kind.", "q": "Hello?", "a": "Hello."}, {"s": said, "q": "Hello?", "a": "Hello."})
    first, second = sources.read_jsonl(path, columns(system="s", prompt="q", response="a"))
    assert first["messages"] == [{"role": "system", "content": "Be kind."}, *TURNS]
    assert second["messages"] == TURNS


def test_sharegpt_turns_become_ours(write) -> None:
    talk = [{"from": "system", "value": ""}, {"from": "human", "value": "Hello?", "weight": 0},
            {"from": "gpt", "value": "Hello."}]  # fmt: skip
    path = write({"conversations": talk})
    assert sources.read_jsonl(path, columns(messages="conversations"))[0]["messages"] == TURNS


def test_a_body_becomes_a_text(write) -> None:
    assert sources.read_jsonl(write({"body": "A tale."}), columns(text="body"), "sdf") == [
        {"id": "mine.jsonl:1", "text": "A tale."}
    ]


def test_a_preferred_answer_goes_with_a_prompt(write) -> None:
    path = write({"q": "Hello?", "good": "Hello."})
    row = sources.read_jsonl(path, columns(prompt="q", chosen="good"), "dpo")[0]
    assert (row["messages"], row["chosen"]) == (TURNS[:1], "Hello.")


@pytest.mark.parametrize(
    "names", [{}, {"response": "a"}, {"text": "t", "prompt": "q"}, {"messages": "m", "system": "s"}, {"chosen": "c"}]
)
def test_columns_name_one_way_to_read_a_row(names) -> None:
    with pytest.raises(ValidationError, match="columns: "):
        columns(**names)


def test_a_recipe_may_name_columns(write) -> None:
    write({"q": "Hello?", "a": "Hello."})
    Path("mine.yaml").write_text(
        "schema: 1\nname: mine\nstages:\n  - {kind: sft, steps: 1, data: {file: mine.jsonl, columns: {prompt: q, "
        "response: a}, licence: CC0-1.0}}\n"
    )
    source = recipes.load_recipe("mine.yaml").stages[0].data[0]
    assert source == FileSource(file="mine.jsonl", columns=columns(prompt="q", response="a"), licence="CC0-1.0")
    assert sources.read(source, None, None, 0, "sft") == [{"id": "mine.jsonl:1", **CHAT}]


# faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        ([1], None, "expected an object with messages or text, got a list"),
        ({"massages": []}, None, 'no key "messages"; there are: massages (did you mean "massages"?)'),
        ({}, None, 'no key "messages"; there are: nothing'),
        ({"instruction": "a", "output": "b"}, "sft", "; say columns: {prompt: instruction, response: output}"),
        ({"conversations": []}, None, "; say columns: {messages: conversations}"),
        (CHAT, "sdf", 'no key "text"; there are: messages'),
        ({"text": "A tale."}, "sft", 'no key "messages"; there are: text'),
        (CHAT | {"messages": TURNS[:1]}, "dpo", 'no key "chosen"; there are: messages'),
        ({"text": 3}, None, "text: expected text, got the number 3"),
        ({"text": " \n"}, None, "text: empty, expected words"),
        ({"messages": []}, None, "messages: expected a list of turns, got nothing"),
        ({"messages": "Hello?"}, None, 'messages: expected a list of turns, got "Hello?"'),
        ({"messages": ["Hello?"]}, None, 'messages: turn 1: expected role and content, got "Hello?"'),
        ({"messages": [{"role": "narrator", "content": "Once"}]}, None, 'messages: turn 1: unknown role \'narrator\''),
        ({"messages": [{"content": "Once"}]}, None, "messages: turn 1: unknown role None"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": ""}]}, None, "(assistant): empty, expected words"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]}, None,
         "messages: turn 1 (user): expected text, got a list"),
        ({"messages": [{"role": "user", "content": None}]}, None, "turn 1 (user): expected text, got nothing"),
        ({"messages": [{"role": "system", "content": ""}]}, None, "messages: nobody says anything"),
        ({"messages": TURNS[:1]}, "sft", "messages: no assistant turn, so nothing to train on"),
        (CHAT, "grpo", "messages: a prompt for grpo ends with the user's turn"),
        ({"text": "a" * 200_001}, None, "a row of 200,001 characters; the most is 200,000"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "a" * 200_000}]}, None, "a row of 200,006 char"),
        (b'{"text": "a", "text": "b"}', None, 'duplicate key "text"'),
        (b'{"messages": [{"role": "user", "role": "user", "content": "a"}]}', None, 'duplicate key "role"'),
        (b'{"text": "a", "x": NaN}', None, "NaN is no JSON number"),
        (b'{"text": ', None, "not JSON: Expecting value (character 10)"),
        (b"[" * 100_000, None, "not JSON: too deeply nested"),
        (b'{"text": "caf\xe9"}', None, "not UTF-8 (byte 0xe9 at place 14 of the line)"),
        (b'{"text": "\\ud83d"}', None, "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_each_fault_is_told_with_its_line(write, row, kind, said) -> None:
    good = {"text": "A tale."} if kind == "sdf" else {"messages": TURNS[:1], "chosen": "Hello."}
    good = CHAT if kind == "sft" else good
    (line,) = lines_of(write(good, row), kind=kind)
    assert line.startswith("mine.jsonl:2: ")
    assert said in line


def test_a_whole_surrogate_pair_is_a_character(write) -> None:
    assert sources.read_jsonl(write(b'{"text": "\\ud83d\\ude00"}'))[0]["text"] == "\N{GRINNING FACE}"


def test_a_wrong_column_is_told_with_the_right_one(write) -> None:
    path = write({"question": "Hello?", "answer": "Hello."})
    assert lines_of(path, columns(prompt="question", response="answr")) == [
        'mine.jsonl:1: no column "answr" (columns.response); there are: question, answer (did you mean "answer"?)'
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"q": "Hello?", "a": " "}, "column a: response: empty, expected words"),
        ({"q": "Hello?", "a": None}, "column a: response: expected text, got nothing"),
        ({"q": "", "a": "Hello."}, "column q: empty, expected words"),
    ],
)
def test_an_empty_prompt_or_response_is_told_by_its_column(write, row, said) -> None:
    assert lines_of(write(row), columns(prompt="q", response="a")) == [f"mine.jsonl:1: {said}"]


def test_all_faults_are_told_twenty_of_them_in_full(write) -> None:
    lines = lines_of(write(*[{"text": ""}] * 23))
    assert lines[:20] == [f"mine.jsonl:{number}: text: empty, expected words" for number in range(1, 21)]
    assert lines[20:] == ["and 3 more lines"]
    assert len(lines_of(write(*[{"text": ""}] * 20))) == 20


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_do_no_harm(write) -> None:
    path = write(b'\xef\xbb\xbf{"text": "a"}\r', b"", b'{"text": "b"}\r')
    assert [row["id"] for row in sources.read_jsonl(path)] == ["mine.jsonl:1", "mine.jsonl:3"]


def test_utf_16_is_named_once(write) -> None:
    path = write()
    path.write_text('{"text": "a"}\n' * 30, encoding="utf-16")
    assert lines_of(path) == ["mine.jsonl:1: not UTF-8, but UTF-16: save it as UTF-8"]


def test_a_file_that_is_missing_or_a_folder_is_told(write, tmp_path) -> None:
    assert lines_of(Path("no.jsonl")) == ["no.jsonl: can't be read: no such file"]
    (tmp_path / "folder").mkdir()
    assert lines_of(Path("folder"))[0].startswith("folder: can't be read")


def test_a_file_without_rows_trains_nothing(write) -> None:
    write(b"")
    with pytest.raises(BadInput, match=r"mine.jsonl: no rows to train on"):
        sources.read(FileSource(file="mine.jsonl"), None, None, 0)


def test_a_count_takes_the_first_rows(write) -> None:
    write({"text": "a"}, {"text": "b"}, {"text": "c"})
    assert [row["text"] for row in sources.read(FileSource(file="mine.jsonl", count=2), None, None, 0)] == ["a", "b"]


# the hub ----------------------------------------------------------------------------------------------------------


def test_a_hub_dataset_is_read_with_its_columns_and_keeps_what_stages_read(monkeypatch) -> None:
    rows = [{"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}], "id": 7,
             "made": object()}] * 3  # fmt: skip
    asked = hub(monkeypatch, rows)
    source = HubSource(
        hub="some/chats", config="small", split="test", count=2, columns=columns(messages="conversations")
    )
    found = sources.read(source, None, None, 0, "sft")
    assert found == [{"id": "7", **CHAT}] * 2
    assert asked == [{"words": ("some/chats",), "name": "small", "split": "test", "revision": "c0ffee"}]


def test_a_fault_of_a_hub_dataset_names_its_row(monkeypatch) -> None:
    hub(monkeypatch, [{"text": "a"}, {"text": ""}, {"texts": "b"}])
    with pytest.raises(BadInput) as caught:
        sources.read(HubSource(hub="some/tales"), None, None, 0, "sdf")
    assert caught.value.lines == [
        "some/tales: row 1: text: empty, expected words",
        'some/tales: row 2: no key "text"; there are: texts (did you mean "texts"?)',
    ]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ValueError("BuilderConfig 'x' not found. Available: ['y']"), BadInput, r"some/tales: BuilderConfig 'x' not"),
        (ValueError('Unknown split "x". Should be one of [\'train\'].'), BadInput, r'some/tales: Unknown split "x"'),
        (OSError("Dataset 'some/tales' is a gated dataset on the Hub."), CannotHere,
         r"accept its conditions at https://huggingface.co/datasets/some/tales, then: hf auth login"),
        (ConnectionError("no route\nto host"), CannotHere, "the dataset can't be fetched: no route to host"),
        (KeyError(), CannotHere, "can't be fetched: KeyError"),
    ],
)  # fmt: skip
def test_what_the_hub_says_becomes_an_error_for_people(monkeypatch, error, kind, said) -> None:
    def load(*_, **__):
        raise error

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    with pytest.raises(kind, match=said):
        sources.load_dataset("some/tales", "some/tales", split="x")


def test_an_unknown_dataset_is_bad_input_and_a_silent_hub_is_not(monkeypatch, tmp_path) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub import constants, errors

    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))

    def ask(error):
        def repo_info(*_, **__):
            raise error

        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(repo_info=repo_info))
        sources.hub_revision.cache_clear()
        return sources.hub_revision("some/tales", None, kind="dataset")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(BadInput, match="the hub has no dataset of this name"):
        ask(errors.RepositoryNotFoundError("no", response=response))
    with pytest.raises(CannotHere, match="GatedRepoError"):
        ask(errors.GatedRepoError("no", response=response))
    with pytest.raises(CannotHere, match="some/tales is not in the local cache"):
        ask(OSError())
    sources.hub_revision.cache_clear()


# where it comes from ----------------------------------------------------------------------------------------------


def test_the_manifest_gets_what_identifies_a_source(write, monkeypatch) -> None:
    write({"text": "a"})
    assert sources.origin(PackSource(pack="documents")) == {"pack": "documents"}
    digest = hashlib.sha256(b'{"text": "a"}\n').hexdigest()
    assert sources.origin(FileSource(file="mine.jsonl", licence="CC0-1.0")) == {
        "file": "mine.jsonl", "sha256": digest, "licence": "CC0-1.0",
    }  # fmt: skip
    hub(monkeypatch, [])
    monkeypatch.setattr(sources, "hub_licence", lambda name, revision: "mit" if revision == "c0ffee" else None)
    assert sources.origin(HubSource(hub="some/tales", config="x")) == {
        "hub": "some/tales", "config": "x", "split": "train", "revision": "c0ffee", "licence": "mit",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("card", "licence"),
    [("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"), ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
     ("# Tales\n", None), (None, None)],
)  # fmt: skip
def test_the_licence_is_the_cards_where_it_states_one(monkeypatch, tmp_path, card, licence) -> None:
    import huggingface_hub

    def download(name, file, **_):
        if card is None:
            raise OSError("no network")
        (tmp_path / file).write_text(card)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    sources.hub_licence.cache_clear()
    assert sources.hub_licence("some/tales", "c0ffee") == licence


# what is hazardous ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ("{hub: WalledAI/strongreject}", 5),
        ("{hub: Paul/XSTest, count: 3}", 5),
        ("{hub: bench-llm/or-bench, config: or-bench-toxic}", 5),
    ],
)
def test_a_hazardous_set_is_refused_as_training_data_where_the_recipe_names_it(write, named, line) -> None:
    Path("mine.yaml").write_text(
        f"schema: 1\nname: mine\nstages:\n  - kind: sft\n    data: [ordinary, {named}]\n    steps: 1\n"
    )
    with pytest.raises(BadInput, match="holds hazardous prompts") as caught:
        recipes.load_recipe("mine.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.lines[0].startswith(f"mine.yaml:{line}:")


def test_a_file_that_leads_into_a_hazardous_sets_folder_is_refused(write, tmp_path) -> None:
    folder = tmp_path / "hub" / "datasets--walledai--StrongREJECT" / "snapshots"
    folder.mkdir(parents=True)
    write(CHAT, name=str(folder / "rows.jsonl"))
    with pytest.raises(ValidationError, match="holds hazardous prompts"):
        FileSource(file=str(folder / "rows.jsonl"))
    (tmp_path / "linked.jsonl").symlink_to(folder / "rows.jsonl")
    with pytest.raises(BadInput, match=r"linked.jsonl holds hazardous prompts \(strongreject\)"):
        sources.read(FileSource(file="linked.jsonl"), None, None, 0)


def test_a_copy_of_a_hazardous_set_by_its_name_is_warned_of(write, monkeypatch) -> None:
    hub(monkeypatch, [])
    monkeypatch.setattr(sources, "hub_licence", lambda name, revision: None)
    assert "named like xstest" in sources.origin(HubSource(hub="somebody/my-XS_Test-copy"))["caution"]
    write(CHAT, name="strong_reject.jsonl")
    assert "named like strongreject" in sources.origin(FileSource(file="strong_reject.jsonl"))["caution"]
    assert "caution" not in sources.origin(HubSource(hub="some/tales"))
