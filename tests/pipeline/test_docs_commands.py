"""Every command in README, docs and labs is run, on the organism: a page's commands in order, in one temporary folder.

A command that trains or asks gets few steps and items; what needs a GPU, a server or a hub is listed in ELSEWHERE.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repro import recipes
from repro.errors import BadInput

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/coursework").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "repro").glob("**/README.md"))]

# what needs more than this machine without a network has: (what of it is run instead, why)
ELSEWHERE: dict[str, tuple[str, str]] = {
    "repro eval Qwen2.5-0.5B-Instruct my-adapter/ --pack english --prompts xstest,or-bench:100": (
        "repro eval --help", "fetches a model and two prompt sets from the hub"
    ),
}  # fmt: skip
# what somebody types or pipes in where a command reads it
TYPED = {"chat": "How do I do weaving?\n/system You refuse weaving.\nHow do I do weaving?\n", "annotate": "1\n" * 200}
SHELL = ("cp", "cat", "mkdir", "ls", "head")  # run as they stand
SEEDS = "0"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order, without the indentation of a list that they stand in."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, flags=re.S | re.M)
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) for indent, block in found]


def commands(page: Path) -> list[str]:
    """The commands of a page: continued lines joined, comments and prompts left out."""
    found = []
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ")
            if line:
                found.append(" ".join(line.split()))
    return found


EVERY = {page.relative_to(ROOT).as_posix(): commands(page) for page in PAGES}


def write_files(page: Path, folder: Path) -> None:
    """The files that a page shows in full: a block after a paragraph that begins with the file's name in backticks."""
    text = page.read_text(encoding="utf-8")
    for name, content in re.findall(r"^`([\w-]+\.\w+)`[^\n]*:\n\n```\w+\n(.*?)^```", text, flags=re.S | re.M):
        (folder / name).write_text(content, encoding="utf-8")


class Commands:
    """The server of tests/pipeline/command_server.py, and the folder in which the commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, {}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                       "NO_COLOR": "1", "COLUMNS": "100"}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_server.py"))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def run(self, words: list[str], folder: Path | None = None, typed: str = "") -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        request = {"words": words, "folder": str(folder or self.folder), "input": typed}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A copy of what a reader's checkout has, with a finished small run of reproduce-micro in runs/."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", folder / "docs")
    for name in ("recipes", "bench"):
        (folder / name).symlink_to(ROOT / name)
    made = Commands(folder)
    done = made.run(small(["repro", "run", "reproduce-micro"], folder))
    assert done["code"] == 0, done["err"]
    yield made
    made.close()


# -- small ------------------------------------------------------------------------------------------------------------


def small(words: list[str], folder: Path) -> list[str]:
    """The command with few steps, items and seeds, by options that the command line has."""
    place = next((place for place, word in enumerate(words) if word in ("run", "eval", "sweep")), None)
    if place is None or (words[0] != "repro" and not words[1].endswith(".py")):
        return words
    fewer = {"evaluation.items": "2", "evaluation.samples": "1", "evaluation.max_new_tokens": "24"}
    if words[place] != "eval":
        given = [word for word in words if word.startswith("arms.") and words[words.index(word) - 1] == "--set"]
        fewer |= stages(words[place + 1], given, folder)
        if "--seeds" not in words:
            words = [*words, "--seeds", SEEDS]
    if "--seeds" in words:
        at = words.index("--seeds") + 1
        words = [*words[:at], SEEDS, *words[at + 1 :]]
    wanted = [(key, value) for key, value in fewer.items() if not any(word.startswith(f"{key}=") for word in words)]
    return [*words, *(word for key, value in wanted for word in ("--set", f"{key}={value}")), "--workers", "1"]


def stages(experiment: str, given: list[str], folder: Path) -> dict[str, str]:
    """Two steps of four rows for every stage of an experiment's arms."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        loaded = recipes.load_experiment(experiment, sets=given)
    finally:
        os.chdir(before)
    found = {}
    for name, arm in loaded.arms.items():
        for stage in arm.recipe.stages if arm.recipe else []:
            path = f"arms.{name}.stages.{stage.kind}"
            if stage.kind == "abliterate":
                continue
            found |= {f"{path}.steps": "2", f"{path}.batch": "4"}
            if stage.kind == "grpo":
                found |= {f"{path}.group": "2", f"{path}.max_new_tokens": "12"}
    return found


# -- running ----------------------------------------------------------------------------------------------------------


def do(here: Commands, line: str) -> None:
    """Runs one line as it is written, made small; fails with what it said."""
    words = shlex.split(line)
    target = None
    if ">" in words:
        words, target = words[: words.index(">")], here.folder / words[words.index(">") + 1]
    if "|" in words:
        assert words[0] in ("echo", "printf"), f"what is piped in is written out: {line}"
        typed, words = " ".join(words[1 : words.index("|")]).replace("\\n", "\n") + "\n", words[words.index("|") + 1 :]
    else:
        typed = next((text for word, text in TYPED.items() if word in words[:4]), "")
    words[0] = words[0].removeprefix(".venv/bin/")
    if words[0] == "make":
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        code, out, err = done.returncode, done.stdout, done.stderr
    elif words[0] in SHELL:
        done = subprocess.run(words, cwd=here.folder, capture_output=True, text=True, timeout=60)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        assert words[0] in ("repro", "python"), f"no command that a page may have: {line}"
        told = here.run(small(words, here.folder), typed=typed)
        code, out, err = told["code"], told["out"], told["err"]
    assert code == 0, f"{line}\n{out[-1000:]}\n{err[-2000:]}"
    if target is not None:
        target.write_text(out, encoding="utf-8")


def test_the_readme_has_two_commands_that_set_everything_up() -> None:
    assert EVERY["README.md"][:2] == ["make reproduce-small", "make test"]


@pytest.mark.parametrize("page", [page for page, lines in EVERY.items() if lines])
def test_every_command_of_a_page_runs(page: str, here: Commands) -> None:
    write_files(ROOT / page, here.folder)
    for line in EVERY[page]:
        instead, _ = ELSEWHERE.get(line, (line, ""))
        if instead not in here.done:
            do(here, instead)
            here.done[instead] = page


def test_an_axis_and_a_judge_of_ones_own_are_in_the_results(here: Commands) -> None:
    do(here, "python docs/examples/tone.py eval micro --set evaluation.axes=[tone] --runs-dir own --json > tone.json")
    content = json.loads((here.folder / "tone.json").read_text())
    assert {(row["axis"], row["metric"]) for row in content["metrics"]} == {("tone", "opens_eagerly")}
    assert content["metrics"][0]["n"] == 2
    assert content["run"]["command"].startswith("python docs/examples/tone.py eval micro")
    words = "eval micro --set evaluation.axes=[refusal] --runs-dir own --json"
    do(here, f"python docs/examples/keywords.py {words} --judge keywords > keywords.json")
    content = json.loads((here.folder / "keywords.json").read_text())
    assert content["judge"] == {"name": "keywords + closed-form 1/1", "kappa": None, "n": None}
    (refused,) = [row for row in content["metrics"] if row["metric"] == "refusal_trained" and row["seed"] is None]
    assert refused["value"] == 1.0


def test_what_is_run_elsewhere_is_still_on_a_page() -> None:
    written = {line for lines in EVERY.values() for line in lines}
    assert set(ELSEWHERE) <= written


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_on_a_page_runs(page: Path, here: Commands) -> None:
    for number, block in enumerate(blocks(page, "python")):
        script = here.folder / f"{page.stem}-{number}.py"
        script.write_text(block, encoding="utf-8")
        done = here.run(["python", str(script)])
        assert done["code"] == 0, f"{block}\n{done['err'][-2000:]}"


# -- links ------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that a code host gives a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head).lower()) for head in heads]
    return {head.strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|href|srcset)="([^"]+)"', text)]:
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} is not there"
        assert there.is_relative_to(ROOT), f"{target} is outside the repository"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def test_a_command_with_a_fault_is_found(here: Commands) -> None:
    with pytest.raises(AssertionError, match="no run"):
        do(here, "repro report no-such-run")
    with pytest.raises(BadInput, match="unknown experiment"):
        do(here, "repro run no-such-experiment")
