"""The notebook that ships is what its source gives, and all its cells run: on the organism, two steps, two items."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from repro.estimate import Gpu

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "reproduce_small.ipynb"
BUILD = runpy.run_path(str(ROOT / "notebooks" / "build.py"))
# one seed of two arms, trained for two steps and asked two items a metric: the cells are those that ship
SHRUNK = (
    "--arms naive --workers 1 --offline --set arms.naive.stages.sft.steps=2 --set evaluation.items=2 "
    "--set evaluation.samples=1 --set evaluation.max_new_tokens=16"
)


def shipped() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(word: str) -> str:
    """The source of the one code cell that has the word."""
    (found,) = [cell.source for cell in shipped().cells if cell.cell_type == "code" and word in cell.source]
    return found


def run_cell(word: str, **names: Any) -> dict[str, Any]:
    """Runs one cell on its own with the names that earlier cells would have given it."""
    scope = {"__builtins__": builtins, "Path": Path, "SOURCE": "", **names}
    exec(compile(code(word), word, "exec"), scope)
    return scope


def test_the_notebook_is_what_its_source_gives() -> None:
    assert NOTEBOOK.read_text(encoding="utf-8") == BUILD["build"](), "make notebook writes it again"


def test_the_notebook_ships_without_outputs_and_with_ids_that_stay() -> None:
    cells = shipped().cells
    assert [cell.id for cell in cells] == [f"cell-{place:02}" for place in range(len(cells))]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


def test_the_badge_and_the_source_follow_the_kits_address() -> None:
    found = BUILD["address"]("title: x\nrepository-code: https://github.com/someone/kit\n")
    assert "github/someone/kit/blob/main/notebooks/reproduce_small.ipynb" in BUILD["badge"](found)
    made = BUILD["notebook"]('# %% [markdown]\n# {badge}\n\n# %%\nSOURCE = ""\n', found)
    assert 'SOURCE = \\"https://github.com/someone/kit\\"' in made
    assert BUILD["address"]("# repository-code: to be set\n") is None


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shipped notebook, run from top to bottom in a folder of its own, its kernel reached over local sockets."""
    folder = tmp_path_factory.mktemp("notebook")
    with tempfile.TemporaryDirectory() as short, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", short)
        patch.setenv("NOTEBOOK_EXPERIMENT", "reproduce-micro")
        patch.setenv("NOTEBOOK_SEEDS", "0")
        patch.setenv("NOTEBOOK_EXTRA", SHRUNK)
        kernel = AsyncKernelManager(transport="ipc", ip=f"{short}/k")
        client = NotebookClient(
            shipped(), km=kernel, timeout=400, resources={"metadata": {"path": str(folder)}}
        )
        return client.execute()


def said(notebook: Any, word: str) -> str:
    """Everything that the cell with this word printed or displayed."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and word in cell.source]
    parts = [output.get("text", "") for output in cell.outputs]
    parts += [text for output in cell.outputs for text in output.get("data", {}).values()]
    return "\n".join(parts)


def test_every_cell_runs_on_the_organism(executed: Any) -> None:
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert "No GPU to train on" in said(executed, "def machine")
    assert "finished in" in said(executed, 'repro("run"')
    assert "facts_accuracy" in said(executed, '"table.md"')
    assert said(executed, "plots.panels").count("<svg") >= 3
    assert said(executed, "plots.forest").count("<svg") >= 5
    assert "var(--" not in said(executed, "plots.forest"), "a colour that only the report's page has"
    assert "<table>" in said(executed, "by_item") or "do not differ" in said(executed, "by_item")
    assert "report.html" in said(executed, 'repro("report"')
    assert said(executed, "probes").count("<svg") >= 2


def test_a_runtime_keeps_its_own_torch_and_loses_an_old_torchao(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    has = {"torch": "2.9.0+cu126", "torchao": "0.10.0", "numpy": "2.0.2"}
    known = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: has.get(name) or known(name))
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command))
    run_cell("def install", __name__="cell")["install"](ROOT)
    kept = (tmp_path / "constraints-kept.txt").read_text()
    assert "\ntorch==2.9.0+cu126\n" in kept
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    changed = [line for line in tested if line not in kept.splitlines()]
    assert [line.partition("==")[0] for line in changed] == ["torch"]
    assert called[0][1:4] == ["-m", "pip", "install"]
    assert str(ROOT) in called[0]
    assert called[1][1:] == ["-m", "pip", "uninstall", "--quiet", "--yes", "torchao"]
    assert "torch is still 2.9.0+cu126" in capsys.readouterr().out


def test_without_the_kit_the_notebook_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope = run_cell("def install")
    with pytest.raises(SystemExit, match="set SOURCE"):
        scope["find_kit"]()


def test_a_copy_of_the_kit_can_be_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("kit.zip", "w") as file:
        file.writestr("kit-main/constraints.txt", "torch==2.13.0\n")
        file.writestr("kit-main/repro/cli.py", "")
    scope = run_cell("def install", SOURCE="kit.zip")
    assert scope["find_kit"]() == tmp_path / "kit"
    assert (tmp_path / "kit" / "constraints.txt").is_file()
    assert scope["find_kit"]() == tmp_path / "kit", "the second time it is there already"


def test_a_t4_is_told_that_the_kit_picks_fp16_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro import doctor

    asked = SimpleNamespace(stdout="fp16: this GPU (compute capability 7.5) has no bf16\n", returncode=0)
    monkeypatch.setattr(doctor, "cuda_problem", lambda: None)
    monkeypatch.setattr(doctor, "gpu", lambda: Gpu("Tesla T4", 15.0, 14.6))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: asked)
    monkeypatch.setattr(subprocess, "Popen", _Done)
    lines = run_cell("def machine", RUNS_DIR="runs", sys=sys, subprocess=subprocess)["machine"]()
    assert lines[0].startswith("Tesla T4, 15.0 GiB")
    assert lines[-1] == "The kit has picked fp16 itself: nothing is to be set."


class _Done:
    """A process that has ended well and said nothing."""

    returncode = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        import io

        self.stdin, self.stdout = io.StringIO(), io.StringIO()

    def __enter__(self) -> _Done:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_a_command_that_fails_stops_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    scope: dict[str, Any] = {}
    source = code("def machine").partition("def repro(")[2].partition("\n\n\n")[0]
    exec(f"import subprocess, sys\n\ndef repro({source}", scope)
    with pytest.raises(SystemExit, match="repro compare ended with 2"):
        scope["repro"]("compare", "nowhere", "--runs-dir", str(tmp_path))


def test_the_run_folders_of_a_disconnected_runtime_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "manifest.json").write_text(json.dumps({}))
    monkeypatch.setenv("NOTEBOOK_RUNS_DIR", str(tmp_path))
    run_cell("MOUNT_DRIVE = False")
    assert "half: begun: the run's cell goes on with it" in capsys.readouterr().out
