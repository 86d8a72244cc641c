"""What the source never does: evaluate text, load pickles or unsafe YAML, run a shell, trust a model's own code."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "repro").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
NEVER = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "dill.load",
         "joblib.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
         "yaml.load_all", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.hub.load",
         "push_to_hub", "upload_folder", "upload_file"}  # fmt: skip


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(text: str) -> Iterator[str]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"line {node.lineno}: imports {module}" for module in modules
                        if module.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal", "shelve"))  # fmt: skip
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        given = {word.arg: word.value for word in node.keywords}
        if name in NEVER or name.split(".")[-1] in ("push_to_hub", "upload_folder", "upload_file"):
            yield f"line {node.lineno}: {name}"
        if name == "yaml.parse" and "Safe" not in ast.unparse(node):
            yield f"line {node.lineno}: yaml.parse without a safe loader"
        if name == "torch.load" and ast.unparse(given.get("weights_only", ast.Constant(None))) != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if name.endswith(("np.load", "numpy.load")) and "allow_pickle" in given:
            yield f"line {node.lineno}: numpy.load with pickles"
        for word in ("shell", "trust_remote_code"):
            if word in given and ast.unparse(given[word]) != "False":
                yield f"line {node.lineno}: {word}={ast.unparse(given[word])}"
        if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
            yield f"line {node.lineno}: a command as one string"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_source_does_none_of_it(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    ["eval('1')", "import pickle", "from dill import load", "yaml.load(x)", "torch.load(p)", "os.system('ls')",
     "torch.load(p, weights_only=False)", "subprocess.run('ls', shell=True)", "subprocess.run(f'ls {x}')",
     "M.from_pretrained(p, trust_remote_code=True)", "model.push_to_hub('x')", "np.load(p, allow_pickle=True)"],
)  # fmt: skip
def test_each_of_it_would_be_seen(text: str) -> None:
    assert list(faults(text))


# licences -------------------------------------------------------------------------------------------------------------

# of the packages that a user installs with the kit: nothing that binds those who use its results or its code
FREE = re.compile(r"apache|bsd|mit\b|isc\b|psf|python software|mpl|mozilla|unlicense|zlib|hpnd|cc0|public domain", re.I)


def needed(name: str, seen: set[str]) -> None:
    """Adds the installed packages that `name` requires, extras apart."""
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    seen.add(name)
    for line in requires:
        other = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower().replace("_", "-")
        if "extra ==" not in line and other not in seen:
            needed(other, seen)


def licence_of(name: str) -> str:
    about = importlib.metadata.metadata(name)
    classifiers = [text for text in about.get_all("Classifier") or [] if text.startswith("License ::")]
    return " / ".join(filter(None, [about.get("License-Expression"), (about.get("License") or "")[:80], *classifiers]))


def test_every_dependency_has_a_free_licence() -> None:
    names: set[str] = set()
    needed("repro", names)
    assert len(names) > 30
    # the driver's libraries, which come with a CUDA build of torch, have NVIDIA's own terms
    others = {name: licence_of(name) for name in names if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert {name: text for name, text in others.items() if not FREE.search(text)} == {}
