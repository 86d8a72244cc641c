"""The run folder: whole or absent after a kill at any moment, verified by hash, one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from repro import store
from repro.errors import BadInput, CannotHere, RunFailed

DIGEST = "ab" * 32


def build(folder: Path, key: str, text: str) -> None:
    with store.building(folder, key, {"steps": 3}) as temporary:
        (temporary / "weights.bin").write_text(text)
        (temporary / "doses" / "1").mkdir(parents=True)
        (temporary / "doses" / "1" / "weights.bin").write_text(text + " early")


def killed_at(call: int, folder: Path, key: str, text: str) -> bool:
    """Builds in a forked process that dies at its `call`-th operation on the disk; False if it got through."""
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

        for name in ("fsync", "rename", "replace", "mkdir", "open", "fdopen", "fchmod", "close"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            build(folder, key, text)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_equal_values_hash_alike_and_order_of_rows_counts() -> None:
    assert store.hash_rows([{"a": 1, "b": 2}]) == store.hash_rows([{"b": 2, "a": 1}])
    assert store.hash_rows([{"a": 1}, {"a": 2}]) != store.hash_rows([{"a": 2}, {"a": 1}])
    assert store.hash_rows(["ab", "c"]) != store.hash_rows(["a", "bc"])


def test_what_has_no_json_name_can_not_enter_a_key() -> None:
    with pytest.raises(TypeError):
        store.hash_value({"a": {1, 2}})
    with pytest.raises(ValueError, match="Out of range float"):
        store.hash_value(float("nan"))


def test_a_finished_folder_is_done_for_its_key_only(tmp_path: Path) -> None:
    build(tmp_path / "stage", "key", "x")
    assert store.is_done(tmp_path / "stage", "key")
    assert not store.is_done(tmp_path / "stage", "other key")
    done = store.read_done(tmp_path / "stage")
    assert done is not None
    assert done["summary"] == {"steps": 3}
    assert sorted(done["files"]) == ["doses/1/weights.bin", "weights.bin"]


def test_a_kill_at_any_moment_leaves_the_folder_whole_or_absent(tmp_path: Path) -> None:
    call = 0
    while killed_at(call, tmp_path / f"{call}" / "stage", "key", "x"):
        folder = tmp_path / f"{call}" / "stage"
        assert not folder.exists() or store.is_done(folder, "key"), f"half a folder after {call} operations"
        call += 1
    assert call > 10
    assert store.is_done(tmp_path / f"{call}" / "stage", "key")


def test_a_kill_while_replacing_leaves_old_new_or_nothing(tmp_path: Path) -> None:
    call, seen = 0, set()
    while True:
        folder = tmp_path / f"{call}" / "stage"
        build(folder, "old", "x")
        died = killed_at(call, folder, "new", "y")
        states = [key for key in ("old", "new") if store.is_done(folder, key)]
        assert len(states) == folder.exists()
        seen.add(states[0] if states else "absent")
        if not died:
            break
        call += 1
    assert {"old", "new"} <= seen


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with store.building(tmp_path / "stage", "key") as temporary:
            (temporary / "half").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_resumable_build_goes_on_from_what_a_kill_left(tmp_path: Path) -> None:
    def stop() -> None:
        with store.building(tmp_path / "stage", "key", resumable=True) as temporary:
            (temporary / "state").write_text("step 120")
            (temporary / ".tmp-x").write_text("half a line")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not (tmp_path / "stage").exists()
    with store.building(tmp_path / "stage", "other", resumable=True) as temporary:
        assert not (temporary / "state").exists(), "another key's leftovers"
    with store.building(tmp_path / "stage", "key", resumable=True) as temporary:
        assert (temporary / "state").read_text() == "step 120"
        assert not (temporary / ".tmp-x").exists(), "half a file would become part of the stage"
    assert store.is_done(tmp_path / "stage", "key")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), CannotHere("no server")])
def test_a_resumable_build_is_kept_where_the_machine_is_at_fault(tmp_path: Path, error: Exception) -> None:
    def stop(error: Exception) -> None:
        with store.building(tmp_path / "stage", "key", resumable=True) as temporary:
            (temporary / "state").write_text("step 120")
            raise error

    with pytest.raises(type(error)):
        stop(error)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyError):
        stop(KeyError())  # who knows what is wrong with it
    assert list(tmp_path.iterdir()) == []


def test_a_killed_runs_worker_is_waited_for_and_a_living_run_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    store.open_run(tmp_path / "run", DIGEST, {}).close()
    (tmp_path / "run" / ".lock").write_text(f"{dead}\n")
    worker = (tmp_path / "run" / ".lock").open("rb")  # it holds the lock on and ends a moment later
    fcntl.flock(worker, fcntl.LOCK_EX)
    threading.Timer(0.5, worker.close).start()
    store.open_run(tmp_path / "run", DIGEST, {}).close()
    (tmp_path / "run" / ".lock").write_text(f"{dead}\n")
    with (tmp_path / "run" / ".lock").open("rb") as stuck:
        fcntl.flock(stuck, fcntl.LOCK_EX)
        monkeypatch.setattr(store, "ORPHANS_SECONDS", 0.2)
        with pytest.raises(RunFailed, match=f"process {dead}"):
            store.open_run(tmp_path / "run", DIGEST, {})


def test_a_stale_key_is_rebuilt_in_place(tmp_path: Path) -> None:
    build(tmp_path / "stage", "old", "x")
    build(tmp_path / "stage", "new", "y")
    assert store.is_done(tmp_path / "stage", "new")
    assert (tmp_path / "stage" / "weights.bin").read_text() == "y"
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def test_a_flipped_bit_a_missing_and_an_added_file_are_found(tmp_path: Path) -> None:
    for name in ("flipped", "missing", "added", "torn"):
        build(tmp_path / name, "key", "x")
    file = tmp_path / "flipped" / "doses" / "1" / "weights.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert "doses/1/weights.bin was changed" in (store.why_not_done(tmp_path / "flipped", "key") or "")
    (tmp_path / "missing" / "weights.bin").unlink()
    (tmp_path / "added" / "extra").write_text("")
    (tmp_path / "torn" / "DONE.json").write_text('{"key": "key", "fi')
    for name in ("missing", "added", "torn"):
        assert not store.is_done(tmp_path / name, "key")


def test_an_atomic_write_keeps_the_old_text_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    store.write_atomic(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"text": "line\nbreak \u2028 é"}, {"value": None}]
    store.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert store.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_opening_creates_manifest_and_keeps_the_first_date(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    store.open_run(folder, DIGEST, {"seeds": [0]}).close()
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": "long ago"}))
    store.open_run(folder, DIGEST, {"seeds": [0, 1]}).close()
    assert json.loads(path.read_text()) == {
        "schema": 1,
        "created": "long ago",
        "experiment_hash": DIGEST,
        "seeds": [0, 1],
    }


def test_the_journal_only_grows_and_survives_a_torn_line(tmp_path: Path) -> None:
    run = store.open_run(tmp_path / "run", DIGEST, {})
    run.journal("start", arms=["base"])
    with (run.path / "journal.jsonl").open("a") as file:
        file.write('{"event": "to')
    run.journal("done")
    assert [event["event"] for event in store.read_journal(run.path)] == ["start", "done"]


def test_a_second_process_is_turned_away_while_the_first_holds_the_run(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom repro import store\nfrom repro.errors import RunFailed\n"
        "try:\n    store.open_run(pathlib.Path(sys.argv[1]), sys.argv[2], {})\n"
        "except RunFailed as error:\n    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), DIGEST]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = store.open_run(tmp_path / "run", DIGEST, {})
    second = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert second.returncode == 1
    assert f"process {os.getpid()}" in second.stderr
    with pytest.raises(RunFailed, match="in use by another repro"):
        store.open_run(tmp_path / "run", DIGEST, {})
    run.close()
    assert subprocess.run(command, env=environment).returncode == 0


def test_a_run_folder_of_another_experiment_is_refused_untouched(tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", DIGEST, {}).close()
    before = (tmp_path / "run" / "manifest.json").read_text()
    with pytest.raises(BadInput, match="another experiment"):
        store.open_run(tmp_path / "run", "cd" * 32, {})
    assert (tmp_path / "run" / "manifest.json").read_text() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(BadInput, match="something else than a run"):
        store.open_run(tmp_path / "mine", DIGEST, {})
    with pytest.raises(BadInput, match="is a file"):
        store.open_run(tmp_path / "file", DIGEST, {})
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["thesis.txt"]


def test_a_run_folder_is_not_a_folder_for_runs(tmp_path: Path) -> None:
    store.open_run(tmp_path / "run", DIGEST, {}).close()
    with pytest.raises(BadInput, match="is itself a run folder"):
        store.open_run(tmp_path / "run" / "inner", DIGEST, {})


def test_a_folder_that_can_not_be_written_is_this_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotHere, match="--runs-dir"):
        store.open_run(tmp_path / "file" / "runs" / "run", DIGEST, {})


def test_opening_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    left = tmp_path / "run" / "arms" / "naive" / "seed-0" / ".tmp-0-sft-12345678-x"
    left.mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"experiment_hash": DIGEST}))
    resumable = left.parent / ".work-0-sft-12345678-y"
    resumable.mkdir()
    run = store.open_run(tmp_path / "run", DIGEST, {})
    assert not left.exists()
    assert resumable.exists()
    store.sweep(run.path, unfinished=True)
    assert not resumable.exists()
    assert left.parent.exists()


def test_names_fit_every_file_system() -> None:
    assert store.folder_name("small", "org/Model 1B", DIGEST) == "small-org-Model-1B-abababab"


def test_a_dangling_link_makes_way_for_the_folder(tmp_path: Path) -> None:
    (tmp_path / "stage").symlink_to("gone")
    build(tmp_path / "stage", "key", "x")
    assert store.is_done(tmp_path / "stage", "key")
