"""Looks at the machine: versions against the tested ones, GPU, disk, write access; each finding with its exact fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from repro import environment
from repro.estimate import Gpu, auto_model

FREE_GIB = 2.0  # a small run's folder and caches
MEMORY_A_WORKER_GIB = 1.5  # torch, transformers and trl with a tiny model
SMALL_MODEL_MB = 50  # a model this small waits for Python, not for arithmetic: a GPU would not help it
NEEDED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "huggingface-hub",
          "tokenizers", "safetensors", "numpy", "scipy", "pydantic", "pyyaml", "typer", "rich", "httpx", "jinja2",
          "matplotlib", "datasketch")  # fmt: skip
ASKING = 30.0  # seconds that a driver may take to answer; a broken one never does


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `fix` is the command or step that mends it, None where all is well."""

    what: str
    state: str
    fix: str | None = None
    fatal: bool = False


@lru_cache
def cuda_problem() -> str | None:
    """None where torch can use a CUDA device, else what is missing. Asks torch only where the driver is there."""
    if shutil.which("nvidia-smi") is None:
        return "there is no nvidia-smi, so no NVIDIA driver"
    if not _nvidia_smi("-L"):
        return "nvidia-smi finds no GPU"
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    if subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0:
        return "there is a GPU, but this torch can't use it (a build without CUDA, or a driver that is too old)"
    return None


def _nvidia_smi(*words: str) -> str:
    """What it prints; nothing where it fails or does not answer."""
    try:
        done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=ASKING)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def gpu() -> Gpu | None:
    """The first GPU that torch can use, with its memory; None without one."""
    if cuda_problem() is not None:
        return None
    said = _nvidia_smi("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
    lines = said.strip().splitlines()
    try:
        name, total, free = (part.strip() for part in lines[0].rsplit(",", 2))
        return Gpu(name, int(total) / 1024, int(free) / 1024)
    except (IndexError, ValueError):
        return None


def go_offline() -> None:
    """From here on, in this process and its children, the hub's libraries use only what is on this disk."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    os.environ.update(dict.fromkeys(names, "1"))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib(key: str = "MemAvailable") -> float | None:
    """Memory in GiB that is available (or, with `MemTotal`, there at all); None where the system doesn't say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return None


def hardware() -> dict[str, Any]:
    """What the manifest says about the machine: processor, cores, memory, GPU; nothing that names it or its user."""
    gpu = None
    if shutil.which("nvidia-smi"):
        said = _nvidia_smi("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
        gpu = said.strip().splitlines() or None
    total = memory_gib("MemTotal")
    return {
        "machine": platform.machine(),
        "cores": cores(),
        "memory_gib": round(total, 1) if total else None,
        "gpu": gpu,
    }


def versions() -> dict[str, str]:
    """Installed versions of what a run depends on."""
    found = {}
    for name in NEEDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def constraints() -> Path | None:
    """The file with the tested versions: in the wheel, or at the root of the source tree."""
    package = Path(__file__).resolve().parent
    places = (package / "_constraints.txt", package.parent / "constraints.txt")
    return next((path for path in places if path.is_file()), None)


def pins(path: Path) -> dict[str, str]:
    """{package: version} of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {name.lower(): version for name, version in (line.split("==") for line in lines if "==" in line)}


def examine(runs_dir: Path) -> list[Finding]:
    """All findings, those that stop a run marked fatal."""
    return [
        _python(), *_packages(), *_variables(), _four_bits(), _organism(), _gpu(), _driver(), *_gpu_memory(),
        _unsloth(), _memory(), *_disk(runs_dir), _hub(),
    ]  # fmt: skip


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", version)
    return Finding("python", f"{version}; tested with 3.11 to 3.13", "make clean setup PYTHON=python3.12")


def _packages() -> list[Finding]:
    path, installed = constraints(), versions()
    tested = pins(path) if path else {}
    command = f"{shlex_path(sys.executable)} -m pip install"
    findings = []
    for name in NEEDED:
        have, want = installed.get(name), tested.get(name)
        exact = f"{name}=={want}" if want else name
        if have is None:
            findings.append(Finding(name, "is not installed", f"{command} '{exact}'", fatal=True))
        elif want is not None and have.partition("+")[0] != want:
            findings.append(Finding(name, f"{have}; tested with {want}", f"{command} '{exact}'"))
        else:
            findings.append(Finding(name, have))
    return findings


def _variables() -> list[Finding]:
    """Environment variables with nonsense in them: every other command stops at them."""
    found = [fault.rpartition("; mend it, or: ") for fault in environment.faults()]
    return [Finding("environment", state, fix, fatal=True) for state, _, fix in found]


def shlex_path(path: str) -> str:
    """A program's path as one types it: relative where it lies below the working folder."""
    here = os.path.relpath(path)
    return here if not here.startswith("..") else path


def _organism() -> Finding:
    weights = Path(__file__).resolve().parent / "micro" / "weights" / "model.safetensors"
    if weights.is_file():
        return Finding("micro organism", f"{weights.stat().st_size / 1e6:.1f} MB")
    return Finding("micro organism", "its weights are not there", "repro micro build --out FOLDER, then --model FOLDER")


def _gpu() -> Finding:
    problem = cuda_problem()
    if problem is None:
        return Finding("CUDA", ", ".join(hardware()["gpu"] or ["usable"]))
    fix = "nothing to do for the micro organism; for real models use a machine with an NVIDIA GPU"
    if problem.startswith("there is a GPU"):
        fix = f"{shlex_path(sys.executable)} -m pip install --force-reinstall torch"
    return Finding("CUDA", problem, fix)


def torch_cuda() -> str | None:
    """The CUDA that the installed torch was built for ("13.0"), read without loading it; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("version.py")
    match = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", path.read_text() if path.is_file() else "", re.MULTILINE)
    return match[1] if match else None


def _driver() -> Finding:
    """Whether torch's build fits the driver: a driver runs builds of its own CUDA's major version and older ones."""
    built = torch_cuda()
    build = f"torch is built for {f'CUDA {built}' if built else 'the CPU'}"
    if shutil.which("nvidia-smi") is None:
        return Finding("torch and driver", f"{build}; no NVIDIA driver here")
    match = re.search(r"CUDA Version:\s*([\d.]+)", _nvidia_smi())
    if match is None:
        return Finding("torch and driver", f"{build}; the driver does not answer", "sudo reboot, or install it again")
    state = f"{build}, the driver is for CUDA {match[1]}"
    if built is None:
        pin = pins(path).get("torch") if (path := constraints()) else None
        wanted = f"torch=={pin}" if pin else "torch"
        fix = f"{shlex_path(sys.executable)} -m pip install --force-reinstall '{wanted}'"
        return Finding("torch and driver", state, f"{fix} (the usual Linux build has CUDA)")
    if int(match[1].split(".")[0]) < int(built.split(".")[0]):
        fix = f"update the NVIDIA driver to one for CUDA {built}, or install a torch built for CUDA {match[1]}"
        return Finding("torch and driver", state, fix)
    return Finding("torch and driver", state)


def _gpu_memory() -> list[Finding]:
    """How much of the GPU's memory is free, and which preset `auto` takes there."""
    found = gpu()
    if found is None:
        return []
    chosen, _ = auto_model(found)
    state = f"{found.free_gib:.1f} of {found.total_gib:.1f} GiB free: model auto is {chosen}"
    crowded = found.free_gib < found.total_gib / 2
    return [Finding("GPU memory", state, "nvidia-smi shows what holds it: end that first" if crowded else None)]


FOUR_BITS = """
import torch, bitsandbytes as bnb
device = "cuda" if torch.cuda.is_available() else "cpu"
layer = bnb.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32).to(device)
given = torch.randn(4, 64, device=device)
assert layer(given).isfinite().all()
print(device)
"""


def _four_bits() -> Finding:
    """Whether bitsandbytes really multiplies in 4 bits here: it can be installed and still lack its library."""
    done = subprocess.run([sys.executable, "-c", FOUR_BITS], capture_output=True, text=True)
    if done.returncode == 0:
        return Finding("4-bit multiplication", f"works on {done.stdout.strip()}")
    why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    command = f"{shlex_path(sys.executable)} -m pip install --force-reinstall bitsandbytes"
    return Finding("4-bit multiplication", f"fails: {why[:200]}", f"{command}; or --set quant=none", fatal=True)


def _unsloth() -> Finding:
    """Whether the faster backend can be imported; it is of use on CUDA only."""
    if cuda_problem() is not None:
        return Finding("unsloth", "not needed without CUDA")
    if importlib.util.find_spec("unsloth") is None:
        return Finding("unsloth", "is not installed: the slower backend hf trains", "pip install '.[gpu]'")
    done = subprocess.run([sys.executable, "-c", "import unsloth"], capture_output=True, text=True)
    if done.returncode == 0:
        return Finding("unsloth", importlib.metadata.version("unsloth"))
    why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("unsloth", f"can't be imported: {why[:200]}", "--backend hf trains without it")


def _hub() -> Finding:
    """Whether the hub can be reached, and which presets lie in the cache already."""
    from repro import recipes

    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    held = [
        spec.id
        for spec in recipes.presets()
        for name in {spec.path_or_hub, spec.mirror_4bit}
        if name and (cache.expanduser() / f"models--{name.replace('/', '--')}").is_dir()
    ]
    cached = f"in the cache: {', '.join(held) or 'none of the presets'}"
    if environment.offline():
        return Finding("hub", f"offline by HF_HUB_OFFLINE; {cached}")
    import httpx

    try:
        httpx.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=5.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fix = (
            "nothing to do for the micro organism; for real models, where the network is: hf download MODEL, then copy "
            "~/.cache/huggingface here, and: export HF_HUB_OFFLINE=1"
        )
        return Finding("hub", f"can't be reached ({type(error).__name__}); {cached}", fix)
    return Finding("hub", f"can be reached; {cached}")


def _memory() -> Finding:
    free = memory_gib()
    if free is None:
        return Finding("memory", "unknown")
    if free < MEMORY_A_WORKER_GIB:
        return Finding("memory", f"{free:.1f} GiB free", f"free some: a worker takes {MEMORY_A_WORKER_GIB} GiB")
    return Finding("memory", f"{free:.1f} GiB free, {cores()} cores")


def _disk(runs_dir: Path) -> list[Finding]:
    place = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    findings = [Finding("disk", f"{free:.1f} GiB free for {runs_dir}")]
    if free < FREE_GIB:
        fix = "free some, or give --runs-dir on another disk"
        findings = [Finding("disk", f"{free:.1f} GiB free for {runs_dir}", fix)]
    if not (place.is_dir() and os.access(place, os.W_OK)):
        fix = "give a writable folder with --runs-dir"
        findings.append(Finding("run folders", f"{runs_dir} can't be written", fix, fatal=True))
    else:
        findings.append(Finding("run folders", f"{runs_dir} can be written"))
    return findings
