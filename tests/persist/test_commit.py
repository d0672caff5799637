"""Checkpoints: there whole or not at all; damaged ones set aside, never used, never deleted in silence."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import resource
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.persist import commit
from fluxtui.persist.commit import (
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


def test_the_order_of_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").mkdir()
    order: list[str] = []
    opened: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename")}

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

    monkeypatch.setattr(os, "open", spy_open)
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    commit_checkpoint(tmp_path / "c", step_name(1), FILES, {})
    assert order == [*(f"fsync {name}" for name in FILES), f"fsync {MANIFEST}", "fsync temporary", "rename", "fsync c"]


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


def test_left_overs_of_the_dead_are_swept_by_the_next_commit(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-step-000000001-dead"
    left.mkdir()
    (left / "adapter.safetensors").write_bytes(b"half")
    (tmp_path / ".lock").write_bytes(b"")
    put(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == [".lock", step_name(2)]
    sweep(tmp_path / "missing")


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _grown(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replaced(path: Path, make: object) -> None:
    path.unlink()
    make(path)  # type: ignore[operator]


DAMAGES = {
    "truncated": _truncated,
    "grown": _grown,
    "flipped": _flipped,
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "fifo": lambda path: _replaced(path, os.mkfifo),
    "folder": lambda path: _replaced(path, os.mkdir),
    "link": lambda path: (shutil.copy(path, path.parent.parent / "copy"), _replaced(path, lambda at: at.symlink_to("../copy"))),
    "dangling": lambda path: _replaced(path, lambda at: at.symlink_to("nothing")),
    "extra": lambda path: (path.parent / "extra").write_bytes(b""),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
}


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ.get("FLUXTUI_TEST_BOMB", "bomb-went-off"),)


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_said_and_the_one_before_is_used(
    tmp_path: Path, damage: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXTUI_TEST_BOMB", str(tmp_path / "bomb"))
    checkpoints = tmp_path / "c"
    put(checkpoints, 1, 2)
    DAMAGES[damage](checkpoints / step_name(2) / file)
    with pytest.raises(DamagedError) as refusal:
        verify_checkpoint(checkpoints / step_name(2))
    assert ("extra" if damage == "extra" else file) in str(refusal.value)
    told = Told()
    assert newest_verified(checkpoints, told) == step_name(1)
    assert [name for name, _ in told] == [step_name(2)]
    assert committed(checkpoints) == [step_name(1)]
    assert (checkpoints / ".corrupt-step-000000002-1").is_dir()
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to("step-000000001")])
def test_what_only_has_the_name_of_a_checkpoint_is_set_aside(tmp_path: Path, make: object) -> None:
    put(tmp_path, 1)
    make(tmp_path / step_name(2))  # type: ignore[operator]
    told = Told()
    assert newest_verified(tmp_path, told) == step_name(1)
    assert len(told) == 1
    assert os.path.lexists(tmp_path / ".corrupt-step-000000002-1")


def test_a_checkpoint_under_another_name_is_not_that_step(tmp_path: Path) -> None:
    put(tmp_path, 1)
    os.rename(tmp_path / step_name(1), tmp_path / step_name(9))
    with pytest.raises(DamagedError, match="another checkpoint"):
        verify_checkpoint(tmp_path / step_name(9))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_one_flipped_bit_or_cut_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    parent = tmp_path_factory.mktemp("flip")
    put(parent, 1)
    path = parent / step_name(1) / data.draw(st.sampled_from([*FILES, MANIFEST]))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        verify_checkpoint(parent / step_name(1))
    shutil.rmtree(parent)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_hostile_manifest_with_a_right_hash_is_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, nested: bool
) -> None:
    parent = tmp_path_factory.mktemp("hostile")
    put(parent, 1)
    body = (b'{"files":' + b"[" * 5000) if nested else body
    digest = hashlib.sha256(body).hexdigest().encode()
    (parent / step_name(1) / MANIFEST).write_bytes(body + digest + b"\n")
    with pytest.raises(DamagedError):
        verify_checkpoint(parent / step_name(1))
    shutil.rmtree(parent)


def test_a_manifest_of_a_gigabyte_is_refused_in_little_memory(tmp_path: Path) -> None:
    put(tmp_path, 1)
    os.truncate(tmp_path / step_name(1) / MANIFEST, 1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedError, match="larger than"):
        verify_checkpoint(tmp_path / step_name(1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_all_bad_is_refused_every_time_and_nothing_is_deleted(tmp_path: Path) -> None:
    put(tmp_path, 1, 2)
    for step in (1, 2):
        _flipped(tmp_path / step_name(step) / "state.json")
    for _ in range(2):  # also when asked again: a second press of the key must not begin from nothing
        with pytest.raises(DamagedError, match=r"no checkpoint in .* is sound"):
            newest_verified(tmp_path, Told())
    assert sorted(os.listdir(tmp_path)) == [".corrupt-step-000000001-1", ".corrupt-step-000000002-1"]


def test_none_ever_is_none(tmp_path: Path) -> None:
    assert newest_verified(tmp_path / "missing", Told()) is None
    assert newest_verified(tmp_path, Told()) is None
    (tmp_path / ".tmp-step-000000001-x").mkdir()
    assert newest_verified(tmp_path, Told()) is None
    with pytest.raises(NotFoundError):
        verify_checkpoint(tmp_path / step_name(1))


def test_bytes_that_the_disk_lost_are_set_aside_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2)
    real, inode = os.preadv, (tmp_path / step_name(2) / "state.json").stat().st_ino

    def bad_sector(descriptor: int, *args: object) -> int:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", bad_sector)
    told = Told()
    assert newest_verified(tmp_path, told) == step_name(1)
    assert "cannot be read" in told[0][1]
    assert (tmp_path / ".corrupt-step-000000002-1" / "state.json").read_bytes() == FILES["state.json"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_what_this_process_cannot_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    put(tmp_path, 1)

    def fails(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        with pytest.raises(StorageError) as caught:
            newest_verified(tmp_path, Told())
    assert caught.value.errno == code
    assert newest_verified(tmp_path, Told()) == step_name(1)


def test_retention_keeps_the_newest_good_ones_and_at_least_two(tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3, 4, 5)
    assert retain(tmp_path, 4) == [step_name(1)]
    assert retain(tmp_path, 0) == [step_name(2), step_name(3)]
    assert committed(tmp_path) == [step_name(4), step_name(5)]
    assert retain(tmp_path, 2) == []
    assert retain(tmp_path / "missing", 2) == []


def test_retention_never_counts_a_damaged_one_and_never_deletes_it(tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3, 4)
    _flipped(tmp_path / step_name(4) / "state.json")
    _flipped(tmp_path / step_name(1) / "state.json")
    told = Told()
    assert retain(tmp_path, 2, told) == []
    assert committed(tmp_path) == [step_name(2), step_name(3)]
    assert [name for name, _ in told] == [step_name(4), step_name(1)]
    assert sorted(name for name in os.listdir(tmp_path) if "corrupt" in name) == [
        ".corrupt-step-000000001-1",
        ".corrupt-step-000000004-1",
    ]


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


def _bad_disk(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    real, inodes = os.preadv, {(folder / "state.json").stat().st_ino for folder in folders}

    def bad_sector(descriptor: int, *args: object) -> int:
        if os.fstat(descriptor).st_ino in inodes:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", bad_sector)


def test_a_disk_that_reads_nothing_is_an_error_and_nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2, 3)
    with monkeypatch.context() as patched:
        _bad_disk(patched, *(tmp_path / step_name(step) for step in (1, 2, 3)))
        for call in (lambda: newest_verified(tmp_path, Told()), lambda: retain(tmp_path, 2)):
            with pytest.raises(StorageError, match="cannot be read"):
                call()
    assert committed(tmp_path) == [step_name(1), step_name(2), step_name(3)]
    assert newest_verified(tmp_path, Told()) == step_name(3), "the disk is well again, and nothing was lost"


def test_retention_deletes_nothing_while_one_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2, 3)
    _bad_disk(monkeypatch, tmp_path / step_name(3))
    with pytest.raises(StorageError):
        retain(tmp_path, 2)
    assert committed(tmp_path) == [step_name(1), step_name(2), step_name(3)]
