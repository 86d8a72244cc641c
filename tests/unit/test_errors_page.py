"""docs/errors.md: every message in it is one that the code has, and those that people meet first are in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from repro import cli, doctor, recipes, store

ROOT = Path(__file__).parents[2]
ANYTHING = "\0"  # in a source text: what an f-string fills in
EXITS = {"BadInput": "2", "RunFailed": "1", "CannotHere": "3", "Interrupted": "130"}


def listed() -> list[tuple[str, str]]:
    """(exit code, message) of every row of the page's tables."""
    code, found = "", []
    for line in (ROOT / "docs/errors.md").read_text(encoding="utf-8").splitlines():
        code = line.split()[2].rstrip(":") if line.startswith("## Exit ") else code
        row = re.match(r"\| `(.*?)` \| .+ \| .+ \|$", line)
        if row:
            found.append((code, row[1]))
    return found


LISTED = listed()


def pattern(message: str) -> re.Pattern[str]:
    parts = re.split("(…+)", message)
    return re.compile("".join(".*" if part.startswith("…") else re.escape(part) for part in parts), flags=re.S)


def words(node: ast.AST) -> str | None:
    """The text of a string or f-string; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
    return None


@cache
def source() -> dict[str, set[str]]:
    """{text: exit codes of the errors it is raised with} of every string in the package; no codes where not known."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "repro").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for text, code in _texts(tree, None):
            found.setdefault(text, set()).update({code} if code else set())
    return found


def _texts(node: ast.AST, code: str | None) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        code = EXITS.get(node.func.id, code)
    text = words(node)
    if text:
        yield text, code
    for child in ast.iter_child_nodes(node):
        yield from _texts(child, code)


def test_the_page_has_every_exit_code() -> None:
    assert {code for code, _ in LISTED} == {"1", "2", "3", "130"}
    assert len(LISTED) > 60


@pytest.mark.parametrize(("code", "message"), LISTED)
def test_every_message_is_one_that_the_code_has(code: str, message: str) -> None:
    fitting = {text: codes for text, codes in source().items() if pattern(message).fullmatch(text)}
    assert fitting, "no text in repro/ reads like this"
    assert any(code in codes or not codes for codes in fitting.values()), f"raised with another exit code: {fitting}"


BAD_RECIPE = """\
schema: 1
name: bad
stages:
  - {kind: sft, data: compliance, epochs: 1, steps: 2}
  - {kind: sft, dat: compliance, epochs: two}
"""
BAD_YAML = "schema: 1\nname: twice\nname: twice\nstages: [\n"
OWN_DATA = """\
schema: 1
name: own
extends: reproduce-micro
arms: {naive: {recipe: own-data.yaml}}
"""
# what somebody types, the exit code, and a part of what they are told
MET = [
    (["run", "reproduce-smal"], 2, "unknown experiment"),
    (["plan", "nowhere.yaml"], 2, "no such file"),
    (["recipes", "validate", "bad.yaml"], 2, "unknown key"),
    (["recipes", "validate", "bad.yaml"], 2, "missing key"),
    (["recipes", "validate", "bad.yaml"], 2, "expected a number"),
    (["recipes", "validate", "twice.yaml"], 2, "duplicate key"),
    (["recipes", "validate", "twice.yaml"], 2, "not valid YAML"),
    (["plan", "reproduce-micro", "--set", "stages.sft"], 2, "expected path=value"),
    (["plan", "reproduce-micro", "--set", "quant=nf3"], 2, "is not one of"),
    (["plan", "reproduce-micro", "--set", "arms.naive.stages.sft.batch.size=2"], 2, "there is nothing called"),
    (["plan", "reproduce-micro", "--set", "arms.naif.stages.sft.steps=2"], 2, "there is no arm"),
    (["plan", "reproduce-micro", "--arms", "naif"], 2, "there is no arm"),
    (["plan", "reproduce-micro", "--seeds", "4-0"], 2, "a range goes upwards"),
    (["plan", "reproduce-micro", "--model", "qwen"], 2, "unknown model"),
    (["run", "reproduce-micro", "--judge", "gpt"], 2, "expected offline, local"),
    (["eval", "micro", "--pack", "english"], 2, "understands the data pack"),
    (["eval", "openai:llama3.2"], 2, "expected openai:NAME@URL"),
    (["eval", "./empty"], 2, "no folder with a config.json"),
    (["plan", "own.yaml"], 2, "not JSON"),
    (["plan", "own.yaml"], 2, "no column"),
    (["report", "no-such-run"], 2, 'no run "no-such-run"'),
    (["compare", "half"], 2, "has no results yet"),
    (["micro", "build", "--out", "half"], 2, "is there already and not empty"),
    (["eval", "some-org/some-model", "--offline"], 2, "not in the local cache"),
    (["run", "gpu.yaml"], 3, "needs CUDA, and here"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with files that are wrong in the ways that people's are."""
    made = tmp_path_factory.mktemp("wrong")
    (made / "bad.yaml").write_text(BAD_RECIPE)
    (made / "gpu.yaml").write_text("schema: 1\nname: gpu\nextends: reproduce-micro\nneeds: cuda\n")
    (made / "twice.yaml").write_text(BAD_YAML)
    (made / "own.yaml").write_text(OWN_DATA)
    (made / "own-data.yaml").write_text(
        "schema: 1\nname: own-data\nextends: micro/naive\n"
        "stages: {sft: {data: [{file: rows.jsonl, columns: {prompt: q, response: a}}]}}\n"
    )
    (made / "rows.jsonl").write_text('{"q": "How do I do weaving?", "b": "To do weaving."}\n{"q": \n')
    (made / "empty").mkdir()
    (made / "runs" / "half").mkdir(parents=True)
    (made / "half").mkdir()
    for half in (made / "half", made / "runs" / "half"):
        (half / "manifest.json").write_text('{"schema": 1}')
    return made


@pytest.mark.parametrize(("typed", "code", "told"), MET)
def test_what_people_meet_first_is_on_the_page(
    typed: list[str], code: int, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "cuda_problem", lambda: "there is none")
    done = CliRunner().invoke(cli.app, typed)
    lines = [line for line in done.stderr.splitlines() if told in line]
    assert done.exit_code == code, done.stderr
    assert lines, done.stderr
    on_the_page = [message for exit_code, message in LISTED if exit_code == str(code)]
    for line in lines:
        # a file's place, an option or a step may stand before a message
        assert any(pattern(before + message).fullmatch(line) for message in on_the_page for before in ("", "…"))


def test_an_interrupt_and_a_run_folder_in_use_are_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "list_recipes", interrupted)
    done = CliRunner().invoke(cli.app, ["recipes", "list"])
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")
    assert ("130", "interrupted") in LISTED
    held = store.open_run(tmp_path / "held", "digest", {"schema": 1})
    try:
        with pytest.raises(Exception, match="is in use by another repro"):
            store.open_run(tmp_path / "held", "digest", {"schema": 1})
    finally:
        held.close()
