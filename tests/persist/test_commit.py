"""Checkpoints: there whole or not at all; damaged ones set aside, never used, never deleted in silence."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from fluxtui.persist.checkpoints import commit
from fluxtui.persist.checkpoints.commit import (
    MANIFEST,
    commit_checkpoint,
    committed,
    newest_verified,
    remove_checkpoint,
    retain,
    set_aside,
    step_name,
    step_of,
    sweep,
    verify_checkpoint,
)
from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError

FILES = {"adapter.safetensors": b"weights" * 100, "optimizer.safetensors": b"moments" * 300, "state.json": b"{}"}


def put(parent: Path, *steps: int) -> None:
    for step in steps:
        commit_checkpoint(parent, step_name(step), FILES, {"step": step, "recipe_sha256": "abc"})


class Told(list[tuple[str, str]]):
    def __call__(self, name: str, sentence: str) -> None:
        self.append((name, sentence))


def test_what_is_committed_verifies_and_says_its_facts(tmp_path: Path) -> None:
    path = commit_checkpoint(tmp_path / "c", step_name(7), FILES, {"step": 7, "seed": 2**63 - 1, "recipe_sha256": "äbc"})
    manifest = verify_checkpoint(path)
    assert manifest.facts == {"step": 7, "seed": 2**63 - 1, "recipe_sha256": "äbc"}
    assert {name: entry.size for name, entry in manifest.files.items()} == {name: len(data) for name, data in FILES.items()}
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    assert committed(tmp_path / "c") == ["step-000000007"]
    assert newest_verified(tmp_path / "c", Told()) == "step-000000007"


def test_steps_have_names_that_sort(tmp_path: Path) -> None:
    assert step_name(480) == "step-000000480"
    assert step_of("step-000000480") == 480
    for name in ("step-480", "step-0000004800", "step-000000480\n", "../step-000000480", "", "step-00000048٠"):
        with pytest.raises(NotFoundError):
            step_of(name)
        with pytest.raises(NotFoundError):
            commit_checkpoint(tmp_path, name, FILES, {})
    for step in (-1, 10**9):
        with pytest.raises(ValueError, match="not a step"):
            step_name(step)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk from here on, in order: syncs by the file's name, renames and removals."""
    order: list[str] = []
    opened: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename", "unlink")}

    def spy_open(path: object, *args: object, **kwargs: object) -> int:
        descriptor: int = real["open"](path, *args, **kwargs)
        opened[descriptor] = Path(os.fspath(path)).name  # type: ignore[call-overload]
        return descriptor

    def spy_fsync(descriptor: int) -> None:
        order.append("fsync " + ("temporary" if opened[descriptor].startswith(".tmp-") else opened[descriptor]))
        real["fsync"](descriptor)

    def spy_rename(*args: object) -> None:
        order.append("rename")
        real["rename"](*args)

    def spy_unlink(*args: object, **kwargs: object) -> None:
        order.append("unlink")
        real["unlink"](*args, **kwargs)

    for name, spy in {"open": spy_open, "fsync": spy_fsync, "rename": spy_rename, "unlink": spy_unlink}.items():
        monkeypatch.setattr(os, name, spy)
    return order


PROTOCOL = [*(f"fsync {name}" for name in FILES), f"fsync {MANIFEST}", "fsync temporary", "rename", "fsync c"]


def test_the_order_of_the_protocol(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "c").mkdir()
    commit_checkpoint(tmp_path / "c", step_name(1), FILES, {})
    assert calls == PROTOCOL


def test_the_folder_of_checkpoints_is_durable_before_the_first_one_is(tmp_path: Path, calls: list[str]) -> None:
    commit_checkpoint(tmp_path / "c", step_name(1), FILES, {})
    assert calls == [f"fsync {tmp_path.name}", *PROTOCOL]


def test_a_checkpoint_found_whole_is_made_durable_too(tmp_path: Path, calls: list[str]) -> None:
    """Whoever renamed it may have been killed before the folder was synced."""
    put(tmp_path / "c", 1)
    calls.clear()
    put(tmp_path / "c", 1)
    assert calls == ["fsync c"]


def test_setting_aside_is_durable(tmp_path: Path, calls: list[str]) -> None:
    put(tmp_path / "c", 1)
    calls.clear()
    set_aside(tmp_path / "c", step_name(1))
    assert calls == ["rename", "fsync c"]


def test_a_removal_is_durable_before_a_byte_is_removed(tmp_path: Path, calls: list[str]) -> None:
    """Else a power cut may bring back the name with some of its files."""
    put(tmp_path / "c", 1)
    calls.clear()
    remove_checkpoint(tmp_path / "c", step_name(1))
    assert calls == ["rename", "fsync c", *["unlink"] * (len(FILES) + 1)]


def test_a_step_that_verifies_is_not_written_again(tmp_path: Path) -> None:
    put(tmp_path, 1)
    before = {path: path.stat().st_ino for path in (tmp_path / step_name(1)).iterdir()}
    commit_checkpoint(tmp_path, step_name(1), {"other": b"bytes"}, {"step": 99})
    assert {path: path.stat().st_ino for path in (tmp_path / step_name(1)).iterdir()} == before


def test_a_damaged_step_is_set_aside_and_written_again(tmp_path: Path) -> None:
    told = Told()
    for round_ in (1, 2):
        put(tmp_path, 1)
        (tmp_path / step_name(1) / "state.json").write_bytes(b"[]")
        commit_checkpoint(tmp_path, step_name(1), FILES, {"step": 1}, told)
        verify_checkpoint(tmp_path / step_name(1))
        assert (tmp_path / f".corrupt-step-000000001-{round_}" / "state.json").read_bytes() == b"[]"
    assert [name for name, _ in told] == [step_name(1)] * 2
    assert "state.json was changed" in told[0][1]


def test_a_checkpoint_that_says_another_step_than_its_name_is_damaged(tmp_path: Path) -> None:
    """As one that was renamed to a higher step, and its MANIFEST and that one's hash with it."""
    path = commit_checkpoint(tmp_path, step_name(9), FILES, {"step": 4})
    with pytest.raises(DamagedError, match="that of step 4, whatever the folder is called"):
        verify_checkpoint(path)


def test_another_sessions_checkpoint_at_a_step_gives_way_to_what_is_committed(tmp_path: Path) -> None:
    told = Told()
    commit_checkpoint(tmp_path, step_name(1), FILES, {"step": 1, "session_id": "other"})
    path = commit_checkpoint(tmp_path, step_name(1), FILES, {"step": 1, "session_id": "own"}, told)
    assert verify_checkpoint(path).facts["session_id"] == "own"
    assert b'"session_id": "other"' in (tmp_path / ".corrupt-step-000000001-1" / MANIFEST).read_bytes()
    assert [name for name, _ in told] == [step_name(1)]


def test_retention_counts_no_checkpoints_of_another_session(tmp_path: Path) -> None:
    """Somebody copies another session's in while this one trains: they are newer, and took the place of what was committed."""
    for step in (400, 402, 404):
        commit_checkpoint(tmp_path, step_name(step), FILES, {"step": step, "session_id": "other"})
    for step in (1, 2, 3):
        commit_checkpoint(tmp_path, step_name(step), FILES, {"step": step, "session_id": "own"})
    assert retain(tmp_path, 2, session_id="own") == [step_name(1)]
    assert committed(tmp_path) == [step_name(step) for step in (2, 3, 400, 402, 404)]


def test_left_overs_of_the_dead_are_swept_by_the_next_commit(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-step-000000001-dead"
    left.mkdir()
    (left / "adapter.safetensors").write_bytes(b"half")
    (tmp_path / ".lock").write_bytes(b"")
    put(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == [".lock", step_name(2)]
    sweep(tmp_path / "missing")


def test_retention_keeps_the_newest_good_ones_and_at_least_two(tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3, 4, 5)
    assert retain(tmp_path, 4) == [step_name(1)]
    assert retain(tmp_path, 0) == [step_name(2), step_name(3)]
    assert committed(tmp_path) == [step_name(4), step_name(5)]
    assert retain(tmp_path, 2) == []
    assert retain(tmp_path / "missing", 2) == []


def test_removal_hides_first_so_that_no_torn_one_is_ever_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2)

    def dies(path: Path) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(commit, "remove_tree", dies)
        with pytest.raises(SystemExit):
            remove_checkpoint(tmp_path, step_name(1))
    assert committed(tmp_path) == [step_name(2)]
    put(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == [step_name(2), step_name(3)]
    with pytest.raises(NotFoundError):
        remove_checkpoint(tmp_path, step_name(1))
    with pytest.raises(NotFoundError):
        remove_checkpoint(tmp_path, "../c")


def test_newer_ones_can_be_set_aside_under_a_name_that_does_not_say_corrupt(tmp_path: Path) -> None:
    put(tmp_path, 1, 2)
    assert set_aside(tmp_path, step_name(2), "newer").name == ".newer-step-000000002-1"
    assert newest_verified(tmp_path, Told()) == step_name(1)
    set_aside(tmp_path, step_name(1), "newer")
    assert newest_verified(tmp_path, Told()) is None
    with pytest.raises(StorageError):
        set_aside(tmp_path, step_name(1))


@pytest.mark.parametrize("files", [{MANIFEST: b""}, {"../x": b""}, {"": b""}, {".hidden": b""}, {"a/b": b""}])
def test_a_wrong_file_name_is_a_defect_of_the_caller(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="names of files"):
        commit_checkpoint(tmp_path, step_name(1), files, {})


@pytest.mark.parametrize("value", [True, 1.5, None, 2**64])
def test_a_fact_that_could_not_be_read_back_is_never_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="facts"):
        commit_checkpoint(tmp_path, step_name(1), FILES, {"x": value})  # type: ignore[dict-item]
    assert os.listdir(tmp_path) == []


def test_large_buffers_are_not_copied(tmp_path: Path) -> None:
    big = bytearray(64 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    commit_checkpoint(tmp_path, step_name(1), {"big": memoryview(big), "pieces": (memoryview(big) for _ in range(2))}, {})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert verify_checkpoint(tmp_path / step_name(1)).files["pieces"].size == 128 << 20
    assert grown < 8_000, f"{grown} KiB more"


def test_an_error_half_way_leaves_no_temporary_folder(tmp_path: Path) -> None:
    def torn() -> object:
        yield b"x"
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError):
        commit_checkpoint(tmp_path, step_name(1), {"a": b"1", "b": torn()}, {})  # type: ignore[dict-item]
    assert os.listdir(tmp_path) == []
