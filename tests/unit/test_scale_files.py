"""docs/scale.md and its files parse, and the commands in them are commands of this version."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from repro import cli, launch

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "scale").iterdir())
PAGE = DOCS / "scale.md"


def commands(text: str) -> list[list[str]]:
    """The words of each `repro ...` and `... -m repro.launch ...` command in a text, the program left out."""
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"entrypoint: >-\n((?:    .*\n)+)", _folded, text)).splitlines()
    found = []
    for line in lines:
        begun = re.search(r"(?:^|\s)(repro(?= (?:run|sweep))|-m repro\.launch)\s+(?=\S)(.*)", line.lstrip("# "))
        if begun and "..." not in line and "`" not in line:
            found.append([begun[1], *shlex.split(begun[2].split("  #")[0])])
    return found


def _folded(match: re.Match[str]) -> str:
    return " ".join(match[1].split()) + "\n"


@pytest.mark.parametrize("file", [*FILES, PAGE], ids=lambda path: path.name)
def test_the_commands_in_it_are_commands_of_this_version(file: Path) -> None:
    found = commands(file.read_text(encoding="utf-8"))
    assert found or file.name == "fsdp-qlora.yaml"
    kit = typer.main.get_command(cli.app)
    for program, *words in found:
        if program == "repro":
            name, *words = words
            command = kit.commands[name]  # type: ignore[attr-defined]
        else:
            command = typer.main.get_command(launch.app)
        command.make_context("repro", words)  # raises on an unknown option or a missing argument


@pytest.mark.parametrize("file", [path for path in FILES if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_a_slurm_script_is_good_bash(file: Path) -> None:
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize("file", [path for path in FILES if path.suffix == ".yaml"], ids=lambda path: path.name)
def test_a_configuration_is_read_as_what_it_is_for(file: Path) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "distributed_type" in content:
        read = load_config_from_file(str(file))
        assert read.distributed_type == content["distributed_type"]
    elif content.get("kind") == "RayJob":
        worker = content["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
        assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        pinned = re.search(r"^ray==(.+)$", (DOCS.parent / "constraints.txt").read_text(encoding="utf-8"), re.M)
        assert pinned
        assert content["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    else:
        assert {"resources", "setup", "run"} <= set(content)


def test_the_page_links_every_file() -> None:
    links = set(re.findall(r"\]\(scale/(.+?)\)", PAGE.read_text(encoding="utf-8")))
    assert links == {path.name for path in FILES}
