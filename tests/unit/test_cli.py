"""The command line: quick help, exit codes, one line for each mistake, and nothing written when the input is bad."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from repro import cli, doctor, run, store

ROOT = Path(__file__).parents[2]
# pydantic is not among them: typer itself loads it to check arguments
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "numpy", "scipy", "yaml", "repro.recipes")
EXPERIMENT = """\
schema: 1
name: tiny
model: {model}
pack: micro
quant: none
seeds: [0]
arms:
  base: {{}}
  naive: {{recipe: micro/naive}}
evaluation: {{axes: [capability], samples: 1, items: 4, max_new_tokens: 16}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment `tiny.yaml` on a model that no test opens."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT.format(model="model"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr)."""
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.stdout, result.stderr.splitlines()


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["recipes", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom repro.cli import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = python(code)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


def test_planning_needs_no_torch(here: Path) -> None:
    code = (
        "import sys\nfrom repro.cli import app\n"
        "try:\n    app(['plan', 'tiny.yaml'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = python(code)
    assert done.stderr.strip() == "[]"
    assert "3 of 3 steps to do" in done.stdout


@pytest.mark.parametrize("group", ["", "recipes", "generate", "judge", "micro"])
def test_every_verb_says_what_it_does_on_one_line(group: str) -> None:
    _, text, _ = call(*group.split(), "--help")
    listed = text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    for line in listed or [text]:
        assert re.fullmatch(r"  \w+ +[A-Z].*[^.]\.", line), line  # one that is too long ends in ...
    if not group:
        verbs = "run plan eval compare report export doctor chat probe sweep recipes generate judge micro"
        assert [line.split()[0] for line in listed] == verbs.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "no such file: nowhere.yaml"),
        (["reproduce-smal"], 'unknown experiment "reproduce-smal" (did you mean "reproduce-small"?)'),
        (
            ["tiny.yaml", "--arms", "naiv"],
            '--arms: there is no arm "naiv" here, only base, naive (did you mean "naive"?)',
        ),
        (["tiny.yaml", "--arms", ","], "--arms: name at least one of base, naive"),
        (["tiny.yaml", "--seeds", "0,one"], '--seeds: expected a whole number, got "one"'),
        (["tiny.yaml", "--seeds", "4-0"], "--seeds 4-0: a range goes upwards and has at most 1000 seeds, e.g. 0-4"),
        (["tiny.yaml", "--seeds", "1,1"], "--seeds: must differ from each other"),
        (["tiny.yaml", "--model", "no-such-model"], 'unknown model "no-such-model"'),
        (["tiny.yaml", "--model", "./nowhere"], "./nowhere"),
        (["tiny.yaml", "--set", "arms.naive.stages.sft.lerning_rate=1"], 'did you mean "learning_rate"'),
        (["tiny.yaml", "--set", "arms.naive.stages.dpo.beta=1"], "--set arms.naive.stages.dpo.beta"),
        (["tiny.yaml", "--set", "evaluation.samples"], "expected path=value"),
        (["tiny.yaml", "--prompting", "rude"], "rude"),
    ],
)
def test_bad_input_is_exit_2_with_one_line_each_and_nothing_written(
    here: Path, arguments: list[str], message: str
) -> None:
    before = files(here)
    code, out, err = call("run", *arguments)
    assert (code, out) == (2, "")
    assert len(err) == 1, err
    assert message in err[0]
    assert "Traceback" not in "".join(err)
    assert files(here) == before


def test_all_mistakes_are_told_at_once(here: Path) -> None:
    (here / "tiny.yaml").write_text(EXPERIMENT.format(model="model").replace("seeds: [0]", "seeds: [x]\nsede: 1"))
    code, _, err = call("run", "tiny.yaml")
    assert code == 2
    assert len(err) == 2
    assert all(line.startswith("tiny.yaml:") for line in err)


def test_a_runs_folder_that_can_not_be_written_is_exit_3(here: Path) -> None:
    (here / "file").write_text("")
    before = files(here)
    code, _, err = call("run", "tiny.yaml", "--runs-dir", "file/runs")
    assert code == 3
    assert len(err) == 1
    assert err[0].startswith("can't write to file/runs/tiny-model-")
    assert "--runs-dir" in err[0]
    assert files(here) == before


def test_a_run_folder_of_another_experiment_is_exit_2(here: Path) -> None:
    plan, _ = run.prepare(run.Ask("tiny.yaml"))
    store.open_run(here / "runs" / plan.folder_name, "ab" * 32, {}).close()
    before = files(here)
    code, _, err = call("run", "tiny.yaml")
    assert code == 2
    assert err == [f"runs/{plan.folder_name} is the run folder of another experiment: move it away, or give another "
                   "--runs-dir"]  # fmt: skip
    assert files(here) == before


def test_a_second_run_in_the_same_folder_is_turned_away(here: Path) -> None:
    plan, _ = run.prepare(run.Ask("tiny.yaml"))
    held = store.open_run(here / "runs" / plan.folder_name, plan.digest, {})
    code, _, err = call("run", "tiny.yaml")
    held.close()
    assert code == 1
    assert len(err) == 1
    assert "in use by another repro" in err[0]


def test_a_machine_without_cuda_gets_the_fallback_and_is_told_why(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cuda_problem", lambda: "nvidia-smi finds no GPU")
    (here / "big.yaml").write_text(
        EXPERIMENT.format(model="auto").replace("tiny", "big") + "needs: cuda\nfallback: tiny.yaml\n"
    )
    plan, lines = run.prepare(run.Ask("big.yaml"))
    assert plan.experiment.name == "tiny"
    assert lines[0] == "big needs CUDA, and here nvidia-smi finds no GPU: tiny runs instead"
    (here / "big.yaml").write_text(EXPERIMENT.format(model="auto").replace("tiny", "big") + "needs: cuda\n")
    code, _, err = call("run", "big.yaml")
    assert (code, err) == (3, ["big needs CUDA, and here nvidia-smi finds no GPU"])


def test_seed_ranges_are_spelled_out() -> None:
    assert run.seed_list("0-3") == "0,1,2,3"
    assert run.seed_list("0-1,5") == "0,1,5"
    assert run.seed_list("7") == "7"
    assert run.seed_list("-1") == "-1"


def test_an_unexpected_error_is_one_line_and_a_file_with_the_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "prepare", lambda ask: 1 / 0)
    code, _, err = call("plan", "tiny.yaml")
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith("unexpected ZeroDivisionError: division by zero; the traceback is in ")
    log = Path(err[0].rpartition(" ")[2])
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_an_interrupt_is_exit_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(ask: run.Ask) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare", interrupted)
    assert call("plan", "tiny.yaml")[0] == 130


def test_plan_writes_nothing(here: Path) -> None:
    before = files(here)
    code, out, _ = call("plan", "tiny.yaml", "--runs-dir", "elsewhere")
    assert code == 0
    assert files(here) == before
    assert "naive seed 0: sft" in out
    assert "to do: not there yet" in out
    assert "time: about" in out


def results(name: str, value: float) -> dict:
    row = {"axis": "capability", "metric": "facts_accuracy", "arm": "base", "seed": None, "n": 10, "unscored": 0,
           "value": value, "ci": [0.1, 0.9], "higher_is_better": True, "versus": {}, "groups": []}  # fmt: skip
    return {"schema": 1, "run": {"name": name}, "model": {"id": "m"}, "judge": {"name": "j"}, "metrics": [row],
            "claims": [], "warnings": []}  # fmt: skip


@pytest.fixture
def finished(here: Path) -> Path:
    for name, value in (("one-m-11111111", 0.25), ("two-m-22222222", 0.75)):
        folder = here / "runs" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{\"schema\": 1}")
        (folder / "results.json").write_text(json.dumps(results(name[:3], value)))
    return here


def test_compare_prints_one_run_or_several_side_by_side(finished: Path) -> None:
    code, out, _ = call("compare", "one-m-11111111")
    assert code == 0
    assert "25" in out
    assert "75" not in out
    code, _, err = call("compare", "one", "runs/two-m-22222222")
    assert code == 2
    assert "not the manifest of a run" in err[0]
    code, out, _ = call("compare", "one", "runs/two-m-22222222", "--side-by-side")
    assert code == 0
    assert "1: one on m" in out
    assert "2: two on m" in out
    line = next(line for line in out.splitlines() if "facts_accuracy" in line)
    assert line.index("25 [10, 90]") < line.index("75 [10, 90]")


def test_compare_as_json_is_the_file_and_nothing_else(finished: Path) -> None:
    assert json.loads(call("compare", "one", "--json")[1]) == results("one", 0.25)


def test_compare_says_which_runs_there_are(finished: Path) -> None:
    code, _, err = call("compare", "three")
    assert code == 2
    assert err == ['no run "three"; in runs there are: one-m-11111111, two-m-22222222']
    (finished / "runs" / "one-m-11111111" / "results.json").unlink()
    code, _, err = call("compare", "one")
    assert code == 2
    assert "has no results yet" in err[0]


def test_eval_refuses_what_is_no_model(here: Path) -> None:
    assert call("eval", "nowhere-to-be-found")[0] == 2
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "model"}')
    code, _, err = call("eval", "adapter")
    assert code == 2
    assert "an adapter without adapter_model.safetensors" in err[0]
    code, _, err = call("eval", "model", "--set", "arms.naive=1")
    assert code == 2
    assert "evaluation.samples" in err[0]
    code, _, err = call("eval", "model", "--seeds", "x")
    assert (code, err) == (2, ["--seeds: expected a whole number, got 'x'"])
    code, _, err = call("eval", "model", "model")
    assert (code, err) == (2, ["model model: named twice"])
    assert call("eval")[0] == 2
    (here / "mine.yaml").write_text("schema: 1\nname: mine\npack: micro\npairs:\n  - {model: a, parent: a}\n")
    for words in (["mine.yaml"], ["--pairs", "mine.yaml"]):
        code, _, err = call("eval", *words)
        assert (code, err) == (2, ["mine.yaml:5:13: a is named as its own parent"])
    code, _, err = call("eval", "micro", "--prompts", "xstest")
    assert (code, err) == (
        2,
        ["--prompts xstest: public sets are asked with --pack english, whose judge can label answers"],
    )
    assert not (here / "runs").exists()


def test_doctor_gives_the_exact_fix(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    have = {name: "1.0" for name in doctor.NEEDED if name != "trl"}
    pinned = here / "pins.txt"
    pinned.write_text(
        "# tested\n" + "".join(f"{name}==1.0\n" for name in have if name != "peft") + "trl==1.14.2\npeft==2.0 # x\n"
    )
    monkeypatch.setattr(doctor, "versions", lambda: have)
    monkeypatch.setattr(doctor, "constraints", lambda: pinned)
    code, out, _ = call("doctor")
    assert code == 3
    assert "NO  trl: is not installed" in out
    assert "-m pip install 'trl==1.14.2'" in out
    assert "-   peft: 1.0; tested with 2.0" in out
    assert "-m pip install 'peft==2.0'" in out
    assert "ok  torch: 1.0" in out
    monkeypatch.setattr(doctor, "versions", lambda: {**have, "trl": "1.14.2", "torch": "1.0+cpu"})
    assert call("doctor")[0] == 0


def test_doctor_compares_torch_with_the_driver_and_shows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"-L": "GPU 0: a card", "--query-gpu=name,memory.total,memory.free": "A card, 16384, 3000"}
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    monkeypatch.setattr(doctor, "cuda_problem", lambda: None)
    monkeypatch.setattr(doctor, "_nvidia_smi", lambda *words: said.get("".join(words[:1]), "CUDA Version: 12.4 |"))
    monkeypatch.setattr(doctor, "torch_cuda", lambda: "12.6")
    assert doctor._driver().fix is None
    monkeypatch.setattr(doctor, "torch_cuda", lambda: "13.0")
    assert "update the NVIDIA driver to one for CUDA 13.0" in str(doctor._driver().fix)
    monkeypatch.setattr(doctor, "torch_cuda", lambda: None)
    assert "pip install --force-reinstall 'torch==" in str(doctor._driver().fix)
    (memory,) = doctor._gpu_memory()
    assert memory.state == "2.9 of 16.0 GiB free: model auto is Qwen2.5-0.5B-Instruct"
    assert memory.fix
    monkeypatch.setattr(doctor, "_nvidia_smi", lambda *_: "")
    assert "does not answer" in doctor._driver().state


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_NUM_THREADS", "many"), ("OMP_NUM_THREADS", "-1"), ("HF_HUB_OFFLINE", "perhaps"),
     ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"), ("HF_ENDPOINT", "user:password@hub")],
)  # fmt: skip
def test_nonsense_in_the_environment_is_named_by_every_command(here, name: str, value: str, monkeypatch) -> None:
    monkeypatch.setenv(name, value)
    code, out, lines = call("run", "tiny.yaml")
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(name)
    assert f"unset {name}" in lines[0]
    assert "password" not in lines[0]
    assert not (here / "runs").exists()
    assert any(finding.fatal and finding.fix == f"unset {name}" for finding in doctor._variables())


def test_harmless_words_in_the_environment_stop_nothing(here, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "wide"), ("LINES", "-3"), ("HF_HUB_OFFLINE", "no"), ("REPRO_NONSENSE", "x"),
                        ("OMP_NUM_THREADS", ""), ("HF_HOME", "/nowhere"), ("NO_COLOR", "\x1b")):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert call("plan", "tiny.yaml")[0] == 0


def test_doctor_multiplies_in_four_bits_and_says_so_where_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = call("doctor", "--json")
    found = {entry["what"]: entry for entry in json.loads(out)}
    assert code == 0
    assert found["4-bit multiplication"]["state"].startswith("works on ")
    assert found["unsloth"]["state"]
    monkeypatch.setattr(doctor, "FOUR_BITS", "raise OSError('no library for this GPU')")
    code, out, _ = call("doctor")
    assert code == 3
    assert "NO  4-bit multiplication: fails: OSError: no library for this GPU" in out
    assert "pip install --force-reinstall bitsandbytes" in out


def test_doctor_says_what_of_the_hub_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub" / "models--Qwen--Qwen2.5-1.5B-Instruct").mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor._hub().state == "offline by HF_HUB_OFFLINE; in the cache: Qwen2.5-1.5B-Instruct"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    def unplugged(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(httpx, "head", unplugged)
    assert doctor._hub().state.startswith("can't be reached (")


def test_building_the_organism_over_something_is_refused(here: Path) -> None:
    before = files(here)
    code, _, err = call("micro", "build", "--out", "model")
    assert code == 2
    assert err == ["model is there already and not empty: name a new folder"]
    code, _, err = call("micro", "build", "--out", "tiny.yaml/weights")
    assert code == 3
    assert files(here) == before


def test_recipes_can_be_listed_shown_and_validated(here: Path) -> None:
    assert "reproduce-micro" in call("recipes", "list")[1]
    assert "stages.sft.batch" in call("recipes", "show", "micro/naive", "--origin")[1]
    assert call("recipes", "validate", "tiny.yaml")[0] == 0
    assert json.loads(call("recipes", "schema")[1])["type"] == "object"
    assert call("recipes", "copy", "micro/naive", "mine.yaml")[0] == 0
    assert (here / "mine.yaml").is_file()
