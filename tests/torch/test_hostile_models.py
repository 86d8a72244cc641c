"""Checkpoints made to do harm: pickles, headers that lie, archives that swell, code beside them; each is one line."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro import models
from repro.errors import BadInput


@pytest.fixture
def copy(tiny_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    return SimpleNamespace(id="copy", path_or_hub=str(folder), revision=None, system="native", folder=folder)


def header(text: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


def swelling(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", b"\0" * 50_000_000)
    return path.read_bytes()


LIES = {
    "a header of 2**60 bytes": lambda _: header("{}", 2**60),
    "a header longer than the file": lambda _: header("{}", 10_000),
    "no JSON": lambda _: header("[" * 5000),
    "a tensor beyond the file": lambda _: header('{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'),
    "a shape of 2**63": lambda _: header(
        '{"w": {"dtype": "F32", "shape": [9223372036854775807, 4], "data_offsets": [0, 4]}}') + b"\0" * 4,
    "tensors on each other": lambda _: header(
        '{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, '
        '"b": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}') + b"\0" * 4,
    "a pickle by another name": lambda _: b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    "an archive that swells": swelling,
    "nothing": lambda _: b"",
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_weights_that_lie_are_refused(copy, name: str, tmp_path) -> None:
    content = LIES[name](tmp_path / "archive")
    for path in copy.folder.glob("*.safetensors"):
        path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(BadInput) as caught:
        models.load(copy, device="cpu", quant="none")
    (line,) = caught.value.lines
    assert line.startswith("copy: ")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", LIES)
def test_an_adapter_that_lies_is_refused(load_tiny, lora, name: str, tmp_path) -> None:
    model = load_tiny()
    model.new_adapter(lora, seed=0)
    model.save_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(LIES[name](tmp_path / "archive"))
    with pytest.raises(BadInput) as caught:
        model.load_adapter(tmp_path / "adapter")
    assert len(caught.value.lines) == 1


def test_an_adapter_of_a_pickle_is_refused_unread(load_tiny, lora, tmp_path) -> None:
    model = load_tiny()
    model.new_adapter(lora, seed=0)
    model.save_adapter(tmp_path / "adapter")
    marker = tmp_path / "ran"
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(
        b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    )
    with pytest.raises(BadInput, match=r"adapter_model.safetensors is missing"):
        model.load_adapter(tmp_path / "adapter")
    assert not marker.exists()


def test_code_that_comes_with_a_tokenizer_is_never_run(copy) -> None:
    marker = copy.folder / "ran"
    (copy.folder / "tokens.py").write_text(f"open({str(marker)!r}, 'w')\nclass T: pass\n")
    path = copy.folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["tokens.T", None]}, "tokenizer_class": "T"}))
    with contextlib.suppress(BadInput):
        models.load(copy, device="cpu", quant="none")
    assert not marker.exists()
