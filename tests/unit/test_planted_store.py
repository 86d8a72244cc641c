"""What lies on the disk, to the letter: texts that keys are hashes of, files that people read, names of leftovers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest

from repro import store
from repro.errors import BadInput, CannotHere, RunFailed

DIGEST = "ab" * 32


def test_a_key_is_the_hash_of_one_spelling() -> None:
    assert store.canonical({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'
    assert store.hash_value({"a": "é"}) == hashlib.sha256('{"a":"é"}'.encode()).hexdigest()
    assert store.hash_rows([{"a": 1}, "é"]) == hashlib.sha256('{"a":1}\n"é"\n'.encode()).hexdigest()


def test_a_file_of_many_pieces_is_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(b"0123456789")
    monkeypatch.setattr(store, "_PIECE", 3)
    assert store.hash_file(tmp_path / "weights") == hashlib.sha256(b"0123456789").hexdigest()


def test_json_files_can_be_read_by_people(tmp_path: Path) -> None:
    store.write_json(tmp_path / "results.json", {"b": "é", "a": [1]})
    assert (tmp_path / "results.json").read_bytes() == '{\n  "b": "é",\n  "a": [\n    1\n  ]\n}\n'.encode()
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o644
    store.write_jsonl(tmp_path / "rows.jsonl", [{"b": "é"}, 2])
    assert (tmp_path / "rows.jsonl").read_bytes() == '{"b": "é"}\n2\n'.encode()


@pytest.mark.parametrize("write", [store.write_json, lambda path, value: store.write_jsonl(path, [value])])
def test_what_is_no_number_is_never_written(tmp_path: Path, write) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write(tmp_path / "file", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_empty_lines_of_a_rows_file_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n {"a": 2}\n')
    assert store.read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


def test_what_is_half_written_has_a_name_that_the_next_run_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run(tmp_path / "run", DIGEST, {})
    left: list[Path] = []

    def killed(source, target) -> None:
        left.append(Path(source))
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        patched.setattr(os, "unlink", lambda path: None)
        with pytest.raises(SystemExit):
            store.write_json(run.path / "results.json", {})
    assert left[0].parent == run.path  # a rename from another disk would not be atomic
    store.sweep(run.path)
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "manifest.json"]


def test_a_folder_that_makes_way_steps_aside_under_a_name_that_the_next_run_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run(tmp_path / "run", DIGEST, {})
    folder = run.path / "arms" / "naive" / "seed-0" / "0-sft-12345678"
    with store.building(folder, "old") as inside:
        (inside / "weights").write_text("old")

    # killed between taking the old one away and putting the new one there
    rename = os.rename

    def killed(source, target) -> None:
        if Path(source) != folder:
            raise SystemExit
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(SystemExit), store.building(folder, "new") as inside:
            (inside / "weights").write_text("new")
    assert len(list(folder.parent.iterdir())) == 2
    store.sweep(run.path)
    assert list(folder.parent.iterdir()) == []


def test_every_file_and_folder_is_on_the_disk_before_the_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(store, "sync", lambda path: synced.append(path.name))
    with store.building(tmp_path / "stage", "key") as inside:
        (inside / "doses" / "5").mkdir(parents=True)
        (inside / "doses" / "5" / "weights").write_text("x")
    assert {"weights", "5", "doses"} <= set(synced)
    assert synced[-1] == tmp_path.name
    assert synced.index("weights") < synced.index("doses")


def test_a_file_that_can_not_be_synced_is_an_error_and_a_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(handle: int) -> None:
        raise OSError(22, "Invalid argument")

    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(os, "fsync", refused)
    store.sync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        store.sync(tmp_path / "file")


def test_reasons_why_a_folder_is_not_done_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    assert store.why_not_done(folder, "key") == "not there yet"
    with store.building(folder, "key") as inside:
        (inside / "weights").write_text("x")
    assert store.why_not_done(folder, "key") is None
    assert store.why_not_done(folder, "other") == "made from other inputs"
    (folder / "more").write_text("x")
    assert store.why_not_done(folder, "key") == "files are missing or were added"
    (folder / "more").unlink()
    (folder / "weights").write_text("y")
    assert store.why_not_done(folder, "key") == "weights was changed after it was finished"
    for text in ("[]", '{"key": "key"}', '{"key": "key", "files": []}', ""):
        (folder / "DONE.json").write_text(text)
        assert store.read_done(folder) is None
        assert store.why_not_done(folder, "key") == "DONE.json is missing or unreadable"


def test_a_done_file_says_when_it_was_finished_and_nothing_of_itself(tmp_path: Path) -> None:
    with store.building(tmp_path / "stage", "key") as inside:
        (inside / "weights").write_text("x")
    done = json.loads((tmp_path / "stage" / "DONE.json").read_text())
    assert list(done) == ["key", "finished", "files", "summary"]
    assert done["finished"][:2] == "20"
    assert done["finished"].endswith("+00:00")
    assert done["files"] == {"weights": hashlib.sha256(b"x").hexdigest()}
    assert done["summary"] == {}


# the run folder


def test_the_journal_holds_one_readable_line_an_event(tmp_path: Path) -> None:
    run = store.open_run(tmp_path / "run", DIGEST, {})
    run.journal("start", arms=["é"])
    run.journal("done")
    first, second, end = (run.path / "journal.jsonl").read_text(encoding="utf-8").split("\n")
    assert list(json.loads(first)) == ["time", "event", "arms"]
    assert '"event": "start", "arms": ["é"]' in first
    assert '"event": "done"' in second
    assert end == ""


def test_a_line_torn_within_a_letter_stays_alone(tmp_path: Path) -> None:
    run = store.open_run(tmp_path / "run", DIGEST, {})
    assert store.read_journal(run.path) == []
    (run.path / "journal.jsonl").write_bytes('{"event": "é'.encode()[:-1])
    run.journal("done")
    assert [event["event"] for event in store.read_journal(run.path)] == ["done"]


def test_a_closed_run_lets_the_next_one_in_and_may_be_closed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.open_run(tmp_path / "run", DIGEST, {})
    first.close()
    second = store.open_run(tmp_path / "run", DIGEST, {})
    closed: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", closed.append)
        first.close()
    assert closed == []  # the handle may be another's by now
    with pytest.raises(RunFailed):
        store.open_run(tmp_path / "run", DIGEST, {})
    assert (tmp_path / "run" / ".lock").read_text() == f"{os.getpid()}\n"
    second.close()


@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_a_lock_without_a_readable_name_still_holds(tmp_path: Path, content: bytes) -> None:
    store.open_run(tmp_path / "run", DIGEST, {}).close()
    (tmp_path / "run" / ".lock").write_bytes(content)
    with (tmp_path / "run" / ".lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        holder = "unknown" if not content else "\ufffd"
        with pytest.raises(RunFailed) as caught:
            store.open_run(tmp_path / "run", DIGEST, {})
    where = tmp_path / "run"
    assert str(caught.value) == f"{where} is in use by another repro (process {holder}): wait for it, or stop it"


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_manifest_that_can_not_be_read_is_left_to_the_person(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(text)
    with pytest.raises(BadInput) as caught:
        store.check(tmp_path / "run", DIGEST)
    path = tmp_path / "run" / "manifest.json"
    assert caught.value.lines == [f"{path} can't be read: move the folder away, or restore the file"]


def test_a_run_folder_whose_manifest_can_not_be_written_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_json", full)
        with pytest.raises(CannotHere) as caught:
            store.open_run(tmp_path / "run", DIGEST, {})
    why = "No space left on device; give a writable folder with --runs-dir"
    assert caught.value.lines == [f"can't write to {tmp_path / 'run'}: {why}"]
    store.open_run(tmp_path / "run", DIGEST, {}).close()


def test_a_run_killed_before_its_manifest_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("1\n")
    (tmp_path / "run" / ".tmp-x").write_text("")
    store.open_run(tmp_path / "run", DIGEST, {"seeds": [0]}).close()
    assert not (tmp_path / "run" / ".tmp-x").exists()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["seeds"] == [0]


def test_a_new_folder_is_new_or_empty_and_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    store.check_new_folder(tmp_path / "empty")
    store.check_new_folder(tmp_path / "not" / "yet")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(BadInput, match="is there already and not empty: name a new folder"):
            store.check_new_folder(taken)
    with pytest.raises(CannotHere) as caught:
        store.check_new_folder(tmp_path / "file" / "inner")
    folder = tmp_path / "file" / "inner"
    assert caught.value.lines == [f"can't write to {folder}: {tmp_path / 'file'} is not a writable folder"]


def test_a_folder_whose_parent_may_not_be_written_can_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(CannotHere, match="is not a writable folder"):
        store.check_new_folder(tmp_path / "new")
