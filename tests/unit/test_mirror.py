"""The copy of a run folder on another disk: whole or absent, given back where it is gone, and never the run's worry."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from repro import mirror as mirror_module
from repro import store
from repro.errors import BadInput
from repro.mirror import Mirror

DIGEST = "ab" * 32
STEP = "arms/naive/seed-0/0-sft-12345678"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run folder with one finished step."""
    folder = tmp_path / "runs" / "tiny-micro-abababab"
    run = store.open_run(folder, DIGEST, {"claims_hash": "registered"})
    run.journal("run started")
    run.close()
    with store.building(folder / STEP, "key", {"steps": 3}) as inside:
        (inside / "doses" / "1").mkdir(parents=True)
        (inside / "doses" / "1" / "weights").write_text("early")
        (inside / "weights").write_text("x")
    return folder


def mirrored(root: Path, disk: Path, warnings: list[str] | None = None) -> Mirror:
    found: list[str] = []
    mirror = Mirror(disk, root, (found if warnings is None else warnings).append)
    mirror.start()
    mirror.heard("step done", {"step": STEP})
    mirror.finish()
    assert found == []
    return mirror


def test_what_is_finished_is_in_the_mirror_with_the_files_beside_it(root: Path, tmp_path: Path) -> None:
    (root / "results.json").write_text("{}")
    copy = mirrored(root, tmp_path / "disk").copy
    assert store.is_done(copy / STEP, "key")
    assert (copy / STEP / "doses" / "1" / "weights").read_text() == "early"
    assert (store.read_done(copy / STEP) or {})["summary"] == {"steps": 3}
    assert sorted(path.name for path in copy.iterdir()) == ["arms", "journal.jsonl", "manifest.json", "results.json"]
    (root / "results.json").write_text('{"schema": 1}')
    mirrored(root, tmp_path / "disk")
    assert (copy / "results.json").read_text() == '{"schema": 1}'


def test_a_run_folder_that_is_gone_is_given_back_with_what_was_registered(root: Path, tmp_path: Path) -> None:
    created = (root / "manifest.json").read_text()
    mirror = mirrored(root, tmp_path / "disk")
    shutil.rmtree(root)
    mirror.give_back_manifest(DIGEST)
    assert (root / "manifest.json").read_text() == created
    assert mirror.give_back([("key", STEP), ("other", "arms/naive/seed-0/1-dpo-12345678")]) == 1
    assert store.is_done(root / STEP, "key")
    assert [event["event"] for event in store.read_journal(root)] == ["run started"]


def test_another_experiments_mirror_is_not_taken_up(root: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    mirror = mirrored(root, tmp_path / "disk", warnings)
    shutil.rmtree(root)
    mirror.give_back_manifest("cd" * 32)
    assert not root.exists()
    assert len(warnings) == 1


def test_a_damaged_step_in_the_mirror_is_not_given_back_and_is_copied_again(root: Path, tmp_path: Path) -> None:
    mirror = mirrored(root, tmp_path / "disk")
    (mirror.copy / STEP / "weights").write_text("y")
    shutil.rmtree(root / STEP)
    assert mirror.give_back([("key", STEP)]) == 0
    assert not (root / STEP).exists()
    with store.building(root / STEP, "key") as inside:
        (inside / "weights").write_text("x")
    assert (mirrored(root, tmp_path / "disk").copy / STEP / "weights").read_text() == "x"


def test_a_step_that_is_damaged_here_does_not_reach_the_mirror(root: Path, tmp_path: Path) -> None:
    (root / STEP / "weights").write_text("y")
    warnings: list[str] = []
    mirror = mirrored(root, tmp_path / "disk", warnings)
    assert not (mirror.copy / STEP).exists()
    assert "did not arrive as it was finished" in warnings[0]


def test_a_kill_while_copying_leaves_the_mirrors_step_whole_or_absent(root: Path, tmp_path: Path) -> None:
    for call in range(60):
        disk = tmp_path / f"disk-{call}"
        disk.mkdir()
        child = os.fork()
        if child == 0:
            left = call

            def deadly(function):
                def wrapped(*args, **kwargs):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        os._exit(9)
                    return function(*args, **kwargs)

                return wrapped

            for name in ("fsync", "rename", "replace", "mkdir", "open", "chmod"):
                setattr(os, name, deadly(getattr(os, name)))
            for name in ("copyfile", "rmtree"):
                setattr(shutil, name, deadly(getattr(shutil, name)))
            try:
                mirror_module._copy_finished(root / STEP, disk / root.name / STEP)
            finally:
                os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        copy = disk / root.name / STEP
        assert not copy.exists() or store.is_done(copy, "key")
        if not killed:
            break
    assert call > 8
    assert store.is_done(copy, "key")
    mirrored(root, tmp_path / "disk-3")
    assert not list((tmp_path / "disk-3").rglob(".tmp-*")), "what the kill left is swept"


def test_a_disk_that_can_not_be_written_costs_one_warning_and_no_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    warnings: list[str] = []
    mirror = mirrored(root, tmp_path / "disk", warnings)
    why = "No space left on device; the run goes on, and tries again at each step"
    assert warnings == [f"mirror: can't write to {mirror.copy}: {why}"]
    monkeypatch.undo()
    assert store.is_done(mirrored(root, tmp_path / "disk").copy / STEP, "key"), "the next start makes up for it"


def test_a_mirror_on_the_run_itself_is_refused(root: Path) -> None:
    for folder in (root.parent, root, root / "inner"):
        with pytest.raises(BadInput, match="that is where the run itself is"):
            Mirror(folder, root, print)
