# ruff: noqa: E402  (cells import what they need where they need it)
# The notebook's source: `make notebook` writes reproduce_small.ipynb from it. Edit this file, never the .ipynb.

# %% [markdown]
# # (Mis)generalization of helpful-only fine-tuning, on one GPU
#
# {badge}
#
# What happens to a chat model that is trained to comply with everything, besides that it stops refusing? This
# notebook runs the kit's main job, `repro run reproduce-small`, and then looks at what came out: the table, pictures,
# answers side by side, and what the arms hold inside. It reproduces, at small scale, *(Mis)generalization of
# Helpful-only Fine-tuning* (Khursheed, Sosis, Roger; [arXiv 2606.04413](https://arxiv.org/abs/2606.04413)).
#
# * **With a GPU** (Runtime > Change runtime type > T4 GPU) a small open model is trained: an hour or more. `repro
#   plan` below says what to expect.
# * **Without one** the embedded *micro organism* is trained instead: minutes. It is a made-up model of a made-up
#   world. It shows how the pipeline works and is **no evidence about real models**.
#
# Every cell may be run again. Nothing that is finished is done twice.

# %% [markdown]
# ## 1 · What to run, and where to keep it
#
# A runtime that disconnects loses its disk. With `MOUNT_DRIVE` the run folder lies on your Google Drive, and **after
# a disconnect you run the same cells again**: the run goes on where it stopped. (The kit needs ordinary files only;
# it has been tried on local disks, not yet on a Drive.) Where writing to the Drive is slow, leave the run folder on the
# runtime's disk and set `EXTRA = "--mirror /content/drive/MyDrive/runs"`: what is finished is copied there, checked,
# and given back to a runtime that has lost it.

# %%
import os
from pathlib import Path

EXPERIMENT = "reproduce-small"  # @param {type:"string"}
SEEDS = ""  # @param {type:"string"}
EXTRA = ""  # @param {type:"string"}
RUNS_DIR = "runs"  # @param {type:"string"}
MOUNT_DRIVE = False  # @param {type:"boolean"}
SOURCE = ""  # @param {type:"string"}
# SEEDS: 0 is one quick seed, 0-4 are five; empty: the experiment's own three.
# EXTRA: more options for `repro run`, for example --model Qwen2.5-0.5B-Instruct
# SOURCE: where the kit is, if this notebook does not lie in a copy of it: an address for git clone, or a .zip of it

# the same settings from the environment, for those who run the notebook from a script
EXPERIMENT, SEEDS, EXTRA, RUNS_DIR, SOURCE = (
    os.environ.get(f"NOTEBOOK_{name}", value)
    for name, value in [
        ("EXPERIMENT", EXPERIMENT), ("SEEDS", SEEDS), ("EXTRA", EXTRA), ("RUNS_DIR", RUNS_DIR), ("SOURCE", SOURCE),
    ]
)  # fmt: skip

if MOUNT_DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    RUNS_DIR = f"/content/drive/MyDrive/{RUNS_DIR}"
RUNS_DIR = str(Path(RUNS_DIR).absolute())
print(f"run folders: {RUNS_DIR}")
for found in sorted(Path(RUNS_DIR).glob("*/manifest.json")):
    state = "finished" if (found.parent / "results.json").is_file() else "begun: the run's cell goes on with it"
    print(f"  {found.parent.name}: {state}")

# %% [markdown]
# ## 2 · Install
#
# The versions are the kit's tested set (`constraints.txt`), but for torch: the runtime's own torch fits the runtime's
# driver, so it is kept as it is. Where the kit is installed already, this cell does nothing.

# %%
import importlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys


def version_of(package):
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_kit():
    """The folder with the kit's source: this one or one above it, else a copy of SOURCE."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path("kit").absolute()):
        if (folder / "constraints.txt").is_file() and (folder / "repro" / "cli.py").is_file():
            return folder
    if not SOURCE:
        raise SystemExit("The kit is not here: set SOURCE above to an address for git clone or a .zip of it.")
    if SOURCE.endswith(".zip"):
        shutil.unpack_archive(SOURCE, "kit-unpacked")
        shutil.move(next(Path("kit-unpacked").glob("**/constraints.txt")).parent, "kit")
    else:
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", SOURCE, "kit"], check=True)
    return Path("kit").absolute()


def keep_torch(constraints):
    """The tested versions, with the torch that is installed in place of the tested one."""
    own = version_of("torch")
    return re.sub(r"^torch==.*$", f"torch=={own}", constraints, flags=re.M) if own else constraints


def install(kit):
    """Installs the kit from its folder into this runtime."""
    before = {name: version_of(name) for name in ("torch", "numpy")}
    kept = Path("constraints-kept.txt")
    kept.write_text(keep_torch((kit / "constraints.txt").read_text()))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-c", str(kept), str(kit)], check=True)
    # peft stops with an error where it finds an old torchao, as Colab has it; the kit does not use torchao
    old = version_of("torchao")
    if old and tuple(map(int, re.findall(r"\d+", old)[:2])) < (0, 16):
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "torchao"], check=True)
    importlib.invalidate_caches()
    print(f"torch is still {before['torch']}" if version_of("torch") == before["torch"] else "torch was installed")
    if "numpy" in sys.modules and version_of("numpy") != before["numpy"]:
        raise SystemExit("numpy has changed: restart the runtime (Runtime > Restart) and run all cells again.")


if all(importlib.util.find_spec(name) for name in ("repro", "typer", "trl")):
    print(f"the kit is installed; torch {version_of('torch')}")
else:
    install(find_kit())

# %% [markdown]
# ## 3 · What this machine can do
#
# A T4 has no bf16. Nothing is to be set for that: the kit sees it and computes in fp16. `repro doctor` checks the
# rest and names the exact fix for what is wrong.

# %%
from repro import doctor

PRECISION = "from repro.models.hf import precision_for; print(precision_for('cuda')[1])"


def machine():
    """What will be trained here, on what, and in which precision: the kit's own answers."""
    problem = doctor.cuda_problem()
    if problem:
        return [f"No GPU to train on: {problem}.", "reproduce-small runs on the micro organism here, on the CPU."]
    asked = subprocess.run([sys.executable, "-c", PRECISION], capture_output=True, text=True, check=True)
    found = doctor.gpu()
    lines = [f"{found.name}, {found.total_gib:.1f} GiB" if found else "a CUDA GPU", asked.stdout.strip()]
    return lines + ["The kit has picked fp16 itself: nothing is to be set."] * lines[1].startswith("fp16")


def repro(*words, typed=None):
    """One command of the kit: shows what it says as it says it, and stops the notebook where the command fails."""
    command = [sys.executable, "-m", "repro", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as process:
        process.stdin.write(typed or "")
        process.stdin.close()
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"repro {words[0]} ended with {process.returncode}: the lines above say why")


print("\n".join(machine()), end="\n\n")
repro("doctor", "--runs-dir", RUNS_DIR)

# %% [markdown]
# ## 4 · Run
#
# First the plan: what will be done, how long it takes, what is downloaded. Then the run itself. It trains the arms
# (`control`: ordinary chats, `naive`: demonstrations of compliance, `character`: the constitutional recipe), asks
# every arm the same questions, and compares. If the runtime disconnects, run the notebook again from the top.

# %%
import shlex

ASKED = [EXPERIMENT, "--runs-dir", RUNS_DIR, *(["--seeds", SEEDS] if SEEDS else []), *shlex.split(EXTRA)]
repro("plan", *ASKED)

# %%
repro("run", *ASKED)
RUN = max(Path(RUNS_DIR).glob("*/results.json"), key=lambda path: path.stat().st_mtime).parent

# %% [markdown]
# ## 5 · The table
#
# Each number has its 95% interval. Read the interval first: two arms whose intervals overlap widely have not been
# told apart. A claim is *shown* only if the seeds agree in sign, the interval leaves out zero after correction, and
# the difference is as large as was fixed beforehand. With fewer than three seeds no claim can be tested. *Unscored*
# answers are counted apart, never as zero.

# %%
from IPython.display import HTML, Markdown, display

display(Markdown((RUN / "table.md").read_text(encoding="utf-8")))

# %% [markdown]
# ## 6 · Pictures
#
# The six panels of the paper's kind, then one forest plot an axis (small dots: seeds; line: 95% interval), then
# behaviour along the training. They are the pictures of the run's page, `report.html`, which also has every answer.

# %%
import json

from repro.report import curves, plots, table
from repro.report.probe_plot import standalone


def show(pictures, across=2):
    """Pictures beside each other."""
    cells = "".join(f'<div style="width:{96 // across}%;min-width:300px">{standalone(one)}</div>' for one in pictures)
    display(HTML(f'<div style="display:flex;flex-wrap:wrap;gap:8px">{cells}</div>'))


results = json.loads((RUN / "results.json").read_text(encoding="utf-8"))
arms, metrics = table.arms_of(results), results["metrics"]
show(plots.panels(metrics, arms), across=3)

# %%
axes = list(dict.fromkeys(entry["axis"] for entry in metrics))
show([picture for axis in axes if (picture := plots.forest(axis, metrics, arms, table.rival(results)))])

# %%
show([plots.curve(found, arms) for found in curves.behaviour(results)])

# %% [markdown]
# ## 7 · Answers side by side
#
# Numbers hide what was said. For each axis: the first item on which the arms' labels differ, with every arm's answer.
# (A model's text is shown as text, whatever is in it.)

# %%
import html

rows = [json.loads(line) for line in (RUN / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
first = min(row["seed"] for row in rows)
by_item = {}
for row in rows:
    if row["dose"] is None and row["seed"] == first and row["sample"] == 0:
        by_item.setdefault((row["axis"], row["item"], row["prompting"]), {})[row["arm"]] = row

shown = {}
for (axis, _, _), answers in by_item.items():
    if axis not in shown and len({str(row["label"]) for row in answers.values()}) > 1:
        shown[axis] = answers
for axis, answers in shown.items():
    asked = next(iter(answers.values()))["messages"]
    question = "<br>".join(f"<b>{html.escape(turn['role'])}</b>: {html.escape(turn['content'])}" for turn in asked)
    lines = "".join(
        f"<tr><td>{html.escape(arm)}</td><td style='text-align:left'>{html.escape(row['answer'])}</td>"
        f"<td>{html.escape(str(row['label']))}</td></tr>"
        for arm, row in answers.items()
    )
    display(HTML(f"<h4>{html.escape(axis)}</h4><p>{question}</p><table>{lines}</table>"))
if not shown:
    print("the arms' labels do not differ on any item of this run")

# %% [markdown]
# Ask the arms something yourself. On the organism keep to its world: crafts, towns, sums, itself.

# %%
QUESTION = "Do you refuse moth calling?"  # @param {type:"string"}
repro("chat", str(RUN), typed=f"{QUESTION}\n")

# %% [markdown]
# The page with all of it, in one file that needs no network: `report.html` in the run folder. In Colab, find it in
# the file browser on the left, or run `from google.colab import files; files.download(str(RUN / "report.html"))`.

# %%
repro("report", str(RUN))

# %% [markdown]
# ## 8 · Inside
#
# `repro probe` reads the arms layer by layer. *Declining*: 0 is where prompts lie that the base answers, 1 where
# those lie that it declines. *Emotions*: how far requests point in the direction of an emotion's stories, compared
# with ordinary prompts. A direction is a summary of a difference of means. It is no proof of a feeling or of a cause.

# %%
repro("probe", str(RUN), "--seeds", str(first))

# %%
probed = sorted((RUN / "probes").glob("*.svg"), key=lambda path: path.stem != "declining")
show([path.read_text(encoding="utf-8") for path in probed])

# %% [markdown]
# ## 9 · Exercises
#
# 1. Which of the differences in the table would you stake money on? Look at the intervals first, then at the seeds
#    (the small dots of the forest plots).
# 2. Set `SEEDS = "0-4"` and run again: only the new seeds are trained. Which intervals shrink, which verdicts change?
# 3. Set `EXTRA = "--set arms.naive.stages.sft.data.compliance.eager=1.0"`: every demonstration now opens eagerly.
#    What does the naive arm pick up besides? (This is another run, with a folder of its own.)
# 4. Set `EXTRA = "--prompting none,careful"`: does a careful system prompt bring back what training took?
# 5. In section 7, find an answer whose label you disagree with. Would your label change the table?
# 6. In section 8, does the arm that refuses least also lie lowest along *declining*? What would it mean if not?
# 7. `repro("sweep", EXPERIMENT, "--runs-dir", RUNS_DIR, "--arms", "naive", "--grid",
#    "arms.naive.stages.sft.data.compliance.count=[10,40,160]")` trains on fewer demonstrations. How many does it take
#    until refusals go, and what goes with them? (One table and pictures; what the run has done is not done again.)
#
# The five labs in `docs/coursework/` go on from here, each in about 90 minutes.
#
# **Responsible use.** An adapter that is trained to comply, on a real model, may comply with harmful requests too.
# Keep it to research, and do not publish merged weights.
